"""What identifies a thing, and what of it may be kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.canaries import SECRET_TEXTS, sings

from seedance_avatar.errors import ApiError, ProtocolError, SubmissionInDoubt
from seedance_avatar.journal.records import KINDS, Hasher, error_line

HASHER = Hasher(b"a secret of the journal")
TEXT = st.text(max_size=6)
ASSETS = st.sampled_from(["image", "video", "audio"])


@given(one=st.tuples(st.sampled_from(KINDS), TEXT, TEXT), two=st.tuples(st.sampled_from(KINDS), TEXT, TEXT))
def test_without_a_key_group_kind_and_url_tell_things_apart(
    one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    names = [HASHER.fingerprint(kind=kind, group_id=group, url=url) for kind, group, url in (one, two)]  # type: ignore[arg-type]  # drawn from KINDS
    assert (names[0] == names[1]) == (one == two)
    assert {len(name) for name in names} == {16}


@given(kinds=st.tuples(ASSETS, ASSETS), groups=st.tuples(TEXT, TEXT), urls=st.tuples(TEXT, TEXT), key=TEXT)
def test_assets_of_one_key_are_one_in_each_group(
    kinds: tuple[str, str], groups: tuple[str, str], urls: tuple[str, str], key: str
) -> None:
    names = {
        HASHER.fingerprint(kind=kind, group_id=group, url=url, key=key)  # type: ignore[arg-type]  # drawn from the asset types
        for kind, url in zip(kinds, urls, strict=True)
        for group in groups
    }
    assert len(names) == len(set(groups))
    others = {HASHER.fingerprint(kind="group", key=key), HASHER.fingerprint(kind="generation", key=key)}
    assert len(names | others) == len(names) + 2
    assert HASHER.fingerprint(kind="image", url=key) not in names


@given(url=st.text(alphabet="ab/%:", max_size=9), queries=st.tuples(TEXT, TEXT))
def test_a_renewed_signature_is_the_same_url_and_another_path_is_not(url: str, queries: tuple[str, str]) -> None:
    found = {HASHER.url(f"{url}{mark}{query}") for mark in "?#" for query in queries}
    assert found == {HASHER.url(url)}
    assert HASHER.url(f"{url}c") not in found
    assert -(2**63) <= found.pop() < 2**63


def test_another_journal_has_other_fingerprints_and_any_text_has_one() -> None:
    other = Hasher(b"another secret")
    assert HASHER.fingerprint(kind="image", url="x") != other.fingerprint(kind="image", url="x")
    assert len(HASHER.fingerprint(kind="image", url="\ud800")) == 16


@given(text=st.text(max_size=80))
def test_what_is_kept_of_an_error_is_one_printable_line_without_queries(text: str) -> None:
    kept = json.loads(error_line(f"see https://a.example/x?token=hunter2&b=1 {text}"))["message"]
    assert kept.isprintable()
    assert "hunter2" not in kept


@pytest.mark.parametrize("name", SECRET_TEXTS)
def test_nothing_that_is_kept_shows_a_secret_of_any_kind(name: str) -> None:
    text = SECRET_TEXTS[name]
    lines = [
        error_line(text),
        error_line(ApiError(text, status=400, code=text, request_id=text)),
        error_line(SubmissionInDoubt(text, evidence=text, request_id=text)),
        error_line(ProtocolError(text, body=text)),
    ]
    kept = HASHER.entry(kind="generation", group_id=None, url="", key=text, shown=text, business_id=None)
    assert sings(f"{lines} {kept!r} {kept.key} {kept.shown}") is None
