"""What to do after a run, told from its journal: the commands that go on."""

from __future__ import annotations

import shlex

import attrs

from seedance_avatar.cli.formatting import plural

from .history import History

__all__ = ["Step", "next_steps"]


@attrs.frozen
class Step:
    """Something to do: in words, and as a command that can be pasted into a shell, or None."""

    says: str
    command: str | None = None


def next_steps(history: History, *, manifest: str | None) -> list[Step]:
    """Return what to do next; empty when everything is done.

    :param manifest: the manifest of the run, which a journal does not know, or None.
    """
    command = _command(history, manifest)
    steps = []
    if history.unfinished:
        steps.append(
            Step(
                f"{plural(history.unfinished, 'source is', 'sources are')} not finished. The command of the run goes "
                f"on where it ended, and sends nothing twice:",
                command,
            )
        )
    if history.doubted:
        steps.append(
            Step(
                f"{plural(history.doubted, 'thing is', 'things are')} in doubt: sent, the answer lost. Holding them is "
                f"safe and needs nothing. This sends them again, and may make duplicates that nobody can delete:",
                f"{command} --on-in-doubt resend",
            )
        )
    refused = history.count("refused")
    if refused:
        steps.append(
            Step(
                f"{plural(refused, 'source was', 'sources were')} refused: nothing of them exists. Once the causes "
                f"are gone, this sends them again:",
                f"{command} --retry-refused",
            )
        )
    failed = history.count("failed")
    if failed:
        steps.append(
            Step(
                f"{plural(failed, 'source')} failed after acceptance, which is final: correct the material by its "
                f"reason, and ingest it under another URL or key."
            )
        )
    if any(step.command for step in steps) and manifest is None:
        steps.append(Step("MANIFEST stands for the manifest of the run, which a journal does not keep."))
    return steps


def _command(history: History, manifest: str | None) -> str:
    words = ["seedance-avatar", "ingest", manifest or "MANIFEST"]
    # A group that the journal created is found again by its name. With several of them the manifest names them.
    names = set(history.groups.values())
    if len(names) == 1 and history.places <= set(history.groups):
        words += ["--group-name", *names]
    elif len(history.places) == 1 and not history.places <= set(history.groups):
        words += ["--group-id", *history.places]
    return shlex.join([*words, "--journal", history.path])
