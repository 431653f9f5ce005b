"""A new reader finds things: the names of the tree alone lead each question to one file, which holds the answer."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Final

import pytest

import seedance_avatar

_ROOT: Final = Path(__file__).parents[2]
_PACKAGE: Final = _ROOT / "seedance_avatar"

_QUESTIONS: Final = [
    ("where is a 429 handled", "wire/refusals.py", "find_error"),
    ("where is it decided whether and when to try again", "client/retry.py", "retry_delay"),
    ("where is the permitted rate found", "limits/rate_finder.py", "RateFinder"),
    ("when may the next request leave", "limits/pacer.py", "Pacer"),
    ("who waits for a turn, and whose is it", "client/gate.py", "Gate"),
    ("where is the next poll chosen", "polling/schedule.py", "Schedule"),
    ("where are pending items polled", "client/poller.py", "Poller"),
    ("what happens in an outage", "client/circuit_breaker.py", "CircuitBreaker"),
    ("what writes the journal", "journal/writer.py", "Writer"),
    ("what keeps a second process off the journal", "journal/lock.py", "Lock"),
    ("how are the caller's sources read", "ingest/sources.py", "SourceReader"),
    ("which sources are taken, and which are known already", "ingest/admission.py", "Admission"),
    ("which outcome does an error become", "ingest/classify.py", "outcome_of_error"),
    ("what is the stream that ingest() returns", "ingest/stream.py", "Ingest"),
    ("which URLs are refused as private", "wire/public_urls.py", "judge_url"),
    ("what are the rules of a video model", "videos/rules.py", "check_request"),
    ("how is a webhook's signature checked", "videos/webhooks.py", "verify_webhook"),
    ("where is a finished video downloaded", "videos/download.py", "Download"),
    ("where is a single submission made safe against a cancellation", "session/submission.py", "Submission"),
    ("where are several accounts used as one", "pool/pool.py", "AccountPool"),
]


def _defined(path: Path) -> set[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kinds)}


@pytest.mark.parametrize(("question", "path", "name"), _QUESTIONS, ids=[question for question, _, _ in _QUESTIONS])
def test_the_tree_leads_to_the_answer(question: str, path: str, name: str) -> None:
    del question
    homes = [home.relative_to(_PACKAGE).as_posix() for home in _PACKAGE.rglob("*.py") if name in _defined(home)]
    # The sandbox is a service of its own, with words of its own for what it was sent.
    assert [home for home in homes if not home.startswith("sandbox/")] == [path]


def test_the_guide_for_contributors_has_a_line_for_each_room() -> None:
    text = (_ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^    ([a-z]+)/ +\S", text, re.MULTILINE))
    assert described == {home.parent.name for home in _PACKAGE.glob("*/__init__.py")} | {"guide"}


def test_no_class_shares_its_attributes_with_a_foreign_one() -> None:
    """A subclass of another package's class breaks when that takes one of its names for itself.

    Errors, enums and streams are made to be subclassed.
    """
    found = []
    for info in pkgutil.walk_packages(seedance_avatar.__path__, "seedance_avatar."):
        if info.name.endswith("__main__"):
            continue
        for name, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if cls.__module__ != info.name or issubclass(cls, BaseException | enum.Enum):
                continue
            foreign = {base.__module__.partition(".")[0] for base in cls.__mro__}
            if not foreign <= {"_io", "abc", "builtins", "collections", "io", "seedance_avatar", "typing"}:
                found.append(f"{info.name}.{name}")
    # These stand in for the network where the fast path is tried at opening: should they break, it is not used.
    assert found == ["seedance_avatar.client.fast_path._Connector", "seedance_avatar.client.fast_path._Transport"]
