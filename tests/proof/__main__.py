"""``python -m tests.proof``: the proofs at full size. Exit code 0 when nothing was found wrong."""

from __future__ import annotations

import argparse
import asyncio
import sys

from .guarantees import PAGE, README, page, written
from .kills import Kills, prove_kills
from .soak import Soak, prove_faults, prove_soak


def main() -> int:
    """Run the proof that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    which = parser.add_subparsers(dest="proof", required=True)
    kills = which.add_parser("kills", help="kill -9 at random moments, each followed by resuming to the end")
    kills.add_argument("--count", type=int, default=200)
    kills.add_argument("--sources", type=int, default=300)
    kills.add_argument("--seed", type=int, default=1)
    soak = which.add_parser("soak", help="many sources, 5 %% of all requests go wrong, 3 outages, a kill every 20 s")
    soak.add_argument("--sources", type=int, default=100_000)
    soak.add_argument("--every", type=float, default=20.0, metavar="SECONDS")
    soak.add_argument("--seed", type=int, default=1)
    faults = which.add_parser("faults", help="one ingest, every kind of fault at 2 %%")
    faults.add_argument("--sources", type=int, default=5_000)
    faults.add_argument("--seed", type=int, default=1)
    which.add_parser("guarantees", help="write the tables of guarantees into both READMEs")
    told = parser.parse_args()
    if told.proof == "guarantees":
        PAGE.write_text(page(), encoding="utf-8")
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    found: Kills | Soak
    if told.proof == "kills":
        found = asyncio.run(prove_kills(told.count, sources=told.sources, seed=told.seed))
    elif told.proof == "soak":
        found = asyncio.run(prove_soak(told.sources, every=told.every, seed=told.seed))
    else:
        found = asyncio.run(prove_faults(told.sources, retry_after="any", seed=told.seed))
    sys.stdout.write(f"{found}\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
