"""Draws the charts of a report with matplotlib, as static SVG; imported only for a page.

Colours are written as variables of the page's style sheet, so that one drawing serves light and dark. Each chart is
drawn twice, for a wide page and for a phone, since text that is shrunk with its picture cannot be read.
"""

from __future__ import annotations

import io
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from statistics import fmean
from typing import Any, Final, TypeAlias

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seedance_avatar.cli.formatting import duration, number, rate

from .history import KIND_NAMES, QUANTILES, History, quantile

__all__ = ["Chart", "draw_speed", "draw_timeline", "draw_waits"]

_VARIABLES: Final = ("ink", "muted", "grid", "sent", "accepted", "active", "bad", "limit")
_INK, _MUTED, _GRID, _SENT, _ACCEPTED, _ACTIVE, _BAD, _LIMIT = (f"#01000{place}" for place in range(8))
"""Placeholder colours: the style sheet's variable at that place replaces each in the finished drawing."""

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "seedance-avatar",  # the same journal gives the same file
    "font.size": 11,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
}
_Dashes: TypeAlias = str | tuple[float, tuple[float, ...]]
_STEPS: Final = (0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_BINS: Final = 90
_POINTS: Final = 160
_CHANGES: Final = 400
_ROWS: Final = 24
"""Rows of the table behind a timeline."""
_UNLIMITED: Final = 1e6
_TABLE_SHARES: Final = (("fastest", 0.0), *QUANTILES, ("slowest", 1.0))


@attrs.frozen(kw_only=True)
class Chart:
    """A chart: the drawing, a sentence about it, and its table.

    :ivar svg: the drawing for wide and for narrow pages; markup.
    :ivar says: what it shows, in one or two sentences.
    :ivar head: the columns of the table behind it.
    :ivar rows: its rows.
    """

    svg: str
    says: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def draw_timeline(history: History) -> Chart:
    """Draw how many were submitted, accepted and active by when."""
    total = max(history.worked.total, 1.0)
    series: list[tuple[str, Sequence[float], str, _Dashes]] = [
        ("submitted", history.sent, _SENT, (0, (1, 1.4))),
        ("accepted", history.accepted, _ACCEPTED, (0, (5, 2))),
        ("active", history.active, _ACTIVE, "solid"),
    ]
    if history.failed:
        series.append(("failed", history.failed, _BAD, (0, (4, 1.5, 1, 1.5))))
    grid = [total * step / _POINTS for step in range(_POINTS + 1)]

    def draw(figure: Figure, *, wide: bool) -> None:
        axes = figure.subplots()
        for name, moments, colour, dashes in series:
            counts = [bisect_right(moments, moment + 1e-9) for moment in grid]
            axes.plot(grid, counts, color=colour, linestyle=dashes, linewidth=2, label=f"{name} {number(len(moments))}")
        _dress(axes, history, wide=wide)
        axes.set_ylim(bottom=0)

    says = ", ".join(f"{number(len(moments))} {name}" for name, moments, *_ in series)
    says += f" in {duration(history.worked.total)} of work"
    if history.worked.resumed:
        says += f"; pauses are left out and marked ({len(history.worked.resumed)})"
    rows = [
        [_clock(moment), *(number(bisect_right(moments, moment + 1e-9)) for _, moments, *_ in series)]
        for moment in (total * step / _ROWS for step in range(1, _ROWS + 1))
    ]
    return Chart(
        svg=_drawn("timeline", draw, 270), says=f"{says}.", head=["time", *(it[0] for it in series)], rows=rows
    )


def draw_waits(history: History) -> Chart | None:
    """Draw the time from acceptance to active, for each kind; None when nothing became active."""
    kinds = [(KIND_NAMES[kind], history.to_active[kind]) for kind in KIND_NAMES if history.to_active.get(kind)]
    if not kinds:
        return None
    longest = max(quantile(waits, 0.99) for _, waits in kinds) * 1.25 or 1.0
    beyond = sum(len(waits) - bisect_right(waits, longest) for _, waits in kinds)

    def draw(figure: Figure, *, wide: bool) -> None:
        several = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)
        for axes, (name, waits) in zip(several.flat, kinds, strict=True):
            within = [min(wait, longest) for wait in waits]
            axes.hist(within, bins=60, range=(0, longest), rwidth=0.9, color=_ACTIVE)
            marks = [(label, quantile(waits, share)) for label, share in QUANTILES]
            for (_, at), dashes in zip(marks, ("solid", (0, (5, 2)), (0, (1, 1.5))), strict=True):
                axes.axvline(at, color=_INK, linestyle=dashes, linewidth=1)
            text = " · ".join(f"{label} {duration(at)}" for label, at in marks)
            title = f"{name}, {number(len(waits))}: {text}" if wide else f"{name}: {text}"
            axes.set_title(title, loc="left", fontsize=11 if wide else 10)
            axes.grid(axis="y", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.set_xlim(0, longest)
        several.flat[-1].xaxis.set_major_locator(MaxNLocator(6 if wide else 4, steps=[1, 2, 5, 10]))
        several.flat[-1].xaxis.set_major_formatter("{x:g} s")

    says = "; ".join(f"half of all {name} took {duration(quantile(waits, 0.5))} or less" for name, waits in kinds)
    says += f"; {number(beyond)} took longer than {duration(longest)} and are in the last bar" if beyond else ""
    rows = [
        [name, number(len(waits)), *(duration(quantile(waits, share)) for _, share in _TABLE_SHARES)]
        for name, waits in kinds
    ]
    return Chart(
        svg=_drawn("waits", draw, 60 + 130 * len(kinds)),
        says=f"{says[0].upper()}{says[1:]}.",
        head=["type", "number", *(label for label, _ in _TABLE_SHARES)],
        rows=rows,
    )


def draw_speed(history: History) -> Chart:
    """Draw accepted and active a second, the limit, and the 429s."""
    total = max(history.worked.total, 1.0)
    width = next((step for step in _STEPS if total / step <= _BINS), total / _BINS)
    count = max(1, math.ceil(total / width))
    edges = [width * step for step in range(count + 1)]

    def per_second(moments: Sequence[float]) -> list[float]:
        return [(bisect_left(moments, edge + width) - bisect_left(moments, edge)) / width for edge in edges[:-1]]

    accepted, active = per_second(history.accepted), per_second(history.active)
    refused = [0] * count
    for moment, more in history.throttled:
        refused[min(count - 1, int(moment / width))] += more
    limits = [(moment, value) for moment, value in history.limits if value < _UNLIMITED]
    top = max(*accepted, *active, 1.0) * 1.15
    highest = min(max((value for _, value in limits), default=0.0) * 1.1, 2 * top)

    def draw(figure: Figure, *, wide: bool) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.stairs(accepted, edges, fill=True, color=_ACCEPTED, alpha=0.35, label="accepted a second")
        above.stairs(active, edges, color=_ACTIVE, linewidth=1.6, label="active a second")
        if limits:
            changes = [next(same) for _, same in groupby(limits, key=itemgetter(1))]
            moments, values = zip(*changes[:: math.ceil(len(changes) / _CHANGES)], limits[-1], strict=True)
            above.step(moments, values, where="post", color=_LIMIT, linestyle=(0, (5, 2)), linewidth=1.6, label="limit")
        above.set_ylim(0, max(top, highest))
        below.bar(edges[:-1], refused, width=width * 0.9, align="edge", color=_BAD)
        below.set_ylim(0, max(*refused, 1) * 1.15)
        below.set_title(f"answered with 429: {number(sum(refused))}", loc="left")
        _dress(above, history, wide=wide)
        _dress(below, history, wide=wide, ticks=2)

    mean = len(history.accepted) / total
    says = (
        f"{rate(mean)} accepted on average, {rate(max(accepted))} at most; {number(sum(refused))} times 429 (too fast)"
    )
    if limits:
        says += f"; the limit was {rate(limits[-1][1])} in the end"
    every = max(1, math.ceil(count / _ROWS))
    rows = [
        [
            _clock(edges[at]),
            f"{fmean(accepted[at : at + every]):.1f}",
            f"{fmean(active[at : at + every]):.1f}",
            _limit_at(limits, edges[at] + every * width),
            number(sum(refused[at : at + every])),
        ]
        for at in range(0, count, every)
    ]
    head = ["from", "accepted a second", "active a second", "limit a second", "429s"]
    return Chart(svg=_drawn("speed", draw, 330), says=f"{says}.", head=head, rows=rows)


def _limit_at(limits: Sequence[tuple[float, float]], moment: float) -> str:
    found = bisect_right(limits, (moment, math.inf))
    return f"{limits[found - 1][1]:.1f}" if found else "not noted"


def _dress(axes: Axes, history: History, *, wide: bool, ticks: int = 5) -> None:
    """Give ``axes`` the time of the work below, counts at the side, the pauses, and a legend of what has a label."""
    total = max(history.worked.total, 1.0)
    for moment in history.worked.resumed[:50]:
        axes.axvline(moment, color=_MUTED, linestyle=(0, (1, 2)), linewidth=1)
    axes.set_xlim(0, total)
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.yaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    most = 7 if wide else 4
    step = next((step for step in _STEPS if total / step <= most), total / most)
    axes.set_xticks([step * tick for tick in range(int(total / step) + 1)])
    axes.xaxis.set_major_formatter(lambda value, _: _clock(value))
    if axes.get_legend_handles_labels()[1]:
        spacing = {"handlelength": 2.2, "columnspacing": 1.4, "borderaxespad": 0.1}
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4 if wide else 2, **spacing)


def _clock(seconds: float) -> str:
    """Return ``0:05``, ``12:30`` or ``3:00:00``; tenths where they count."""
    tenths = round(seconds * 10)
    if tenths % 10 and tenths < 600:  # noqa: PLR2004 - under a minute
        return f"0:{tenths / 10:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"  # noqa: PLR2004 - minutes


def _drawn(name: str, draw: Callable[..., None], height: int) -> str:
    """Return what ``draw`` draws, once for each width, as parts of a page: ids of their own, colours by variables."""
    pictures = []
    for style, width in (("wide", 760), ("narrow", 360)):
        with mpl.rc_context():
            mpl.rcdefaults()  # a user's own style file does not apply
            mpl.rcParams.update(_STYLE)
            figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
            FigureCanvasSVG(figure)
            draw(figure, wide=style == "wide")
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg = out.getvalue()
        body = svg[svg.index("<defs>", svg.index("</metadata>") if "</metadata>" in svg else 0) : svg.rindex("</svg>")]
        body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-{style}-", body)
        body = re.sub(r"#01000(\d)", lambda found: f"var(--{_VARIABLES[int(found[1])]})", body)
        body = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\g<1> var(--sans)", body)
        pictures.append(f'<svg class="{style}" viewBox="0 0 {width} {height}" aria-hidden="true">{body}</svg>')
    return "\n".join(pictures)
