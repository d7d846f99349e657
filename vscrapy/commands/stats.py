"""``vscrapy stats 7``: the stats of a task, and what each worker has done for it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime
from pprint import pformat
from typing import Any

from rich.table import Table

from vscrapy import config
from vscrapy.commands import _store, _tables
from vscrapy.states import TaskState
from vscrapy.stats import decode_values, merge
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.store.work import Work, work


def run(argv: list[str]) -> int:
    """
    Show the stats of one task, while it runs and after its end.

    Raises:
        TaskGone: There is no such task.
    """
    parser = argparse.ArgumentParser(prog="vscrapy stats", description="Show the stats of a task.")
    parser.add_argument("taskid", metavar="ID")
    parser.add_argument("--json", action="store_true", help="for programs")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    taskid = _store.taskid(opts.taskid)
    store = _store.store(opts)
    tasks = Tasks(store)
    record = tasks.record(taskid)
    stats = _stats(tasks, record)
    workers = work(store, taskid)
    if opts.json:
        shown = {
            "taskid": taskid,
            "spider": record.spider,
            "state": record.state.value,
            "reason": record.reason,
            "stats": stats,
            "workers": [asdict(part) for part in workers],
        }
        json.dump(shown, sys.stdout, indent=2, default=_plain)
        print()
        return 0
    console = _tables.console()
    state = record.state.value + (f": {record.reason}" if record.reason not in ("", "finished") else "")
    console.print(f"task {taskid}: {record.spider}, {state}")
    console.print()
    console.print(_table(workers))
    console.print()
    print(pformat(stats))
    return 0


def _stats(tasks: Tasks, record: TaskRecord) -> dict[str, Any]:
    """What Scrapy would dump now, or has dumped at home."""
    kept = tasks.kept_stats(record.taskid)
    if kept:
        return decode_values(kept)
    counted, values = tasks.stats(record.taskid)
    return merge(counted, values, reason=record.reason if record.state is TaskState.FINISHED else None)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _table(workers: list[Work]) -> Table:
    table = _tables.table(
        f"workers: {len(workers)}",
        left="worker",
        right="procs done flight failed errors items",
        order="worker procs done flight failed errors items",
    )
    for part in workers:
        numbers = (part.processes, part.done, part.in_flight, part.failed, part.errors, part.items)
        table.add_row(part.worker, *map(str, numbers))
    return table
