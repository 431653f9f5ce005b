"""The guarantees: each fault, what is promised under it, and the test that shows it.

``python -m tests.proof guarantees`` writes all of them into ``tests/proof/README.md`` and the most important ones into
the README; a test compares both with this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

__all__ = ["GUARANTEES", "PAGE", "README", "Guarantee", "page", "written"]

README: Final = Path(__file__).resolve().parents[2] / "README.md"
PAGE: Final = Path(__file__).with_name("README.md")
_MARKS: Final = re.compile(r"(<!-- guarantees -->\n)(?:.*?\n)?(<!-- /guarantees -->)", re.DOTALL)
_HEAD: Final = """# Guarantees and proofs

What the library promises under each fault, and the test that shows it. Every source ends as one of five outcomes:
*active*, *failed*, *pending* (accepted, not finished), *in doubt* (sent, the answer lost) or *unsent*.

This page is written by `python -m tests.proof guarantees` from [`guarantees.py`](guarantees.py); a test compares them.
"""
_TAIL: Final = """
## Proofs at full size

The suite runs each of these in a small size (`tests/public/test_trust_proof.py`). In full size they take minutes
to hours:

```sh
python -m tests.proof kills --count 200       # kill -9 at random moments, each followed by resuming to the end
python -m tests.proof faults                  # one ingest, every kind of fault at 2 % of all requests
python -m tests.proof soak --sources 100000   # 5 % go wrong, three outages of 5 to 60 s, a kill every 20 s
```

Each compares what the sandbox received with what was reported, source by source, and exits with 1 when they differ.
"""


@attrs.frozen
class Guarantee:
    """One promise.

    :ivar fault: what happens.
    :ivar promise: what is promised then.
    :ivar test: ``file::test``; without a file it is in ``public/test_guarantees.py``.
    :ivar first: True for the few that the README shows.
    """

    fault: str
    promise: str
    test: str
    first: bool = attrs.field(default=False, kw_only=True)

    @property
    def where(self) -> tuple[str, str]:
        """The file and the name of its test."""
        file, _, name = self.test.rpartition("::")
        return file or "public/test_guarantees.py", name


def table(guarantees: Iterable[Guarantee]) -> str:
    """Return the table of ``guarantees`` in Markdown."""
    rows = [f"| {it.fault} | {it.promise} | `{it.where[1]}` |" for it in guarantees]
    return "\n".join(["| when | then | shown by |", "| --- | --- | --- |", *rows])


def page() -> str:
    """Return ``tests/proof/README.md``: all of them."""
    return f"{_HEAD}\n{table(GUARANTEES)}\n{_TAIL}"


def written(text: str) -> str:
    """Return the README's ``text`` with the first of them between its two comments.

    :raises ValueError: the comments are not in it.
    """
    first = table(it for it in GUARANTEES if it.first)
    found, count = _MARKS.subn(lambda marks: f"{marks[1]}{first}\n{marks[2]}", text)
    if count != 1:
        message = "the README has no place for the guarantees: <!-- guarantees --> and <!-- /guarantees -->"
        raise ValueError(message)
    return found


_ONCE: Final = "the upload is *in doubt*: sent once, reported, never repeated without your order"
_AGAIN: Final = "a status request is repeated, without any effect on the outcome"

GUARANTEES: Final[tuple[Guarantee, ...]] = (
    Guarantee(
        "the connection is refused",
        "nothing was sent: one request at a time is tried until it is back",
        "test_connection_refused",
        first=True,
    ),
    Guarantee(
        "it stays refused beyond `patience`",
        "every source that was taken is *unsent*, and the rest is not taken",
        "test_connection_refused_beyond_the_patience",
    ),
    Guarantee(
        "answers are lost, unreadable, pages of HTML or 5xx, three in a row or half of twenty",
        "no new upload leaves: one status request at a time (or one upload, where nothing is pending) asks until "
        "it is well",
        "ingest/test_outage.py::test_while_assets_are_pending_questions_probe_and_no_submission_leaves",
    ),
    Guarantee(
        "that lasts beyond `patience`",
        "what was accepted is *pending*, the rest *unsent*, and nothing more is taken",
        "ingest/test_outage.py::test_an_outage_beyond_the_patience_ends_the_run_unsent",
    ),
    Guarantee("the host name is not found", "as a refused connection", "test_dns_failure"),
    Guarantee("the certificate is not trusted", "*unsent* at once, and no key was shown to it", "test_tls_failure"),
    Guarantee("connecting never ends", "given up after `connect` seconds: nothing was sent", "test_connect_black_hole"),
    Guarantee(
        "the connection is reset as soon as it is made", "at most one upload of each source", "test_reset_after_accept"
    ),
    Guarantee(
        "the answer is lost after the work was done",
        f"{_ONCE}; {_AGAIN}",
        "test_answer_lost_after_applying",
        first=True,
    ),
    Guarantee("no answer comes at all", f"given up after `request` seconds; {_ONCE}", "test_silence"),
    Guarantee("the answer to an upload is cut at any byte", _ONCE, "test_reset_at_every_byte_of_an_upload_s_answer"),
    Guarantee(
        "the answer to a status request is cut at any byte", _AGAIN, "test_reset_at_every_byte_of_a_look_s_answer"
    ),
    Guarantee(
        "an answer drips in, a byte at a time", f"the whole of it has `request` seconds; {_ONCE}", "test_slow_drip"
    ),
    Guarantee("a kept connection was closed by the service", "no source is sent twice", "test_stale_keep_alive"),
    Guarantee(
        "429 with `Retry-After`, in seconds or as a date",
        "no request of its kind is sent before (a date is read against the answer's own); then the upload is repeated",
        "test_429_with_a_wait",
        first=True,
    ),
    Guarantee(
        "429 without a time, or with an unusable one",
        "repeated after a wait of the client's own",
        "test_429_without_a_usable_wait",
    ),
    Guarantee(
        "429 that asks for a day",
        "a single call ends with `RateLimited`; an ingest ends *unsent* when it is beyond its `patience`",
        "test_429_that_asks_for_a_day",
    ),
    Guarantee("500, 502, 504 with a page of HTML", f"{_ONCE}; {_AGAIN}", "test_5xx_with_a_page_of_html"),
    Guarantee("503, with or without `Retry-After`", _ONCE, "test_503"),
    Guarantee("503 `rate_limit_unavailable`", "nothing was done: the upload is repeated", "test_503_of_the_limiter"),
    Guarantee(
        "200 with `success: false`",
        "*failed* with the service's own words, made printable",
        "test_200_with_success_false",
    ),
    Guarantee("200 that is truncated, empty or no JSON", f"{_ONCE}; {_AGAIN}", "test_200_that_cannot_be_read"),
    Guarantee("an id that is missing, null or not of ordinary id characters", _ONCE, "test_an_id_that_cannot_be_used"),
    Guarantee("wrong types beside a good id", "accepted, and polled", "test_wrong_types_beside_a_good_id"),
    Guarantee("an unknown status", "not final: it is polled on", "test_an_unknown_status"),
    Guarantee(
        "an answer without end: body, headers, compressed bomb",
        f"1 MiB is read at most; {_ONCE}",
        "test_an_answer_without_end",
    ),
    Guarantee("a redirect, to the same host or another", f"never followed; {_ONCE}", "test_a_redirect"),
    Guarantee(
        "the key or the money is refused, at the start or in the middle",
        "nothing more is sent or taken; what was accepted is polled to its end",
        "test_the_account_is_refused",
        first=True,
    ),
    Guarantee(
        "the key is refused while polling",
        "what was accepted is *pending*, with its id",
        "test_the_key_is_refused_while_polling",
    ),
    Guarantee(
        "an asset never finishes",
        "*pending* at `asset_timeout`, with its id",
        "test_an_asset_that_never_finishes",
        first=True,
    ),
    Guarantee("an asset fails", "*failed*, with the service's reason", "test_an_asset_that_fails", first=True),
    Guarantee("404 for an asset just accepted", "polled on for a minute", "test_404_right_after_acceptance"),
    Guarantee("404 for longer", "*failed*, not sent again", "test_404_for_longer_than_a_minute"),
    Guarantee("the wall clock jumps", "no deadline depends on it", "test_the_wall_clock_jumps"),
    Guarantee(
        "the event loop stalls for ten minutes (a laptop sleeps)",
        "each asset is asked about once more before its deadline counts",
        "test_the_loop_stalls_for_ten_minutes",
    ),
    Guarantee(
        "the event loop stalls while answers arrive",
        "they are read before anything is given up",
        "test_the_loop_stalls_while_uploads_are_on_the_wire",
    ),
    Guarantee("proxies in the environment", "ignored, unless `trust_env=True`", "test_proxies_in_the_environment"),
    Guarantee("a fork", "`SessionStateError`: the child opens a session of its own", "test_a_fork"),
    Guarantee("another event loop", "`SessionStateError`, nothing sent", "test_another_loop"),
    Guarantee(
        "`kill -9` at any moment, then the same program again",
        "no source is sent twice, every id is recovered, at most the requests that were under way are in doubt",
        "public/test_trust_proof.py::test_killed_at_any_moment_and_resumed_nothing_is_sent_twice_and_no_id_is_lost",
        first=True,
    ),
    Guarantee(
        "every fault of this table at 2 %",
        "one outcome for each source, and what arrived agrees with it, source by source",
        "public/test_trust_proof.py::test_every_fault_at_two_percent_leaves_one_outcome_for_each_source",
    ),
    Guarantee(
        "a run that was left, cancelled or drained, then run again",
        "what was accepted is polled, what was never sent is sent",
        "ingest/test_resume.py::test_a_broken_run_goes_on_where_it_was",
    ),
    Guarantee(
        "the process died while something was being sent",
        'in doubt, and sent again only with `on_in_doubt="resend"`',
        "ingest/test_resume.py::test_what_was_on_the_wire_at_a_kill_is_in_doubt_and_never_sent_by_itself",
    ),
    Guarantee(
        "the same source twice, in one run or over many",
        "one upload, an outcome for each",
        "ingest/test_resume.py::test_the_same_source_is_one_upload_over_all_runs",
        first=True,
    ),
    Guarantee(
        "a second process on the same journal",
        "refused at once, naming the first; readers are not",
        "ingest/test_resume.py::test_a_second_process_is_refused_and_told_who_holds_it",
        first=True,
    ),
    Guarantee(
        "the disk is full",
        "nothing is sent that is not recorded first; answers under way are waited for and reported",
        "ingest/test_resume.py::test_the_disk_fills_in_the_middle",
        first=True,
    ),
    Guarantee(
        "a file that is no journal, or of another version",
        "a clear error; it is not touched",
        "ingest/test_resume.py::test_what_is_no_journal_of_ours_is_refused_and_not_touched",
    ),
    Guarantee(
        "a helper thread, a task or a callback dies",
        "the run ends with an error within a second, and every source that was taken has its outcome",
        "client/test_poller.py::test_where_a_task_of_it_dies_everything_ends_and_the_next_item_is_polled",
    ),
    Guarantee(
        "`asset_timeout` or `timeout` passes while status requests hang, are closed, refused or braked",
        "*pending*, or `WaitTimeout`, within two seconds, with what was last seen",
        "client/test_poller.py::test_a_deadline_passes_whatever_becomes_of_the_looks",
    ),
    Guarantee(
        "`timeout=` of a single submission passes, or its caller is cancelled",
        "the error or its note says which it is: nothing sent, accepted with its id, or in doubt",
        "session/test_timeouts.py::test_on_the_wire_it_is_in_doubt_and_the_answer_still_comes_home",
    ),
    Guarantee(
        "aiohttp changes a name that the fast path uses",
        "it is not used: aiohttp's own way sends the requests, and one line of the log says so",
        "client/test_internals.py::test_a_change_costs_no_request_and_one_log_line",
    ),
    Guarantee(
        "another type or URL (up to its query) under a key of its group",
        "*failed* with `InvalidSource`, which names both; nothing is sent",
        "ingest/test_identity.py::test_another_path_host_or_type_under_one_key_is_refused_and_both_are_named",
    ),
    Guarantee(
        "a journal is opened with another base URL, or with a key that it has not seen",
        "one look at an asset that it holds decides: found, remembered; not found, refused before anything is sent",
        "session/test_journals.py::test_another_service_that_does_not_know_its_assets_is_refused_before_anything_is_sent",
    ),
    Guarantee(
        "the journal is removed, moved, replaced or cut short while it is open",
        "noticed before the next upload leaves: the run ends with `JournalError`, and its ids are told",
        "journal/test_whole.py::test_a_loss_is_noticed_before_the_next_intent",
    ),
    Guarantee(
        "a second Ctrl-C, at any point of a command",
        "the process ends at once, with 130; what was sent is in the journal",
        "cli/test_interrupts.py::test_a_dry_run_ends_at_once_although_a_thread_waits_for_its_manifest",
    ),
    Guarantee(
        "a download that is no video, is cut, or is another file than the first part of it",
        "no file is written, and a finished video is never told as a failed one",
        "videos/test_download.py::test_what_is_no_video_is_no_file",
    ),
)
