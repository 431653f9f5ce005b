"""The report as one HTML page that needs no network, no script and no fonts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from seedance_avatar import __version__
from seedance_avatar.cli.formatting import duration, number, plural
from seedance_avatar.cli.run.tally import Reason
from seedance_avatar.text import safe_text

from .advice import Step
from .charts import Chart, draw_speed, draw_timeline, draw_waits
from .history import KIND_NAMES, STATES, Doubt, History

__all__ = ["report_page"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page's content security policy: even injected markup could load and run nothing."""


def report_page(history: History, *, steps: Sequence[Step], now: float) -> str:
    """Return the page.

    :param steps: what to do next.
    :param now: the moment it is made, seconds since the epoch.
    """
    title = f"Ingest report: {PurePath(history.path).name}"
    sections = list(_sections(history, steps))
    nav = "".join(f'<li><a href="#{name}">{_text(heading)}</a></li>' for name, heading, _ in sections)
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}" tabindex="-1">{_text(heading)}</h2>\n{markup}\n</section>'
        for name, heading, markup in sections
    )
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the report</a>
<header>
<h1>{_text(title)}</h1>
<p class="quiet">{_text(_runs(history))}</p>
{_counts(history)}
<nav aria-label="Sections"><ul>{nav}</ul></nav>
</header>
<main id="content" tabindex="-1">
{body}
</main>
<footer>Made {_moment(now)} by seedance-avatar {_text(__version__)} from {_text(history.path)}.</footer>
</body>
</html>
"""


def _sections(history: History, steps: Sequence[Step]) -> Iterable[tuple[str, str, str]]:
    if steps:
        yield "next", "What to do next", _next(steps)
    if history.sent:
        yield "timeline", "Submitted, accepted, active", _figure(draw_timeline(history), "timeline")
        waits = draw_waits(history)
        if waits is not None:
            yield "waits", "Time to active", _figure(waits, "waits") + _apart(history.apart)
        yield "speed", "Throughput, limit and 429s", _figure(draw_speed(history), "speed")
    if history.reasons:
        yield "reasons", "Reasons of failure", _reasons(history.reasons.top(20))
    if history.doubted:
        yield "doubt", "In doubt", _doubts(history)
    yield "counts", "All counts", _all_counts(history)


def _apart(count: int) -> str:
    text = f"{number(count)} more were accepted before a pause and became active after it; their times are left out."
    return f'<p class="quiet">{text}</p>' if count else ""


def _text(value: object, limit: int = 300) -> str:
    """Return ``value`` as markup that shows it as the text it is."""
    return escape(safe_text(value, limit))


def _moment(at: float | None) -> str:
    if at is None:
        return "never"
    moment = datetime.fromtimestamp(at, UTC)
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'


def _runs(history: History) -> str:
    runs = history.summary.runs
    if not runs:
        return "no run yet"
    began = datetime.fromtimestamp(runs[0].started_at, UTC)
    text = f"begun {began:%Y-%m-%d %H:%M:%S} UTC, {duration(history.worked.total)} of work"
    stretches = len(history.worked.spans)
    text += f" in {stretches} stretches" if stretches > 1 else ""
    return text + (f", {plural(history.requests, 'request')}" if history.requests else "")


def _counts(history: History) -> str:
    cards = []
    for name, states, meaning in STATES:
        count, style = history.count(*states), name.replace(" ", "-")
        if count or name in {"active", "failed"}:
            cards.append(f'<div class="{style}"><dt>{name}</dt><dd>{number(count)}<small>{meaning}</small></dd></div>')
    return f'<dl class="counts">{"".join(cards)}</dl>'


def _next(steps: Iterable[Step]) -> str:
    return "\n".join(f"<p>{_text(step.says)}</p>" + (_command(step.command) if step.command else "") for step in steps)


def _command(command: str) -> str:
    # A narrow page may break it between words, never inside an option, which has hyphens.
    words = " ".join(f"<span>{escape(word)}</span>" for word in safe_text(command, 4000).split(" "))
    return f'<pre tabindex="0" role="region" aria-label="Command"><code>{words}</code></pre>'


def _figure(chart: Chart, name: str) -> str:
    return f"""<figure aria-describedby="{name}-says">
<figcaption id="{name}-says"><p class="quiet">{_text(chart.says, 600)}</p></figcaption>
<div role="img" aria-label="{_text(f"Chart: {chart.says}", 600)}">
{chart.svg}
</div>
<details><summary>The same as a table</summary>
{_table(f"{name}-table", "Figures behind the chart", chart.head, chart.rows)}
</details>
</figure>"""


def _table(name: str, caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    columns = "".join(f'<th scope="col">{_text(it)}</th>' for it in head)
    body = "\n".join(
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(it)}</td>" for it in rest)}</tr>'
        for first, *rest in rows
    )
    return _scrolling(
        name, f'<caption id="{name}">{_text(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody>'
    )


def _scrolling(name: str, table: str) -> str:
    # A table that scrolls sideways on a narrow page must be reachable by keyboard.
    return f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table>{table}</table></div>'


def _reasons(reasons: Sequence[Reason]) -> str:
    most = reasons[0].count
    rows = "\n".join(
        f'<tr><td class="text">{_text(reason.text)}'
        f'<span class="bar" style="width:{100 * reason.count / most:.1f}%" aria-hidden="true"></span>'
        f"<small>{reason.outcome}: {_named(reason)}</small></td>"
        f"<td>{number(reason.count)}</td></tr>"
        for reason in reasons
    )
    caption = "Most frequent first; refused: by the service, or by this library before sending; it does not exist"
    return _scrolling(
        "reasons-table",
        f'<caption id="reasons-table">{caption}</caption><thead><tr><th scope="col">reason</th>'
        f'<th scope="col">number</th></tr></thead><tbody>{rows}</tbody>',
    )


def _named(reason: Reason) -> str:
    more = reason.count - len(reason.named)
    return _text(", ".join(reason.named), 400) + (f" and {number(more)} more" if more else "")


def _doubts(history: History) -> str:
    rows = "\n".join(map(_doubt, history.doubts))
    left = history.doubted - len(history.doubts)
    more = f"<p>{number(left)} more are in the journal.</p>" if left > 0 else ""
    return f"""<p>These were sent, but their answers were lost: each may exist at the service, which can neither list
nor delete. They are not sent again by themselves. Decide for each: do without it, or send it again and accept
a possible duplicate. The service's support may find a request by its id.</p>
{
        _scrolling(
            "doubt-table",
            f'<caption id="doubt-table">{_text(plural(history.doubted, "item"))} in doubt</caption><thead><tr>'
            '<th scope="col">what</th><th scope="col" class="text">why</th><th scope="col" class="text">sent</th></tr>'
            f"</thead><tbody>{rows}</tbody>",
        )
    }{more}"""


def _doubt(doubt: Doubt) -> str:
    where = f"{doubt.kind}{f', group {doubt.group}' if doubt.group else ''}"
    request = f"<small>request id {_text(doubt.request_id)}</small>" if doubt.request_id else ""
    return (
        f'<tr><td class="text">{_text(doubt.label)}<small>{_text(where)}</small></td>'
        f'<td class="text">{_text(doubt.reason)}{request}</td><td class="text">{_moment(doubt.sent_at)}</td></tr>'
    )


def _all_counts(history: History) -> str:
    kinds = [(kind, name) for kind, name in KIND_NAMES.items() if history.summary.count(kinds=(kind,))]
    if history.summary.count(kinds=("group",)):
        kinds.append(("group", "groups"))
    head = ["type", *(name for name, *_ in STATES), "all"]
    rows = [
        [
            name,
            *(number(history.summary.count(*states, kinds=(kind,))) for _, states, *_ in STATES),
            number(history.summary.count(kinds=(kind,))),
        ]
        for kind, name in kinds
    ]
    if history.summary.count("accepted", kinds=("group",)):
        rows[-1][1] = number(history.summary.count("accepted", kinds=("group",)))  # a group that exists is ready
        rows[-1][4] = "0"
    return _table("counts-table", "Everything in this journal, by type", head, rows)
