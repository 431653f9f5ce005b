"""An observer for OpenTelemetry: a span for each request and each asset, and metrics.

.. code-block:: python

    session = AvatarSession(observer=OpenTelemetryObserver())      # pip install 'seedance-avatar[otel]'

No attribute holds a key or a URL's query: sources appear by their label, requests by a template of their path. Request
spans and ``http.client.request.duration`` follow the semantic conventions for HTTP (stable since 1.23); names about
assets have the prefix ``avatar.``.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from seedance_avatar.events import Accepted, Event, LimitChanged, RequestFinished, RetryPlanned, Settled
from seedance_avatar.outcomes import Active

__all__ = ["OpenTelemetryObserver"]

_Facts: TypeAlias = dict[str, str | int]

_NAME: Final = "seedance_avatar"
_KEPT: Final = 20_000
"""Sources and assets whose request spans are kept for links; the oldest are dropped first."""
_LINKS: Final = 128
_ID: Final = re.compile(r"(/assets/|/generations/)[^/]+$")
_SECONDS: Final = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
_ACTIVATION: Final = [1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 600]


class OpenTelemetryObserver:
    """Turns events into spans and metrics.

    :param tracer_provider: by default the global one.
    :param meter_provider: by default the global one.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._activation = meter.create_histogram(
            "avatar.asset.activation.duration",
            unit="s",
            description="Time from acceptance to the answer with the final status.",
            explicit_bucket_boundaries_advisory=_ACTIVATION,
        )
        self._outcomes = meter.create_counter("avatar.outcomes", unit="{source}", description="Sources by outcome.")
        self._retries = meter.create_counter("avatar.retries", unit="{request}", description="Repeats of requests.")
        self._limit = meter.create_gauge("avatar.limit", unit="{request}/s", description="The rate in use, by lane.")
        self._contexts: OrderedDict[str, list[SpanContext]] = OrderedDict()

    def __call__(self, event: Event, /) -> None:
        """Record ``event``."""
        match event:
            case RequestFinished():
                self._request(event)
            case Accepted():
                self._accepted(event)
            case Settled():
                self._settled(event)
            case RetryPlanned():
                self._retries.add(1, {"avatar.lane": event.lane, "error.type": type(event.error).__name__})
            case LimitChanged():
                if event.rate is not None:
                    self._limit.set(event.rate, {"avatar.lane": event.lane})
            case _:
                pass

    def _request(self, event: RequestFinished) -> None:
        template = _ID.sub(r"\1{id}", event.path)
        facts: _Facts = {"http.request.method": event.method, "url.template": template}
        if event.status is not None:
            facts["http.response.status_code"] = event.status
        if event.error is not None:
            facts["error.type"] = type(event.error).__name__
        self._requests.record(event.elapsed, facts)
        span = self._span(f"{event.method} {template}", SpanKind.CLIENT, event.elapsed, facts)
        if event.attempt > 1:
            span.set_attribute("http.request.resend_count", event.attempt - 1)
        if event.request_id is not None:
            span.set_attribute("avatar.request_id", event.request_id)
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR, str(event.error)))
        span.end()
        if event.about is not None:
            self._remember(event.about, [span.get_span_context()])

    def _remember(self, about: str, contexts: list[SpanContext]) -> None:
        known = self._contexts.setdefault(about, [])
        known.extend(contexts[: _LINKS - len(known)])
        if len(self._contexts) > _KEPT:
            self._contexts.popitem(last=False)

    def _accepted(self, event: Accepted) -> None:
        # The submission was labelled by its source, status requests are labelled by the id: join them.
        self._remember(_id_of(event.asset), self._contexts.pop(event.source.label, []))

    def _settled(self, event: Settled) -> None:
        outcome = event.outcome
        item = getattr(outcome, "asset", None)
        facts: _Facts = {"avatar.outcome": type(outcome).__name__.lower()}
        kind = getattr(outcome.source, "asset_type", None)
        if isinstance(kind, str):
            facts["avatar.asset.type"] = kind
        if not isinstance(outcome, Active):
            facts["error.type"] = type(outcome.error).__name__
        self._outcomes.add(1, facts)
        if event.active_after is not None:
            self._activation.record(event.active_after, facts)
        label = getattr(outcome.source, "label", type(outcome.source).__name__)
        contexts = self._contexts.pop(label, []) + ([] if item is None else self._contexts.pop(_id_of(item), []))
        lasted = (event.accepted_after or 0.0) + (event.active_after or 0.0)
        span = self._span("avatar.asset", SpanKind.INTERNAL, lasted, facts, contexts)
        span.set_attribute("avatar.source", label)
        if item is not None:
            span.set_attribute("avatar.asset.id", _id_of(item))
        if not isinstance(outcome, Active):
            span.set_status(Status(StatusCode.ERROR, str(outcome.error)))
        span.end()

    def _span(
        self, name: str, kind: SpanKind, lasted: float, facts: _Facts, contexts: Sequence[SpanContext] = ()
    ) -> Span:
        start = time.time_ns() - int(lasted * 1e9)
        links = [Link(context) for context in contexts]
        return self._tracer.start_span(name, kind=kind, start_time=start, attributes=facts, links=links)


def _id_of(item: Any) -> str:  # noqa: ANN401 - an Asset or a VideoTask
    return str(getattr(item, "asset_id", None) or item.task_id)
