"""The report in a real Chromium: what its reader meets in light and dark, at a desk and on a phone."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rig.browser import browse
from rig.histories import HOSTILE, Past

from seedance_avatar.cli.report.advice import next_steps
from seedance_avatar.cli.report.history import read_history
from seedance_avatar.cli.report.page import report_page

pytestmark = pytest.mark.slow

PROBE = """
<script>
const shown = element => element.getBoundingClientRect().width > 0;
const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = text => channels(text).map(c => c / 255)
  .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const page = getComputedStyle(document.body).backgroundColor;
const colour = element => getComputedStyle(element).color;
const strokes = [...document.querySelectorAll("svg path")].filter(shown).map(it => getComputedStyle(it).stroke);
const texts = [...document.querySelectorAll("svg text")].filter(shown);
document.documentElement.dataset.found = JSON.stringify({
  title: document.title,
  scripts: document.querySelectorAll("script").length,
  images: document.querySelectorAll("img, iframe, object, embed, link").length,
  overflow: document.documentElement.scrollWidth - innerWidth,
  pictures: [...document.querySelectorAll("svg")].filter(shown).map(it => it.getAttribute("class")),
  page,
  ink: contrast(colour(document.body), page),
  quiet: contrast(colour(document.querySelector(".quiet")), page),
  link: contrast(colour(document.querySelector("nav a")), page),
  chartText: Math.min(...texts.map(it => contrast(getComputedStyle(it).fill, page))),
  chartTextSize: Math.min(...texts.map(it => it.getBoundingClientRect().height)),
  strokes: [...new Set(strokes)].length,
  focusable: [...document.querySelectorAll("a[href], summary, [tabindex='0']")].length,
  tables: document.querySelectorAll("table caption").length === document.querySelectorAll("table").length,
  labelled: [...document.querySelectorAll("[role=img], [role=region]")]
    .every(it => it.getAttribute("aria-label") || document.getElementById(it.getAttribute("aria-labelledby"))),
  headings: [...document.querySelectorAll("h1, h2")].map(it => it.textContent),
});
</script>
"""


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> Path:
    past = Past(tmp_path / "run.db")
    await past.run(300, group=HOSTILE, fail=HOSTILE)
    past.now += 7200
    await past.run(100)
    history = await read_history(str(past.path))
    written = tmp_path / "report.html"
    written.write_text(report_page(history, steps=next_steps(history, manifest=HOSTILE), now=past.now))
    return written


def probed(page: Path, **options: Any) -> dict[str, Any]:
    """Return what a script finds in a copy of ``page`` that permits scripts."""
    copy = page.with_name("probed.html")
    markup = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy.write_text(markup.replace("</body>", PROBE + "</body>"))
    found = re.search(r'data-found="([^"]*)"', browse(copy, "--dump-dom", **options))
    assert found is not None
    facts: dict[str, Any] = json.loads(unescape(found[1]))
    return facts


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "picture"), [(1000, "wide"), (390, "narrow")])
def test_it_can_be_read(page: Path, width: int, picture: str, *, dark: bool) -> None:
    found = probed(page, width=width, dark=dark)
    assert found["title"] == "Ingest report: run.db"
    assert (found["scripts"], found["images"]) == (1, 0)  # the one is the probe
    assert found["overflow"] <= 0
    assert found["pictures"] == [picture] * 3
    assert (found["page"] == "rgb(255, 255, 255)") is not dark
    assert min(found[name] for name in ("ink", "quiet", "link", "chartText")) >= 4.5
    assert found["chartTextSize"] >= 10
    assert found["strokes"] >= 5
    assert found["focusable"] >= 15
    assert found["tables"]
    assert found["labelled"]
    assert found["headings"][:3] == ["Ingest report: run.db", "What to do next", "Submitted, accepted, active"]


def test_nothing_hostile_runs_even_where_scripts_are_permitted(page: Path) -> None:
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text()))
    dom = browse(page, "--dump-dom")
    assert "HACKED" in dom
    assert "<title>Ingest report: run.db</title>" in dom
    assert "<script" not in dom
    assert "<img" not in dom


def test_it_has_a_picture(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(page, f"--screenshot={picture}", width=900, height=1200)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000
