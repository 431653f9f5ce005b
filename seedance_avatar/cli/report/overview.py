"""The report as plain text, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from seedance_avatar.cli.formatting import duration, number, plural, rate
from seedance_avatar.text import safe_text

from .advice import Step
from .history import KIND_NAMES, STATES, History, quantile

__all__ = ["print_overview"]

_REASONS: Final = 10
_DOUBTS: Final = 10
_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def print_overview(console: Console, history: History, steps: Sequence[Step]) -> None:
    """Print counts, times, reasons, what is in doubt and what to do next."""
    for line in _lines(history, steps):
        console.print(line, soft_wrap=True)


def _lines(history: History, steps: Sequence[Step]) -> list[Text]:
    lines = [Text(safe_text(history.path), style="bold").append(_runs(history), style="not bold")]
    for name, states, meaning in STATES:
        count = history.count(*states)
        if count or name in {"active", "failed"}:
            lines.append(Text(f"  {name:<9}{number(count):>9}   {meaning}"))
    lines += _times(history)
    reasons = history.reasons.top(_REASONS)
    if reasons:
        lines += [Text(), Text("Reasons", style="bold")]
    for reason in reasons:
        lines.append(Text(f"  {number(reason.count)} {reason.outcome}: {reason.text}"))
        lines += [Text(f"      {label}", style="dim") for label in reason.named]
    if history.doubts:
        lines += [Text(), Text("In doubt", style="bold")]
        lines += [Text(f"  {doubt.label}: {doubt.reason}") for doubt in history.doubts[:_DOUBTS]]
        if history.doubted > _DOUBTS:
            lines.append(Text(f"  and {number(history.doubted - _DOUBTS)} more (--html lists them)", style="dim"))
    if steps:
        lines += [Text(), Text("Next", style="bold")]
    for step in steps:
        lines.append(Text(f"  {step.says}"))
        if step.command:
            lines += [Text(), Text(f"    {step.command}"), Text()]
    return lines


def _runs(history: History) -> str:
    if not history.summary.runs:
        return ": no run yet"
    began = datetime.fromtimestamp(history.summary.runs[0].started_at, UTC)
    text = f": {plural(history.count(), 'source')}, begun {began:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text}, {duration(history.worked.total)} of work"


def _times(history: History) -> list[Text]:
    lines = [Text()]
    for kind, name in KIND_NAMES.items():
        waits = history.to_active.get(kind)
        if waits:
            lines.append(Text(f"  {f'{name} to active':<26}{_quantiles(waits)}"))
    if history.to_accept:
        lines.append(Text(f"  {'submission':<26}{_quantiles(history.to_accept)}"))
    if history.accepted:
        mean = len(history.accepted) / max(history.worked.total, 0.001)
        lines.append(Text(f"  {'accepted on average':<26}{rate(mean)}"))
    if history.requests:
        throttled = sum(more for _, more in history.throttled)
        text = f", {number(throttled)} of them answered with 429 (too fast)" if throttled else ""
        lines.append(Text(f"  {'requests':<26}{number(history.requests)}{text}"))
    return lines if len(lines) > 1 else []


def _quantiles(ordered: Sequence[float]) -> str:
    return "   ".join(f"{label} {duration(quantile(ordered, share))}" for label, share in _QUANTILES)
