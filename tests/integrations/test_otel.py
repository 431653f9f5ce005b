"""OpenTelemetry, read back through the SDK's own in-memory exporters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rig.world import sources, world

from seedance_avatar.integrations.otel import OpenTelemetryObserver


@pytest.mark.asyncio
async def test_spans_of_assets_link_to_their_requests_and_metrics_count() -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    observer = OpenTelemetryObserver(tracer_provider=tracers, meter_provider=meters)
    async with world({"observer": observer}) as w:
        bad = sources(6)[2]
        w.sandbox.fail(bad.source_url, reason="blurred")
        w.sandbox.faults.add("rate_limited", method="POST", path="assets", times=1, retry_after="none")
        async with w.session.ingest(sources(6), group=w.group) as stream:
            outcomes = [outcome async for outcome in stream.outcomes()]
        requests = w.session.stats().requests
    finished = spans.get_finished_spans()
    assets = [span for span in finished if span.name == "avatar.asset"]
    calls = {span.context.span_id: span for span in finished if span.name != "avatar.asset" and span.context}
    assert len(assets) == len(outcomes) == 6
    assert len(calls) == requests
    for span in assets:
        linked = [calls[link.context.span_id] for link in span.links]
        methods = [call.attributes["http.request.method"] for call in linked if call.attributes]
        assert "POST" in methods
        assert "GET" in methods
    assert sum(not span.status.is_ok for span in assets) == 1
    assert any((span.attributes or {}).get("http.request.resend_count") == 1 for span in calls.values())
    names = {span.name for span in calls.values()}
    assert all("pa_" not in name for name in names)
    text = " ".join(span.to_json() for span in finished)
    assert "canary" not in text
    assert "sk-sandbox" not in text

    data = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]  # something was measured
    found: dict[str, Any] = {
        metric["name"]: metric["data"]["data_points"]
        for resource in data["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }
    assert sum(point["value"] for point in found["avatar.outcomes"]) == 6
    assert sum(point["count"] for point in found["http.client.request.duration"]) == requests
    assert sum(point["count"] for point in found["avatar.asset.activation.duration"]) == 6
    assert sum(point["value"] for point in found["avatar.retries"]) == 1
    meters.shutdown()
    tracers.shutdown()
