from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar import Active, Asset, AssetSource, ConnectionFailed, Failed, Outcome, RateLimited
from seedance_avatar.cli.run.meter import Histogram, Meter, RateWindow
from seedance_avatar.events import Accepted, Outage, RequestFinished, RetryPlanned, Settled

SOURCE = AssetSource("https://cdn.example.com/a.jpg")
ASSET = Asset(asset_id="pa_1", status="active")


@given(st.lists(st.floats(0.001, 10_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_within_two_percent(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(0, -(-int(share * 1e6) * len(values) // 1_000_000) - 1)]
    assert histogram.percentile(share) == pytest.approx(exact, rel=0.02)


def test_percentiles_of_nothing_and_of_zero() -> None:
    histogram = Histogram()
    assert histogram.percentile(0.5) is None
    histogram.add(0.0)
    assert histogram.percentile(0.5) == pytest.approx(0.0001, rel=0.02)


def test_a_rate_is_measured_over_what_has_passed_and_forgets() -> None:
    window = RateWindow(10)
    assert window.rate(5.0) == 0
    for tenth in range(20):
        window.add(100 + tenth / 10)
    assert window.rate(102.0) == pytest.approx(10)
    assert window.rate(110.0) == pytest.approx(1.0)  # only the second second is still inside
    assert window.rate(200.0) == 0


def request(**facts: object) -> RequestFinished:
    default: dict[str, object] = {
        "at": 1.0,
        "lane": "submit",
        "method": "POST",
        "path": "/v1/x",
        "attempt": 1,
        "elapsed": 0.5,
        "status": 200,
        "error": None,
        "request_id": None,
        "about": None,
    }
    return RequestFinished(**(default | facts))  # type: ignore[arg-type]  # the table above is typed by its reader


def test_the_meter_keeps_what_a_person_wants_to_know() -> None:
    meter = Meter()
    busy = RateLimited("slow down", status=429)
    meter(request())
    meter(request(attempt=2, status=429, error=busy, at=7.0))
    meter(request(lane="query", elapsed=9.0))
    meter(RetryPlanned(at=3.0, lane="submit", attempt=2, delay=1.0, error=busy, about="k1"))
    outcomes: list[Outcome] = [Active(source=SOURCE, asset=ASSET), Failed(source=SOURCE, error=busy)]
    for outcome in outcomes:
        meter(Settled(at=20.0, ingest=1, outcome=outcome, accepted_after=0.1, active_after=12.0))
    assert (meter.requests, meter.throttled, meter.repeated, meter.throttled_at) == (3, 1, 1, 7.0)
    assert (meter.submission.count, meter.to_active.count) == (1, 1)
    assert meter.trouble == "k1: HTTP 429: slow down"


def test_an_outage_is_told_until_it_is_over() -> None:
    meter = Meter()
    meter(Outage(at=1.0, down=True, error=ConnectionFailed("connection refused")))
    assert meter.down == "the service cannot be reached: connection refused"
    meter(Outage(at=1.0, down=True, error=ConnectionFailed("the service is ill: HTTP 502"), ill=True))
    assert meter.down == "the service is ill: HTTP 502"
    meter(Outage(at=1.0, down=True, error=None))
    assert meter.down == "the service cannot be reached: no answer"
    meter(Outage(at=2.0, down=False, error=None))
    assert (meter.down, meter.outages) == ("", 1)
    meter(Outage(at=3.0, down=True, error=None))
    assert meter.outages == 2


def test_the_time_left_follows_what_was_settled_and_before_that_what_was_accepted() -> None:
    meter = Meter()
    assert meter.eta(100, 1.0) is None
    for tick in range(20):
        meter(Accepted(at=tick / 5, ingest=1, source=SOURCE, asset=ASSET))
    assert meter.eta(100, 4.0) == pytest.approx(20)
    for tick in range(10):
        meter(
            Settled(at=4 + tick, ingest=1, outcome=Active(source=SOURCE, asset=ASSET), accepted_after=0, active_after=1)
        )
    assert meter.eta(100, 14.0) == pytest.approx(100)
    assert meter.eta(0, 14.0) is None
