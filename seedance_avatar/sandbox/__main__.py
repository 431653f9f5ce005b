"""``python -m seedance_avatar.sandbox``: serve the sandbox to any client, curl included."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from .faults import Faults
from .limits import RateLimits
from .server import Sandbox
from .serving import serve

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seedance_avatar.sandbox",
        description="A real local ToAPIs. Prints its URL and serves until SIGINT or SIGTERM.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8080, help="port; 0 takes a free one (default: %(default)s)")
    add("--key", action="append", metavar="KEY", help="an accepted key; may be given often (default: sk-sandbox)")
    add("--seed", type=int, default=0, help="what times, failures and faults are drawn from (default: %(default)s)")
    add("--time-scale", type=float, default=1.0, help="factor on processing times (default: %(default)s)")
    add("--fail-rate", type=float, default=0.0, help="share of sources that fail (default: %(default)s)")
    add("--latency", type=float, default=0.0, help="seconds that every answer takes (default: %(default)s)")
    add("--tier", choices=("default", "vip", "svip"), help="hold each account to this tier's limits (default: none)")
    add("--faults", type=float, default=0.0, metavar="P", help="let every kind of fault strike with probability P")
    add("--counters", action="store_true", help="keep numbers only, no URLs: for the largest runs")
    add("--allow-private", action="store_true", help="accept source URLs that are not public")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a sandbox as the arguments say; return the exit code."""
    told = _parser().parse_args(argv)
    sandbox = Sandbox(
        keys=told.key or ("sk-sandbox",),
        host=told.host,
        port=told.port,
        seed=told.seed,
        time_scale=told.time_scale,
        fail_rate=told.fail_rate,
        latency=told.latency,
        limits=RateLimits.tier(told.tier) if told.tier else None,
        faults=Faults.everything(told.faults, seed=told.seed) if told.faults else (),
        ledger="counters" if told.counters else "all",
        allow_private=told.allow_private,
    )
    try:
        asyncio.run(serve(sandbox, announce=_announce))
    except OSError as error:
        sys.stderr.write(f"cannot listen on {told.host}:{told.port}: {error.strerror}\n")
        return 1
    return 0


def _announce(url: str) -> None:
    # Flushed: who started this process may be waiting for the line at the other end of a pipe.
    print(url, flush=True)  # noqa: T201 - the one line of this command


if __name__ == "__main__":
    sys.exit(main())
