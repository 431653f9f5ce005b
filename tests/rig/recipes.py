"""The recipes as they stand in the README: ``python tests/rig/recipes.py`` writes them there."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- recipes -->\n"
END: Final = "<!-- /recipes -->\n"
RECIPES: Final = [
    ROOT / "tests" / "recipes" / f"{name}.py"
    for name in (
        *("aiohttp_service", "starlette_service", "webhook_aiohttp", "webhook_starlette"),
        *("worker", "key_rotation", "shared_budget"),
    )
]


def rendered() -> str:
    """Return the block of the README that shows every recipe whole."""
    parts = []
    for path in RECIPES:
        program = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(program)) or "").partition("\n")[0]
        # Tildes, since what stands between backticks is run as an example by itself.
        parts.append(f"<details><summary>{title}</summary>\n\n~~~python\n{program}~~~\n\n</details>\n")
    return f"{BEGIN}\n" + "\n".join(parts) + f"\n{END}"


def written(readme: str) -> str:
    """Return ``readme`` with the block as the recipes are now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + rendered() + after


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
