"""``vscrapy pause 7``: hold tasks still."""

from __future__ import annotations

import argparse

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.states import TaskState
from vscrapy.store.tasks import Tasks


def run(argv: list[str]) -> int:
    """
    Hold tasks still, until ``vscrapy resume``.

    Raises:
        TaskGone: One of the tasks does not exist; none was paused.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy pause",
        description="Hold tasks still: what is in flight is finished, and nothing is begun until 'vscrapy resume'.",
    )
    parser.add_argument("taskids", nargs="+", metavar="ID[,ID...]")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    ids = _store.taskids(opts.taskids)
    store = _store.store(opts)
    tasks = Tasks(store)
    for record in [tasks.record(taskid) for taskid in ids]:
        is_changed, state = tasks.pause(record.taskid)
        if state is TaskState.FINISHED:
            print(f"task {record.taskid} had ended already ({tasks.record(record.taskid).reason})")
            continue
        print(f"task {record.taskid}: {state.value}")
        if is_changed:
            words = f"task {record.taskid} is paused; 'vscrapy resume {record.taskid}' lets it go on"
            _store.say_in_log(store, record.taskid, words)
    return 0
