"""``vscrapy retry 7``: put requests that failed for good back."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import VscrapyError
from vscrapy.sender.again import Again
from vscrapy.store.failures import Failures, Retried
from vscrapy.store.tasks import Tasks

#: A task that is about to end is waited for so long, and looked at so often (seconds).
WAIT_S: Final = 15.0
LOOK_S: Final = 0.1


def run(argv: list[str]) -> int:
    """
    Put the failed requests of one task back; as a new, detached task when theirs has ended.

    Returns:
        0; 1 when one of those that were named cannot be put back.

    Raises:
        TaskGone: There is no such task, or its project has expired.
        NotVerified: Something was not signed with this cluster's secret; nothing was put back.
        VscrapyError: The task is about to end, and takes its time.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy retry",
        description="Put requests that failed for good back into their task; 'vscrapy errors ID' lists them.",
    )
    parser.add_argument("taskid", metavar="ID")
    parser.add_argument("--only", metavar="N[,N...]", help="those with these numbers (default: all)")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    taskid = _store.taskid(opts.taskid)
    hint = f"'vscrapy errors {taskid}' shows the numbers"
    only = None if opts.only is None else _store.numbers([opts.only], "the number of a failed request", hint)
    store = _store.store(opts)
    Tasks(store).record(taskid)
    entries, _ = Failures(store).list(taskid)
    can_be_put_back = {entry.number: entry.is_retryable for entry in entries}
    wanted = [number for number in (can_be_put_back if only is None else only) if can_be_put_back.get(number)]
    again = Again(store, taskid)
    while wanted:
        found = _insist(again, taskid, wanted)
        if not found.numbers:
            break  # somebody else was faster
        words = _words(taskid, found)
        print(words)
        _store.say_in_log(store, taskid, words)
        # What is left, when this was what an earlier call had begun.
        wanted = [number for number in wanted if number not in found.numbers]
    refused = [number for number in only or () if not can_be_put_back.get(number)]
    for number in refused:
        why = "cannot be put back: it could not be serialised" if number in can_be_put_back else "is not in the list"
        print(f"vscrapy: number {number} {why}; {hint}", file=sys.stderr)
    if only is None:
        _tell_rest(taskid, can_be_put_back)
    return 1 if refused else 0


def _insist(again: Again, taskid: int, numbers: list[int]) -> Retried:
    """Put them back, as soon as the task is not about to end."""
    deadline_s = time.monotonic() + WAIT_S
    while (found := again.run(numbers)) is None:
        if time.monotonic() > deadline_s:
            raise VscrapyError(f"task {taskid} is about to end; try again when it has")
        time.sleep(LOOK_S)
    return found


def _words(taskid: int, found: Retried) -> str:
    number = len(found.numbers)
    requests = "1 failed request" if number == 1 else f"{number} failed requests"
    if found.taskid is None:
        return f"task {taskid}: {requests} put back"
    verb = "runs" if number == 1 else "run"
    return f"task {taskid} has ended; its {requests} {verb} as task {found.taskid}"


def _tell_rest(taskid: int, can_be_put_back: dict[int, bool]) -> None:
    n_rest = sum(not can for can in can_be_put_back.values())
    if not can_be_put_back:
        print(f"task {taskid} has no failed requests")
    elif n_rest:
        print(f"not put back: {n_rest} of its failed requests, which could not be serialised")
