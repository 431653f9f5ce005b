"""Numbers, durations, rates and sizes as text for people."""

from __future__ import annotations

__all__ = ["duration", "number", "plural", "rate", "size"]


def number(value: int) -> str:
    """Return ``12,345``."""
    return f"{value:,}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """Return ``1 row`` or ``12,345 rows``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return ``12 ms``, ``8.3 s``, ``45 s``, ``3 min 20 s``, ``2 h 05 min`` or ``3 d 4 h``."""
    if seconds < 0.9995:  # noqa: PLR2004 - below it milliseconds do not round up to a second
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:  # noqa: PLR2004 - one decimal as long as the number has one digit
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours = whole // 60, round(seconds / 60) // 60
    if whole < 60:  # noqa: PLR2004 - where the unit changes
        return f"{whole} s"
    if minutes < 60:  # noqa: PLR2004 - where the unit changes
        return f"{minutes} min {whole % 60:02d} s"
    if hours < 48:  # noqa: PLR2004 - where the unit changes
        return f"{hours} h {round(seconds / 60) % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def rate(per_second: float | None) -> str:
    """Return ``4.9/s``, ``120/s``, ``unlimited``; slow rates by the minute."""
    if per_second is None or per_second > 1e6:  # noqa: PLR2004 - no limit is that high
        return "unlimited"
    if 0 < per_second < 0.95:  # noqa: PLR2004 - below it minutes read better
        return f"{per_second * 60:.0f}/min"
    return f"{per_second:.1f}/s" if per_second < 99.5 else f"{per_second:,.0f}/s"  # noqa: PLR2004 - three digits


def size(count: int) -> str:
    """Return ``512 bytes``, ``34 KB`` or ``3.1 MB``."""
    if count < 1_000:  # noqa: PLR2004 - where the unit changes
        return plural(count, "byte")
    return f"{count / 1_000:.0f} KB" if count < 999_500 else f"{count / 1_000_000:.1f} MB"  # noqa: PLR2004 - where the unit changes
