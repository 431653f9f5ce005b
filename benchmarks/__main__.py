"""``python -m benchmarks NAME [options]``: run one measurement, or ``all``; ``tables`` writes them into its README.

Each runs in a process of its own, and tells its options by ``--help``. ``--quick`` runs everything within a minute,
to see that it runs; what it measures then says nothing.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from .tables import write_readme

__all__ = ["main"]

MODULES: Final = {
    "overhead": ("benchmarks.overhead",),
    "limits": ("benchmarks.limits", "benchmarks.held"),
    "polling": ("benchmarks.polling",),
    "memory": ("benchmarks.memory",),
    "journal": ("benchmarks.journal",),
}
_TABLES: Final = {**MODULES, "scaling": ("benchmarks.scaling",)}


def _run(name: str, arguments: list[str]) -> int:
    for module in MODULES[name]:
        print(f"== python -m {' '.join((module, *arguments))}", flush=True)
        code = subprocess.call([sys.executable, "-m", module, *arguments])  # noqa: S603 - ourselves
        if code:
            return code
        print()
    return 0


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` name; return the exit status."""
    name, *rest = arguments or ["--help"]
    if name == "tables":
        return write_readme({name: modules for name, modules in _TABLES.items() if not rest or name in rest})
    if name != "all" and name not in MODULES:
        print(f"{__doc__}\nNAME is one of: {', '.join((*MODULES, 'all', 'tables [NAME ...]'))}")
        return 0 if name in {"-h", "--help"} else 2
    return max(_run(each, rest) for each in (MODULES if name == "all" else [name]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
