"""The page of recipes, written from the programs beside it: ``python tests/rig/recipes.py``."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "tests" / "recipes" / "README.md"
RECIPES: Final = [
    ROOT / "tests" / "recipes" / f"{name}.py"
    for name in (
        *("aiohttp_service", "starlette_service", "webhook_aiohttp", "webhook_starlette"),
        *("worker", "key_rotation", "shared_budget"),
    )
]
HEAD: Final = """# Recipes

Whole programs to copy and change. Each is a file in this folder, and a test runs it as it stands
against the [sandbox](../../README.md#in-your-own-tests). With a key in `TOAPIS_API_KEY` they run against the service.

This page is written by `python tests/rig/recipes.py`; change the programs, not the page.
"""


def rendered() -> str:
    """Return the page: every recipe whole, under the first line of its docstring."""
    parts = [HEAD]
    for path in RECIPES:
        program = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(program)) or "").partition("\n")[0]
        parts.append(f"## {title}\n\n[`{path.name}`]({path.name})\n\n```python\n{program}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
