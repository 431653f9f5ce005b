"""Suggests what to do after a run, from its journal: in words and as commands."""

from __future__ import annotations

import shlex

import attrs

from seedance_avatar.cli.formatting import plural
from seedance_avatar.cli.pages import pointer

from .history import History

__all__ = ["Step", "next_steps"]


@attrs.frozen
class Step:
    """One suggestion: in words, and as a command quoted for a shell, or None."""

    says: str
    command: str | None = None


def next_steps(history: History, *, manifest: str | None) -> list[Step]:
    """Return what to do next; empty when everything is done.

    :param manifest: the manifest of the run, which a journal does not record, or None.
    """
    command = _command(history, manifest)
    steps = []
    if history.unfinished:
        steps.append(
            Step(
                f"{plural(history.unfinished, 'source is', 'sources are')} not finished. The same command continues "
                f"where the run ended, and sends nothing twice:",
                command,
            )
        )
    if history.doubted:
        steps.append(
            Step(
                f"{plural(history.doubted, 'item is', 'items are')} in doubt: sent, but the answer was lost. Leaving "
                f"them is safe{pointer('in-doubt')}. This sends them again, and may make duplicates, which cannot be "
                f"deleted:",
                f"{command} --on-in-doubt resend",
            )
        )
    refused = history.count("refused")
    if refused:
        steps.append(
            Step(
                f"{plural(refused, 'source was', 'sources were')} refused and created nothing. Once the causes "
                f"are fixed, this sends them again:",
                f"{command} --retry-refused",
            )
        )
    failed = history.count("failed")
    if failed:
        steps.append(
            Step(
                f"{plural(failed, 'source')} failed after acceptance, which is final: correct the material "
                f"according to the reason, and ingest it under another URL or key."
            )
        )
    if any(step.command for step in steps) and manifest is None:
        steps.append(Step("Replace MANIFEST by the manifest of the run, which the journal does not record."))
    return steps


def _command(history: History, manifest: str | None) -> str:
    words = ["seedance-avatar", "ingest", manifest or "MANIFEST"]
    # A group that was created with this journal is found by its name. Several groups are named in the manifest.
    names = set(history.groups.values())
    if len(names) == 1 and history.group_ids <= set(history.groups):
        words += ["--group-name", *names]
    elif len(history.group_ids) == 1 and not history.group_ids <= set(history.groups):
        words += ["--group-id", *history.group_ids]
    return shlex.join([*words, "--journal", history.path])
