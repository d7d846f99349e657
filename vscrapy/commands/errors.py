"""``vscrapy errors 7``: the requests of a task that failed for good."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import NotVerified
from vscrapy.shown import shown
from vscrapy.store.failures import Entry, Failures
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.wire import Failure, What, decode_failure

#: The times, as Scrapy's log has them.
_TIME: Final = "%Y-%m-%d %H:%M:%S"


def run(argv: list[str]) -> int:
    """
    Show the requests of one task that failed for good.

    Returns:
        0; ``NotVerified``'s exit code when an entry was not signed with this cluster's secret.

    Raises:
        TaskGone: There is no such task.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy errors",
        description="Show the requests of a task that failed for good. 'vscrapy retry ID' puts them back.",
    )
    parser.add_argument("taskid", metavar="ID")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--lines", action="store_true", help="one line each, without tracebacks")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    taskid = _store.taskid(opts.taskid)
    store = _store.store(opts)
    record = Tasks(store).record(taskid)
    entries, dropped = Failures(store).list(taskid)
    _, key = _store.job(store, taskid)
    read = {entry: _read(entry, key) for entry in entries}
    failures = {entry: failure for entry, failure in read.items() if failure is not None}
    if opts.json:
        _print_json(record, failures, dropped)
    else:
        for line in _lines(record, failures, dropped, is_short=opts.lines):
            print(shown(line))  # exceptions quote what sites say
    return NotVerified.exit_code if len(failures) < len(read) else 0


def _read(entry: Entry, key: bytes) -> Failure | None:
    try:
        return decode_failure(entry.signed, key)
    except (NotVerified, ValueError) as error:
        print(f"vscrapy: number {entry.number} is not shown: {error}", file=sys.stderr)
        return None


def _print_json(record: TaskRecord, failures: dict[Entry, Failure], dropped: int) -> None:
    shown = {
        "taskid": record.taskid,
        "spider": record.spider,
        "state": record.state.value,
        "dropped": dropped,
        "errors": [_data(entry, failure) for entry, failure in failures.items()],
    }
    json.dump(shown, sys.stdout, indent=2)
    print()


def _data(entry: Entry, failure: Failure) -> dict[str, Any]:
    return {"number": entry.number, "is_retryable": entry.is_retryable, **asdict(failure)}


def _lines(record: TaskRecord, failures: dict[Entry, Failure], dropped: int, *, is_short: bool) -> Iterator[str]:
    yield f"task {record.taskid}: {record.spider}, {record.state.value}; {_counted(len(failures))} failed for good"
    if dropped:
        yield f"{_counted(dropped)} that failed before these {'is' if dropped == 1 else 'are'} not kept"
    for entry, failure in failures.items():
        when = time.strftime(_TIME, time.localtime(failure.time))
        if is_short:
            yield f"{entry.number}  {when}  {failure.worker}  {failure.method} {failure.url}  {_what(failure)}"
            continue
        yield ""
        yield f"{entry.number}  {failure.method} {failure.url}"
        yield f"   {_what(failure)}"
        times = "once" if failure.tries == 1 else f"{failure.tries} times"
        yield f"   tried {times}, last on {failure.worker} (process {failure.process}) at {when}"
        if not entry.is_retryable:
            yield "   cannot be put back: it could not be serialised"
        for line in failure.traceback.splitlines():
            yield f"   {line}"


def _counted(number: int) -> str:
    return "1 request" if number == 1 else f"{number} requests"


def _what(failure: Failure) -> str:
    name = {What.CALLBACK: failure.callback or "parse", What.ERRBACK: failure.errback}.get(failure.what, "")
    what = failure.what.value.replace(" ", f" {name} ") if name else failure.what.value
    return f"{what}: {failure.error}"
