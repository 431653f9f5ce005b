"""What is loaded when: the public face by name, and what a session can do without at its first use."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import pytest

import seedance_avatar
from benchmarks.overhead import INGESTS
from seedance_avatar import errors

_ROOT: Final = Path(__file__).parents[2]

_LATE: Final = {
    "html",
    "sqlite3",
    *(
        f"seedance_avatar.{name}"
        for name in (
            "videos.download",
            "videos.adapter",
            "journal.journal",
            "journal.file",
            "journal.records",
            "journal.store",
            "journal.writer",
            "pool.member",
            "pool.pool",
            "pool.run",
            "videos.transfer",
            "videos.rules",
            "videos.messages",
            "session.video_calls",
            "videos.webhooks",
        )
    ),
}
"""What a session that ingests URLs without a journal goes without."""


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after ``code``."""
    program = f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))"
    # Measured for coverage, an interpreter loads what the measuring needs.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    return set(json.loads(told.stdout))


def test_the_package_by_itself_loads_nothing() -> None:
    loaded = loaded_by("import seedance_avatar")
    assert {name for name in loaded if name.startswith("seedance_avatar")} == {"seedance_avatar"}
    assert loaded.isdisjoint({"aiohttp", "anyio", "asyncio", "attr", "cattrs"})


def test_an_ingest_of_urls_goes_without_what_it_does_not_use() -> None:
    loaded = loaded_by(INGESTS)
    assert "seedance_avatar.ingest.pipeline" in loaded
    assert loaded & _LATE == set()


def test_what_comes_late_are_modules_that_there_are() -> None:
    for name in _LATE:
        import_module(name)


def test_an_error_loads_no_session() -> None:
    assert "seedance_avatar.session.session" not in loaded_by("from seedance_avatar import AvatarError, InvalidInput")


def test_type_checkers_and_the_table_are_given_the_same_names() -> None:
    tree = ast.parse(Path(seedance_avatar.__file__).read_text(encoding="utf-8"))
    imported = {
        name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        for name in (import_module(f"seedance_avatar.{node.module}").__all__ if alias.name == "*" else [alias.asname])
    }
    assert imported == seedance_avatar._HOMES
    for name, home in imported.items():
        module = import_module(f"seedance_avatar.{home}")
        assert getattr(seedance_avatar, name) is getattr(module, name)
        assert name in module.__all__


def test_what_docstrings_refer_to_exists() -> None:
    named = re.compile(r":(?:func|class|mod|meth|data|attr):`~?(seedance_avatar\.[\w.]+)`")
    for path in sorted((_ROOT / "seedance_avatar").rglob("*.py")):
        for name in named.findall(path.read_text(encoding="utf-8")):
            assert _resolves(name), f"{path.relative_to(_ROOT)} refers to {name}"


def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_a_star_brings_every_name() -> None:
    names: dict[str, Any] = {}
    exec("from seedance_avatar import *", names)  # noqa: S102 - a star is allowed at module level only
    assert names.keys() - {"__builtins__"} == set(seedance_avatar._HOMES)


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seedance_avatar.AvatarSession
    assert vars(seedance_avatar)["AvatarSession"] is found
    monkeypatch.delitem(vars(seedance_avatar), "AvatarSession")
    assert seedance_avatar.AvatarSession is found
    assert vars(seedance_avatar)["AvatarSession"] is found


def test_dir_has_every_name_before_it_is_loaded() -> None:
    program = "import json, seedance_avatar; print(json.dumps(dir(seedance_avatar)))"
    told = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    shown = {name for name in json.loads(told.stdout) if not name.startswith("__")}
    assert shown == {*seedance_avatar._HOMES, *seedance_avatar._HOMES.values()}


def test_a_module_of_the_face_needs_no_import_of_its_own() -> None:
    program = "import seedance_avatar; print(seedance_avatar.events.Accepted.__name__)"
    told = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    assert told.stdout.strip() == "Accepted"


def test_a_name_that_is_none_is_told() -> None:
    assert not hasattr(seedance_avatar, "AvatarSesion")
    with pytest.raises(AttributeError, match=r"^module 'seedance_avatar' has no attribute 'AvatarSesion'$") as told:
        getattr(seedance_avatar, "AvatarSesion")  # noqa: B009 - mypy would refuse it otherwise, as it should
    assert told.value.name == "AvatarSesion"
    assert told.value.obj is seedance_avatar


def test_values_and_errors_pickle_by_their_own_modules() -> None:
    for name in seedance_avatar._HOMES:
        found = getattr(seedance_avatar, name)
        if inspect.isclass(found):
            assert found.__module__ == f"seedance_avatar.{seedance_avatar._HOMES[name]}"
            assert pickle.loads(pickle.dumps(found)) is found  # noqa: S301 - our own
    error = pickle.loads(pickle.dumps(seedance_avatar.RateLimited("too many", status=429, retry_after=2.0)))  # noqa: S301 - our own
    assert type(error) is errors.RateLimited
    assert error.retry_after == 2.0


def test_what_the_methods_of_the_face_take_is_known_at_run_time() -> None:
    for face in (seedance_avatar.AvatarSession, seedance_avatar.AccountPool, seedance_avatar.Ingest):
        for name in dir(face):
            method = inspect.getattr_static(face, name)
            if isinstance(method, FunctionType) and not name.startswith("_"):
                assert "return" in typing.get_type_hints(method), name
