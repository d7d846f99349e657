"""``vscrapy stop 7``: end tasks, gracefully or by force."""

from __future__ import annotations

import argparse

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.tasks import Tasks


def run(argv: list[str]) -> int:
    """
    Give tasks a reason to end.

    Raises:
        TaskGone: One of the tasks does not exist; none was stopped.
    """
    parser = argparse.ArgumentParser(prog="vscrapy stop", description="End tasks: what is in flight is finished.")
    parser.add_argument("taskids", nargs="+", metavar="ID[,ID...]")
    parser.add_argument("--force", action="store_true", help="at once; what is in flight is lost")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    ids = _store.taskids(opts.taskids)
    tasks = Tasks(_store.store(opts))
    before = [tasks.record(taskid) for taskid in ids]
    mode = StopMode.FORCED if opts.force else StopMode.GRACEFUL
    for record in before:
        if record.state is TaskState.FINISHED:
            print(f"task {record.taskid} had ended already ({record.reason})")
            continue
        state = tasks.stop(record.taskid, reason=Reason.SHUTDOWN, mode=mode)
        kept = "; the same command goes on with it" if state is TaskState.SUSPENDED else ""
        print(f"task {record.taskid}: {state.value}{kept}")
    return 0
