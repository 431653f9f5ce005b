"""The report as one HTML page that needs no network, no script and no fonts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from seedance_avatar import __version__
from seedance_avatar.cli.formatting import number, plural
from seedance_avatar.cli.run.tally import Reason, reason_of
from seedance_avatar.journal.records import Record
from seedance_avatar.text import safe_text

from .advice import Step, when
from .charts import Chart, draw_speed, draw_timeline, draw_waits
from .history import KIND_NAMES, STATES, History

__all__ = ["report_page"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page's content security policy: even injected markup could load and run nothing."""


def report_page(history: History, *, steps: Sequence[Step], now: float) -> str:
    """Return the page.

    :param steps: what to do next.
    :param now: the moment it is made, seconds since the epoch.
    """
    title = f"Ingest report: {PurePath(history.path).name}"
    requests = f", {plural(history.requests, 'request')}" if history.requests else ""
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
<p class="quiet">{_text(when(history) + requests)}</p>
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
            apart = (
                f"{number(history.apart)} more were accepted before a pause and became active after it; their times "
            )
            apart = f'<p class="quiet">{apart}are left out.</p>' if history.apart else ""
            yield "waits", "Time to active", _figure(waits, "waits") + apart
        yield "speed", "Throughput, limit and 429s", _figure(draw_speed(history), "speed")
    if history.reasons:
        yield "reasons", "Reasons of failure", _reasons(history.reasons.top(20))
    if history.doubted:
        yield "doubt", "In doubt", _doubts(history)
    yield "counts", "All counts", _all_counts(history)


def _text(value: object, limit: int = 300) -> str:
    """Return ``value`` as markup that shows it as the text it is."""
    return escape(safe_text(value, limit))


def _moment(at: float | None) -> str:
    if at is None:
        return "never"
    moment = datetime.fromtimestamp(at, UTC)
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'


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
{_table(f"{name}-table", "Figures behind the chart", chart.head, map(_figures, chart.rows))}
</details>
</figure>"""


def _table(name: str, caption: str, head: Iterable[str], rows: Iterable[str], *, style: str = "figures") -> str:
    """Return a table; ``rows`` are markup already."""
    columns = "".join(f'<th scope="col">{_text(it)}</th>' for it in head)
    body = "\n".join(rows)
    # A table that scrolls sideways on a narrow page must be reachable by keyboard.
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table class="{style}">'
        f'<caption id="{name}">{_text(caption)}</caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figures(row: Sequence[str]) -> str:
    first, *rest = map(_text, row)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{it}</td>" for it in rest)}</tr>'


def _reasons(reasons: Sequence[Reason]) -> str:
    caption = "Most frequent first; refused: by the service, or by this library before sending; it does not exist"
    rows = []
    for reason in reasons:
        more = reason.count - len(reason.named)
        named = _text(", ".join(reason.named), 400) + (f" and {number(more)} more" if more else "")
        rows.append(
            f'<tr><td class="text">{_text(reason.text)}<span class="bar" '
            f'style="width:{100 * reason.count / reasons[0].count:.1f}%" aria-hidden="true"></span>'
            f"<small>{reason.outcome}: {named}</small></td><td>{number(reason.count)}</td></tr>"
        )
    return _table("reasons-table", caption, ["reason", "number"], rows)


def _doubts(history: History) -> str:
    left = history.doubted - len(history.doubts)
    more = f"<p>{number(left)} more are in the journal.</p>" if left > 0 else ""
    caption = f"{plural(history.doubted, 'item')} in doubt"
    table = _table("doubt-table", caption, ["what", "why", "sent"], map(_doubt, history.doubts), style="text")
    return f"""<p>These were sent, but their answers were lost: each may exist at the service, which can neither list
nor delete. They are not sent again by themselves. Decide for each: do without it, or send it again and accept
a possible duplicate. The service's support may find a request by its id.</p>
{table}{more}"""


def _doubt(record: Record) -> str:
    where = f"{record.kind}{f', group {record.group_id}' if record.group_id else ''}"
    request_id = (record.facts or {}).get("request_id")
    request = f"<small>request id {_text(request_id, 100)}</small>" if request_id else ""
    return (
        f'<tr><td class="text">{_text(record.label)}<small>{_text(where)}</small></td>'
        f'<td class="text">{_text(reason_of(record.error()))}{request}</td>'
        f'<td class="text">{_moment(record.sent_at)}</td></tr>'
    )


def _all_counts(history: History) -> str:
    rows = []
    for kind, name in {**KIND_NAMES, "group": "groups"}.items():
        total = history.summary.count(kinds=(kind,))
        counts = [history.summary.count(*states, kinds=(kind,)) for _, states, _ in STATES]
        if kind == "group":
            ready = history.summary.count("accepted", kinds=("group",))  # a group that exists is ready
            counts[0] += ready
            counts[3] -= ready
        if total:
            rows.append(_figures([name, *map(number, (*counts, total))]))
    head = ["type", *(name for name, *_ in STATES), "all"]
    return _table("counts-table", "Everything in this journal, by type", head, rows)
