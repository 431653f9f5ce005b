"""The output of ``--dry-run``: what a manifest holds, and how long its uploads would take."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import duration, number, plural, rate
from seedance_avatar.cli.manifest.manifest import TIERS, Survey, estimate
from seedance_avatar.cli.run.reading import Reading

__all__ = ["print_survey", "survey_facts"]


def print_survey(console: Console, reading: Reading, found: Survey) -> Exit:
    """Print what was ``found`` in the manifest, and return the exit code."""
    kinds = ", ".join(f"{number(count)} {kind}" for kind, count in found.types.most_common())
    lines = [Text(f"{reading.name}: ", style="bold").append(plural(found.good + found.rejected, "row"))]
    lines.append(Text(f"  {number(found.good):>9} good" + (f" ({kinds})" if kinds else "")))
    lines.append(Text(f"  {number(found.rejected):>9} rejected", style="red" if found.rejected else ""))
    lines.append(Text(f"  {number(found.repeated):>9} repeat an earlier row" if found.repeated else ""))
    named = [group for group in found.groups if group is not None]
    if named:
        shown = ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")  # noqa: PLR2004 - the first few are enough to recognise them
        lines.append(Text(f"  {plural(len(named), 'group')} named in it: {shown}"))
    lines += [Text(f"  note: {note}", style="yellow") for note in reading.notes]
    if found.bad:
        lines += [Text(), Text("Rejected", style="bold")]
        for row in found.bad:
            about = f" [{row.key or row.source}]" if row.key or row.source else ""
            lines.append(Text(f"  line {row.line}{about}: {row.reason}"))
        more = found.rejected - len(found.bad)
        lines.append(
            Text(f"  {f'and {number(more)} more; ' if more else ''}a run writes them to {reading.rejects.path}")
        )
    if found.repeats:
        lines += [Text(), Text("Repeated (one upload, an outcome for each)", style="bold")]
        lines += [Text(f"  line {line} repeats line {first}") for line, first in found.repeats]
        more = found.repeated - len(found.repeats)
        lines += [Text(f"  and {number(more)} more")] if more else []
    if found.uploads:
        lines += [Text(), Text(f"{plural(found.uploads, 'upload')} would take about", style="bold")]
        for tier, limits in TIERS.items():
            per_minute = round((limits.submits_per_second or 0) * 60)
            pace = f"{number(per_minute)} a minute ({rate(limits.submits_per_second)})"
            lines.append(Text(f"  {duration(estimate(found, limits)):<14} with --limits {tier:<8} {pace}"))
        lines.append(Text("  --limits auto begins as default and finds the account's limit"))
    for line in lines:
        if line.plain:
            console.print(line, soft_wrap=True)
        elif line is not lines[3]:
            console.print()
    return Exit.FAILED if found.rejected else Exit.DONE


def survey_facts(reading: Reading, found: Survey) -> dict[str, Any]:
    """Return what ``print_survey`` prints as plain values for JSON."""
    return {
        "good": found.good,
        "rejected": found.rejected,
        "repeated": found.repeated,
        "uploads": found.uploads,
        "types": dict(found.types),
        "groups": [group for group in found.groups if group is not None],
        "notes": reading.notes,
        "rejects": reading.rejects.path if found.rejected else None,
        "seconds": {tier: round(estimate(found, limits)) for tier, limits in TIERS.items()},
    }
