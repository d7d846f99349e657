"""``vscrapy resume 7``: let paused tasks go on."""

from __future__ import annotations

import argparse

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.states import TaskState
from vscrapy.store.tasks import Tasks


def run(argv: list[str]) -> int:
    """
    Let paused tasks go on.

    Raises:
        TaskGone: One of the tasks does not exist; none was resumed.
    """
    parser = argparse.ArgumentParser(prog="vscrapy resume", description="Let paused tasks go on.")
    parser.add_argument("taskids", nargs="+", metavar="ID[,ID...]")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    ids = _store.taskids(opts.taskids)
    store = _store.store(opts)
    tasks = Tasks(store)
    for record in [tasks.record(taskid) for taskid in ids]:
        is_changed, state = tasks.resume(record.taskid)
        if state is TaskState.FINISHED:
            print(f"task {record.taskid} had ended already ({tasks.record(record.taskid).reason})")
            continue
        if state is TaskState.SUSPENDED:
            print(f"task {record.taskid} is suspended: the same command, with its JOBDIR, goes on with it")
            continue
        print(f"task {record.taskid}: {state.value}")
        if is_changed:
            _store.say_in_log(store, record.taskid, f"task {record.taskid} goes on")
    return 0
