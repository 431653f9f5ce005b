"""``seedance-avatar ingest``: uploads every row of a manifest and waits until it is active."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any, Final, Literal

import attrs
from cyclopts import Parameter

from seedance_avatar import AvatarError, AvatarSession, InvalidInput, Limits
from seedance_avatar.cli.arguments import FileOrDash, Flag, command_line
from seedance_avatar.cli.exits import Exit, exit_for_error
from seedance_avatar.cli.formatting import plural
from seedance_avatar.cli.manifest.formats import Format, ManifestError
from seedance_avatar.cli.manifest.manifest import TIERS, Survey
from seedance_avatar.cli.output import check_distinct
from seedance_avatar.cli.run.eventlog import EventLog
from seedance_avatar.cli.run.groups import Groups
from seedance_avatar.cli.run.ingest_run import Run, choose_view, fan_out
from seedance_avatar.cli.run.meter import Meter
from seedance_avatar.cli.run.progress import LiveView
from seedance_avatar.cli.run.reading import Reading
from seedance_avatar.cli.run.results import Rejects, Results, rejects_file
from seedance_avatar.cli.run.signals import Interrupts
from seedance_avatar.cli.run.summary import Summary, advice, plain_console, show_summary
from seedance_avatar.cli.streams import Unwritable, check_standard_input

from .dryrun import print_survey, survey_facts
from .journal_assets import check_results

__all__ = ["ingest"]

_NOTHING_SENT: Final = "interrupted before anything was sent"


async def ingest(  # noqa: PLR0913 - a command's options are its arguments
    manifest: FileOrDash,
    /,
    *,
    group_name: str | None = None,
    group_id: str | None = None,
    journal: str | None = None,
    out: FileOrDash = "-",
    rejects: str | None = None,
    format: Format | None = None,  # noqa: A002 - the option's name
    asset_type: Literal["image", "video", "audio"] = "image",
    limits: Literal["auto", "default", "vip", "svip", "unlimited"] = "auto",
    asset_timeout: float = 1800.0,
    max_pending: int = 20_000,
    on_failure: Literal["continue", "stop"] = "continue",
    on_in_doubt: Literal["hold", "resend"] = "hold",
    on_changed: Literal["refuse", "replace"] = "refuse",
    retry_refused: Flag = False,
    retry_failed: Annotated[bool | list[str], Parameter(negative="", show_default=False)] = False,
    strict: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
    base_url: str | None = None,
    allow_private_sources: Flag = False,
) -> int:
    r"""Upload every row of a manifest and wait until it is active.

    Examples:
        seedance-avatar ingest sources.csv --dry-run

        seedance-avatar ingest sources.csv --group-name brand-avatar \
            --journal run.db --out results.jsonl

        seedance-avatar ingest urls.txt --group-id pg_01J8 > results.jsonl

        produce-urls | seedance-avatar ingest - --group-name brand-avatar

    A manifest is CSV with a header, JSON Lines, Parquet, or text with one URL
    a line ('#' begins a comment). Its columns:

        source_url   a public http or https URL
        asset_type   image, video or audio; by default from the URL's ending
        name         name at the service, 64 characters at most
        description  description at the service, 300 characters at most
        key          your own stable name of the source, repeated in the results
        group        name of its group; each group is created once

    One result for each source is written as JSON Lines as soon as it is known.
    Rows that cannot be used are written to a file of rejects; the run goes on.

    The API key is read from TOAPIS_API_KEY. Progress goes to standard error:
    live on a terminal, otherwise one line every ten seconds.

    The first Ctrl-C sends nothing more, waits (10 s at most) for requests that
    were already sent, and prints the summary; the second ends at once. With
    --journal the same command continues after either, and after a crash:
    nothing is lost and nothing is sent twice.

    :param manifest: the file, or - for standard input.
    :param group_name: create a group of this name for rows that name no group.
    :param group_id: id of an existing group for rows that name no group.
    :param journal: file that records what was sent: the same command, run again, continues from it.
    :param out: file for the results; - is standard output.
    :param rejects: file for rejected rows; by default the manifest's name followed by .rejects.jsonl. A dry run writes
        none.
    :param format: format of the manifest; by default from its name or its first line.
    :param asset_type: type of rows that have none and whose URL has no known ending.
    :param limits: how fast to send: auto finds the account's limit; default, vip and svip are the documented tiers;
        unlimited is for a gateway of your own.
    :param asset_timeout: seconds after acceptance until an asset that is not finished counts as pending.
    :param max_pending: most sources in progress at one time.
    :param on_failure: stop sends nothing more after the first failure.
    :param on_in_doubt: resend sends again what an earlier run of this journal left in doubt; it may make duplicates.
    :param on_changed: replace uploads a source again whose key stood for another type or URL in an earlier run; refuse
        counts it as failed, unless that one failed or was refused.
    :param retry_refused: send again what was refused in an earlier run of this journal.
    :param retry_failed: upload again, as new assets, what failed in an earlier run of this journal: all of it, or with
        =TEXT what has this error code or this text in its reason; may be given several times.
    :param strict: send nothing if any row cannot be used.
    :param dry_run: only check the manifest and estimate the time; sends nothing and needs no key.
    :param json: write progress and events as JSON Lines to standard error.
    :param base_url: base URL of the service; by default TOAPIS_BASE_URL, else https://toapis.com.
    :param allow_private_sources: also send source URLs on private hosts, for a gateway in the same network.
    """
    if group_name is not None and group_id is not None:
        message = "--group-name creates a group and --group-id names an existing one: give only one of them"
        raise InvalidInput(message)
    rejected = rejects_file(rejects, manifest, (out, journal))
    check_distinct(
        ("the manifest", 0 if manifest == "-" else manifest),
        ("--out", 1 if out == "-" else out),
        ("--rejects", rejected.path),
        journal=journal,
    )
    reading = Reading(
        path=manifest,
        rejects=Rejects(rejected),
        form=format,
        fallback=asset_type,
        allow_private=allow_private_sources,
        strict=strict,
    )
    if manifest == "-":
        check_standard_input()
    if dry_run:
        return await _dry_run(reading, grouped=bool(group_name or group_id), as_json=json)
    if not os.environ.get("TOAPIS_API_KEY"):
        message = "no API key: export TOAPIS_API_KEY=sk-... first (or try without one: seedance-avatar demo)"
        raise InvalidInput(message)
    view, log = choose_view(as_json=json)
    terminal = view.print if isinstance(view, LiveView) and out == "-" and sys.stdout.isatty() else None
    results = Results(out, terminal=terminal, again=journal is not None and os.path.exists(journal))  # noqa: ASYNC240, PTH110 - one look before the run begins
    results.check()
    if journal is not None:
        await check_results(out, journal)
    meter = Meter()
    session = AvatarSession(
        base_url=base_url,
        limits={"auto": None, "unlimited": Limits.unlimited(), **TIERS}[limits],
        observer=fan_out(meter, log),
        allow_private_sources=allow_private_sources,
    )

    async def create_group(name: str) -> Any:  # noqa: ANN401 - an AssetGroup, as Groups knows
        group = await session.create_group(name, journal=journal, on_in_doubt=on_in_doubt)
        view.say(f"group {name}: {group.group_id}")
        return group

    reading.groups = Groups(create_group, name=group_name, group_id=group_id)
    run = Run(reading.name, view, meter, results)
    command = _Command(run, session, reading, reading.groups, journal, log)
    return await command.perform(
        asset_timeout=asset_timeout,
        max_pending=max_pending,
        on_failure=on_failure,
        on_in_doubt=on_in_doubt,
        on_changed=on_changed,
        retry_refused=retry_refused,
        retry_failed=retry_failed,
    )


async def _dry_run(reading: Reading, *, grouped: bool, as_json: bool) -> int:
    strict, reading.strict = reading.strict, False
    found = await asyncio.to_thread(reading.survey)  # a signal ends the process; there is nothing to be ended in order
    if found.groups[None] and not grouped:
        reading.notes.append(f"{plural(found.groups[None], 'row')} name no group: give --group-name or --group-id")
    if as_json:
        EventLog(sys.stdout).write("survey", **survey_facts(reading, found))
        code = Exit.FAILED if found.rejected else Exit.DONE
    else:
        code = print_survey(plain_console(sys.stdout), reading, found)
    return Exit.USAGE if strict and found.rejected else code


def _first_reason(found: Survey) -> str:
    return f"; the first, in line {found.bad[0].line}: {found.bad[0].reason}" if found.bad else ""


@attrs.define(eq=False)
class _Command:
    """One run of the command: reading, ingesting, summing up."""

    run: Run
    session: AvatarSession
    reading: Reading
    groups: Groups
    journal: str | None
    log: EventLog | None

    async def perform(self, **options: Any) -> int:  # noqa: ANN401 - the options of session.ingest
        """Run the ingest, print the summary, return the exit code."""
        run = self.run
        await self._survey()
        with run.interrupts(self._last_words) as interrupts:
            try:
                await self._ingest(options)
            except asyncio.CancelledError:
                if interrupts.exit is None:
                    raise
                if not self.groups.asked:
                    run.view.say(_NOTHING_SENT)
                    return interrupts.exit
            except AvatarError:
                if interrupts.exit is None:
                    self._stopped()
                    raise
            except Exception:
                self._stopped()
                raise
            finally:
                run.view.close()
            self._sum_up(interrupted=interrupts.caught is not None)
            if interrupts.exit is not None:
                return interrupts.exit
        if self.reading.rejects.error is not None:
            raise Unwritable(str(self.reading.rejects.error))
        if self.groups.error is not None:
            return max(exit_for_error(self.groups.error), run.tally.exit)
        return run.tally.exit

    def _stopped(self) -> None:
        """After an unexpected error: the summary shows what was done by then."""
        if self.run.tally.total:
            self.run.view.close()
            self._sum_up(interrupted=False)

    async def _survey(self) -> None:
        run, reading = self.run, self.reading
        run.rejected = lambda: reading.rejected
        if reading.is_file:
            with Interrupts(None, lambda: f"{_NOTHING_SENT}\n"):
                found = await asyncio.to_thread(reading.survey)
            run.total = found.good
            if not found.good:
                raise ManifestError(f"{reading.name} holds no row that can be used" + _first_reason(found))
            self._tell_of_manifest()
        elif reading.path == "-" and sys.stdin.isatty():
            run.view.say("reading the manifest from this terminal: one URL a line, Ctrl-D ends it")

    async def _ingest(self, options: dict[str, Any]) -> None:
        run, reading = self.run, self.reading
        if self.journal is not None:
            options["journal"] = self.journal
        else:
            run.view.say("no --journal: a run that is killed cannot be resumed")
        async with self.session as session:
            await self._first_group(session)
            # A group id for all sources is checked once, before the first of them.
            only = reading.found is not None and set(reading.found.groups) == {None}
            alone = self.groups.group_id if only else None
            try:
                await run.follow(session, reading.sources(), group=alone or self._group_of, **options)
            finally:
                reading.rejects.close(whole=run.read_to_end)

    async def _first_group(self, session: AvatarSession) -> None:
        """Create the group beforehand if there is only one: if that is refused, no source is read."""
        found = self.reading.found
        names = {self.groups.default} if found is None else {name or self.groups.default for name in found.groups}
        if len(names) == 1 and (name := names.pop()) is not None:
            await self.run.call(session, self.groups.made(name))
            self.run.title = f"{self.reading.name} → {name}"

    async def _group_of(self, source: Any) -> Any:  # noqa: ANN401 - any source, and any group that session.ingest takes
        group = self.groups(source)
        try:
            return await group
        finally:
            if self.groups.error is not None:
                self.run.halt()

    def _tell_of_manifest(self) -> None:
        reading, found = self.reading, self.reading.found
        if found is None:
            return
        text = f"{reading.name}: {plural(found.good, 'source')}"
        text += f", {plural(found.rejected, 'row')} rejected ({reading.rejects.path})" if found.rejected else ""
        text += f", {plural(found.repeated, 'row')} repeating an earlier one" if found.repeated else ""
        for line in (text, *reading.notes):
            self.run.view.say(line)

    def _advice(self, *, interrupted: bool) -> list[str]:
        return advice(
            self.run.tally,
            command=command_line(),
            journal=self.journal,
            interrupted=interrupted,
            rejects=self.reading.rejects.path,
            error=None if interrupted and self.groups.unclear else self.groups.error,
            groups=self.groups.unclear,
        )

    def _sum_up(self, *, interrupted: bool) -> None:
        run, reading = self.run, self.reading
        files = []
        if run.results is not None and run.results.file is not None and run.results.written:
            what = f"{plural(run.results.written, 'result')} (JSON Lines)"
            what += f"; {run.results.path}, of an earlier run, holds more and was kept" if run.results.file.kept else ""
            files.append((run.results.file.shown, what))
        if reading.rejects.count:
            files.append((reading.rejects.path, f"{plural(reading.rejects.count, 'rejected row')} with the reasons"))
        if self.journal is not None:
            files.append((self.journal, "the journal: keep it to resume the run, and for reports"))
        summary = Summary(
            title=run.title,
            elapsed=run.elapsed,
            tally=run.tally,
            meter=run.meter,
            files=files,
            advice=self._advice(interrupted=interrupted),
        )
        show_summary(summary, self.log)

    def _last_words(self) -> str:
        return "\n".join(["ended at once", *(f"  {line}" for line in self._advice(interrupted=True))])
