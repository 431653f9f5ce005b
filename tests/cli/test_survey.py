from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from seedance_avatar import Limits
from seedance_avatar.cli.manifest.manifest import TIERS, Manifest, Survey, estimate


def read(lines: Iterable[str]) -> Survey:
    return Survey.of(Manifest("m", io.BytesIO("\n".join(lines).encode()), lambda _: None, "csv"))


def test_a_survey_counts_good_bad_and_repeated_rows_with_their_lines() -> None:
    found = read(
        [
            "source_url,key,group",
            "https://x.example.com/a.jpg,k1,hero",
            "https://x.example.com/b.mp4,,hero",
            "https://x.example.com/a.jpg?sig=2,k1,hero",  # a renewed signature is the same source
            ",k9,",
            "https://x.example.com/b.mp4,,villain",  # another group is another source
            "https://x.example.com/b.mp4,,hero",
        ]
    )
    assert (found.good, found.rejected, found.repeated, found.uploads) == (5, 1, 2, 3)
    assert found.repeats == [(4, 2), (7, 3)]
    assert [(row.line, row.reason) for row in found.bad] == [(5, "no source_url")]
    assert found.types == {"image": 2, "video": 3}
    assert found.groups == {"hero": 4, "villain": 1}


def test_a_key_is_one_source_of_its_group() -> None:
    found = read(
        [
            "source_url,key,group,asset_type",
            "https://x.example.com/a.jpg?sig=CANARY,k1,hero,image",
            "https://x.example.com/b.jpg?sig=CANARY,k1,hero,image",
            "https://x.example.com/a.jpg,k1,hero,video",
            "https://x.example.com/b.jpg,k1,villain,image",  # in another group it is another source
            "https://x.example.com/a.jpg?sig=3,k1,hero,image",
        ]
    )
    assert (found.good, found.rejected, found.repeats) == (3, 2, [(6, 2)])
    first = "its key is that of another source of its group, in line 2 (image https://x.example.com/a.jpg?…)"
    assert [(row.line, row.key, row.source, row.reason) for row in found.bad] == [
        (
            3,
            "k1",
            "https://x.example.com/b.jpg?…",
            f"{first}: image https://x.example.com/b.jpg?… needs a key of its own",
        ),
        (4, "k1", "https://x.example.com/a.jpg", f"{first}: video https://x.example.com/a.jpg needs a key of its own"),
    ]


def test_only_the_first_twenty_are_told_and_all_are_counted() -> None:
    found = read(["source_url,name", *[f"x{number},y,z" for number in range(50)], *["https://x.example.com/a"] * 50])
    assert (len(found.bad), found.rejected, len(found.repeats), found.repeated) == (20, 50, 20, 49)


@pytest.mark.parametrize(
    ("uploads", "kind", "limits", "seconds"),
    [
        (0, None, Limits.default(), 0),
        (10, "image", Limits(submits_per_second=5, submit_burst=50), 13),
        (50_050, "video", Limits(submits_per_second=5, submit_burst=50), 10_027),
        (100, "image", Limits(submits_per_second=10), 23),
    ],
)
def test_the_time_it_takes_is_the_rate_and_the_last_ones_processing(
    uploads: int, kind: str | None, limits: Limits, seconds: float
) -> None:
    found = Survey(good=uploads)
    found.types.update([kind] if kind else [])
    assert estimate(found, limits) == seconds


def test_higher_tiers_are_faster() -> None:
    found = Survey(good=50_000)
    times = [estimate(found, limits) for limits in TIERS.values()]
    assert times == sorted(times, reverse=True)
