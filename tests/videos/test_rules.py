"""Every rule of a generation, one row each: what breaks it is refused before anything is sent, with its own words."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.errors import AvatarError, InvalidInput, InvalidSource
from seedance_avatar.models import Asset, AssetSource
from seedance_avatar.videos.adapter import VideoAdapter
from seedance_avatar.videos.request import ASPECT_RATIOS, VIDEO_MODELS, GenerationRequest, Reference, VideoModel
from seedance_avatar.videos.rules import as_sent, check_request, parts_of

ULID = "01JZ8Q4T2V6W8X0Y2Z4A6B8C0D"
URL = "https://cdn.example.com/a.jpg"


def asset(
    asset_type: str | None = "image", status: str = "active", asset_id: str = f"pa_{ULID}", **facts: Any
) -> Asset:
    return Asset(asset_id=asset_id, asset_type=asset_type, status=status, **facts)


def request(prompt: str = "She waves.", **fields: Any) -> GenerationRequest:
    return GenerationRequest(prompt, **fields)


def images(count: int) -> list[Reference]:
    return [Reference.image(f"https://cdn.example.com/{at}.jpg") for at in range(count)]


def videos(count: int) -> list[Reference]:
    return [Reference.video(f"https://cdn.example.com/{at}.mp4") for at in range(count)]


def audios(count: int) -> list[Reference]:
    return [Reference.audio(f"https://cdn.example.com/{at}.mp3") for at in range(count)]


FRAME = {"first_frame": URL}
FRAMES = {"first_frame": URL, "last_frame": URL}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "duration: 4 to 15 seconds": ({"duration": 16}, "makes no video of 16 seconds: ask for 4 to 15 seconds, or 0"),
    "duration: no less than 4": ({"duration": 3}, "makes no video of 3 seconds"),
    "duration: -2 is not auto": ({"duration": -2}, "makes no video of -2 seconds"),
    "duration: mini has no auto (0)": ({"model": "seedance-2-mini", "duration": 0}, "does not choose the duration"),
    "duration: mini has no auto (-1)": ({"model": "seedance-2-mini", "duration": -1}, "does not choose the duration"),
    "duration: 2-5 up to 30": ({"model": "seedance-2-5", "duration": 31}, "ask for 4 to 30 seconds"),
    "duration: whole seconds": ({"duration": 5.5}, "duration must be a whole number of seconds, not 5.5"),
    "duration: no truth value": ({"duration": True}, "duration must be a whole number"),
    "aspect ratio: those of the list": (
        {"aspect_ratio": "2:1"},
        "has no aspect ratio '2:1': ask for one of 21:9, 16:9",
    ),
    "resolution: those of the list": ({"resolution": "8k"}, "has no resolution '8k': ask for one of 480p, 720p"),
    "resolution: by model": ({"model": "seedance-2-fast", "resolution": "1080p"}, "ask for one of 480p, 720p"),
    "resolution: by model, older": (
        {"model": "doubao-seedance-2-0-fast", "resolution": "4k"},
        "has no resolution '4k'",
    ),
    "resolution: lower case": ({"resolution": "720P"}, "has no resolution '720P'"),
    "generate_audio: a truth value": ({"generate_audio": "yes"}, "generate_audio must be True or False, not 'yes'"),
    "return_last_frame: a bool": ({"return_last_frame": 1}, "return_last_frame must be True or False"),
    "seed: a whole number": ({"seed": "7"}, "seed must be a whole number, not '7'"),
    "prompt: text": ({"prompt": None}, "prompt must be text, not None"),
    "model: a name": ({"model": ""}, "model must be the name of a model"),
    "callback_url: public": ({"callback_url": "http://localhost/hook"}, "the service cannot call callback_url"),
    "client_business_id: goes into a path": ({"client_business_id": "../x"}, "client_business_id must be 1 to 128"),
    "client_business_id: not empty": ({"client_business_id": ""}, "client_business_id must be 1 to 128"),
    "first_frame: at most one": (
        {**FRAME, "references": [Reference.first_frame(URL)]},
        "2 images have the role first_frame: there can be only one",
    ),
    "last_frame: at most one": (
        {**FRAMES, "references": [Reference.last_frame(URL)]},
        "2 images have the role last_frame: there can be only one",
    ),
    "last_frame: only with first_frame": ({"last_frame": URL}, "a last frame without a first: pass first_frame too"),
    "reference_image: at most 9": (
        {"references": images(10)},
        "10 references have the role reference_image: seedance-2 takes 9",
    ),
    "reference_video: at most 3": ({"references": videos(4)}, "takes 3 at most"),
    "reference_audio: at most 3": ({"references": images(1) + audios(4)}, "4 references have the role reference_audio"),
    "reference_audio: needs an image or a video": (
        {"references": audios(1)},
        "takes audio only beside an image or a video",
    ),
    "frames and references never mix": ({**FRAME, "references": images(1)}, "frames and references are mixed"),
    "frames and audio never mix": ({**FRAME, "references": audios(1)}, "frames and references are mixed"),
    "2-5: frames are adaptive": ({"model": "seedance-2-5", **FRAME}, "only with aspect_ratio='adaptive'"),
    "2-5: no 4k": ({"model": "seedance-2-5", "resolution": "4k"}, "seedance-2-5 has no resolution '4k'"),
    "tools: only without media": ({"tools": [{"type": "web_search"}], "references": images(1)}, "tools and media"),
    "callback_url: https": ({"callback_url": "http://example.com/hook"}, "it must begin with https://"),
    "2-5: 30 images": ({"model": "seedance-2-5", "references": images(31)}, "seedance-2-5 takes 30 at most"),
    "2-5: 10 videos": ({"model": "seedance-2-5", "references": videos(11)}, "seedance-2-5 takes 10 at most"),
    "2-5: 10 audios": ({"model": "seedance-2-5", "references": audios(11)}, "seedance-2-5 takes 10 at most"),
    "only active assets": ({"references": [asset(status="processing")]}, "is processing, not active: wait for it"),
    "only active assets as frames": ({"first_frame": asset(status="queued")}, "is queued, not active"),
    "url: public": ({"references": [Reference.image("http://10.0.0.1/a.jpg")]}, "cannot fetch the reference_image"),
    "url: no file": ({"first_frame": "/home/me/a.jpg"}, "it is a local path: upload it first"),
    "url: no asset id without its scheme": ({"first_frame": f"pa_{ULID}"}, "it has no scheme"),
    "url: an asset URI has an id": ({"first_frame": "asset://"}, "asset:// is not an asset URI"),
    "url: an asset URI has nothing else": ({"first_frame": "asset://pa_1/../x"}, "is not an asset URI"),
    "a URL tells no type": ({"references": [URL]}, "reference 1 is of type str: pass an active Asset, or say what"),
    "a URL alone tells no type": ({"references": URL}, "reference 1 is of type str"),
    "nothing of the kind": ({"references": 7}, "reference 1 is of type int"),
    "a source is not yet an asset": ({"references": [AssetSource.image(URL)]}, "reference 1 is of type AssetSource"),
    "an asset of unknown type": ({"references": [asset(None)]}, "does not tell whether it is an image"),
    "an asset of another type": (
        {"references": [Reference.image(asset("video"))]},
        "is of type video: a reference_image",
    ),
    "a video is no frame": ({"first_frame": asset("video")}, "is of type video: a first_frame takes type image"),
    "roles: those of the list": ({"references": [Reference(URL, "style")]}, "has the role 'style': it must be one of"),  # type: ignore[arg-type]  # the case
    "no URL in the prompt": (
        {"prompt": f"like {URL}?sig=s3cret"},
        f"the prompt holds {URL}?…: pass media as references",
    ),
    "no asset URI in the prompt": ({"prompt": f"use asset://pa_{ULID}"}, "the prompt holds asset://pa_"),
    "no id in the prompt": ({"prompt": f"as pa_{ULID} does"}, f"the prompt holds pa_{ULID}"),
    "no older id in the prompt": ({"prompt": "as asset-20260101120000-x7f does"}, "the prompt holds asset-2026"),
    "something to generate from": ({"prompt": " "}, "there is neither a prompt nor a reference"),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_breaks_a_rule_is_refused(rule: str) -> None:
    fields, message = REFUSED[rule]
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        check_request(request(**fields))
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_every_refusal_has_its_own_message() -> None:
    def told(fields: dict[str, Any]) -> str:
        with pytest.raises(InvalidInput) as caught:
            check_request(request(**fields))
        return caught.value.message

    # Three rows break the same rule as another: a URL alone, both autos of mini, frames with audio.
    assert len({told(fields) for fields, _ in REFUSED.values()}) == len(REFUSED) - 3


TAKEN: dict[str, dict[str, Any]] = {
    "a prompt alone": {},
    "auto duration (0)": {"duration": 0},
    "auto duration (-1)": {"duration": -1},
    "the shortest and the longest": {"duration": 15},
    "2-5 the longest": {"model": "seedance-2-5", "duration": 30},
    "4k": {"resolution": "4k"},
    "mini with references": {"model": "seedance-2-mini", "resolution": "480p", "references": images(9) + videos(3)},
    "a first frame": FRAME,
    "mini with frames": {"model": "seedance-2-mini", **FRAMES},
    "2-5 with frames": {"model": "seedance-2-5", "aspect_ratio": "adaptive", **FRAMES},
    "2-5 auto duration": {"model": "seedance-2-5", "duration": -1},
    "tools with a prompt alone": {"tools": [{"type": "web_search"}]},
    "a first and a last frame": FRAMES,
    "frames by role": {"references": [Reference.last_frame(URL), Reference.first_frame(URL)]},
    "all a model takes": {"references": images(9) + videos(3) + audios(3)},
    "audio beside a video": {"references": videos(1) + audios(1)},
    "2-5 all that it takes": {"model": "seedance-2-5", "references": images(30) + videos(10) + audios(10)},
    "2-5 audio alone": {"model": "seedance-2-5", "references": audios(1)},
    "no prompt beside a reference": {"prompt": "", "references": images(1)},
    "an asset alone": {"references": asset()},
    "an asset URI": {"first_frame": f"asset://pa_{ULID}"},
    "a type from the source": {"references": [asset(None, source=AssetSource.video(URL))]},
    "words that begin like ids": {"prompt": "A pa_system, an asset-20 stock, group-3 dancers, http without slashes"},
    "a business id": {"client_business_id": "order_20260616-001.a:b"},
    "a callback": {"callback_url": "https://example.com/hook?token=x"},
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_keeps_the_rules_is_taken_without_a_remark(case: str) -> None:
    assert check_request(request(**TAKEN[case])) == ()


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
@pytest.mark.parametrize("model", VIDEO_MODELS)
def test_every_model_takes_every_ratio(model: str, ratio: str) -> None:
    assert check_request(request(model=model, aspect_ratio=ratio, duration=5, resolution="480p")) == ()


def test_more_than_all_together_is_refused_where_the_model_counts_them_together() -> None:
    tight = attrs.evolve(VIDEO_MODELS["seedance-2-5"], references=3)
    with pytest.raises(InvalidInput, match="there are 4 references: seedance-2-5 takes 3 in all"):
        check_request(request(model="seedance-2-5", references=images(4)), {"seedance-2-5": tight})


def test_a_failed_asset_says_why_it_failed() -> None:
    with pytest.raises(InvalidInput, match="failed: face not found: it can never be used"):
        check_request(request(references=[asset(status="failed", reason="face not found")]))


def test_a_url_that_cannot_be_fetched_is_an_invalid_source_and_shows_no_query() -> None:
    with pytest.raises(InvalidSource, match=r"http://localhost/a\.jpg\?…"):
        check_request(request(references=[Reference.image("http://localhost/a.jpg?sig=s3cret")]))


def test_private_hosts_are_let_through_where_the_gateway_stands_beside_them() -> None:
    private = request(references=[Reference.image("http://10.0.0.1/a.jpg")], callback_url="http://10.0.0.2/hook")
    assert check_request(private, allow_private=True) == ()


def test_an_unknown_model_is_let_through_unchecked_with_a_remark() -> None:
    remarks = check_request(request(model="seedance-3", duration=99, resolution="8k", references=audios(20)))
    assert [remark.split(" and ")[0] for remark in remarks] == ["the model 'seedance-3' is not known here"]
    assert len(check_request(request(model="seedance-3", aspect_ratio="2:1"))) == 2


def test_rules_of_every_model_hold_for_an_unknown_one_too() -> None:
    with pytest.raises(InvalidInput, match="frames and references are mixed"):
        check_request(request(model="seedance-3", **FRAME, references=images(1)))


def test_the_table_of_models_is_the_callers_to_change() -> None:
    table = {**VIDEO_MODELS, "seedance-3": VideoModel(name="seedance-3", longest=60)}
    assert check_request(request(model="seedance-3", duration=60), table) == ()
    with pytest.raises(InvalidInput, match="4 to 60 seconds"):
        check_request(request(model="seedance-3", duration=61), table)


def test_ids_of_two_styles_are_remarked() -> None:
    older = asset(asset_id="asset-20260101120000-x7f")
    remarks = check_request(request(references=[asset(), older, *images(1)]))
    assert [("different styles (asset-, pa_)" in remark) for remark in remarks] == [True]
    assert check_request(request(references=[older, older])) == ()
    assert len(check_request(request(references=[asset(), asset(asset_id="x9")]))) == 1


def test_references_are_sent_by_type_each_in_the_callers_order() -> None:
    mixed = [*audios(1), *videos(2), asset(), *images(2)]
    parts = parts_of(request(references=mixed))
    assert [part.medium_type for part in parts] == ["image"] * 3 + ["video"] * 2 + ["audio"]
    assert [part.url for part in parts[:3]] == [
        f"asset://pa_{ULID}",
        "https://cdn.example.com/0.jpg",
        "https://cdn.example.com/1.jpg",
    ]
    frames = parts_of(request(last_frame=f"asset://pa_{ULID}", first_frame=URL))
    assert [(part.role, part.url) for part in frames] == [("first_frame", URL), ("last_frame", f"asset://pa_{ULID}")]


FIELDS = (
    "model",
    "duration",
    "resolution",
    "aspect_ratio",
    "seed",
    "first_frame",
    "callback_url",
    "client_business_id",
)
anything: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers(), max_size=2)
)


@given(
    prompt=anything,
    fields=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, anything)),
    references=st.lists(anything, max_size=2),
)
def test_whatever_is_passed_it_is_taken_or_refused_in_order(
    prompt: Any, fields: dict[str, Any], references: list[Any]
) -> None:
    told = ""
    try:
        check_request(GenerationRequest(prompt, references=references, **fields))
    except AvatarError as error:
        told = str(error)
    assert told.isprintable()


def test_a_request_shows_no_query_and_no_whole_prompt() -> None:
    secret = request(
        "p" * 500, first_frame=f"{URL}?sig=s3cret", callback_url="https://example.com/hook?token=s3cret", key="shot 1"
    )
    assert "s3cret" not in repr(secret)
    assert len(secret.label) < 80
    assert secret.label.startswith("shot 1 (")
    assert "s3cret" not in repr(Reference.image(f"{URL}?sig=s3cret"))
    assert "s3cret" not in repr(parts_of(request(first_frame=f"{URL}?sig=s3cret")))


def test_a_duration_of_0_is_sent_as_the_one_that_the_model_documents() -> None:
    asked = request(model="seedance-2-5", duration=0)
    (remark,) = check_request(asked)
    assert "-1 is sent" in remark
    assert as_sent(asked).duration == -1
    for other in (request(duration=0), request(model="seedance-2-5", duration=4), request(model="new", duration=0)):
        assert as_sent(other) is other
    sent = VideoAdapter().request(asked, "b-1")
    assert sent.body is not None
    assert json.loads(sent.body)["duration"] == -1
