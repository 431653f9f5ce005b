"""Says when a run was, and what to do after it: in words and as commands."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import attrs

from seedance_avatar.cli.formatting import duration, plural
from seedance_avatar.cli.pages import pointer

from .history import History

__all__ = ["Step", "next_steps", "when"]


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
        many = plural(history.unfinished, "source is", "sources are")
        says = f"{many} not finished. The same command continues where the run ended, and sends nothing twice:"
        steps.append(Step(says, command))
    if history.doubted:
        many = plural(history.doubted, "item is", "items are")
        says = f"{many} in doubt: sent, but the answer was lost. Leaving them is safe{pointer('in-doubt')}. "
        says += "This sends them again, and may make duplicates, which cannot be deleted:"
        steps.append(Step(says, f"{command} --on-in-doubt resend"))
    if refused := history.count("refused"):
        many = plural(refused, "source was", "sources were")
        says = f"{many} refused and created nothing. Once the causes are fixed, this sends them again:"
        steps.append(Step(says, f"{command} --retry-refused"))
    if failed := history.count("failed"):
        says = f"{plural(failed, 'source')} failed after acceptance, which is final for these assets. What has a new "
        says += "URL in the manifest is sent by itself; this sends all of them again, as new assets:"
        steps.append(Step(says, f"{command} --retry-failed"))
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


def when(history: History) -> str:
    """Return when the runs began and how long they worked, in words."""
    if not history.summary.runs:
        return "no run yet"
    began = datetime.fromtimestamp(history.summary.runs[0].started_at, UTC)
    stretches = len(history.worked.spans)
    text = f"begun {began:%Y-%m-%d %H:%M:%S} UTC, {duration(history.worked.total)} of work"
    return text + (f" in {stretches} stretches" if stretches > 1 else "")
