"""``vscrapy clean``: remove what is kept of tasks that have ended."""

from __future__ import annotations

import argparse
from typing import Final

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import ProtocolMismatch
from vscrapy.store.tasks import Cleaned, Tasks

#: Why a task is kept, and what to do.
_KEPT: Final = {
    Cleaned.ITEMS: "has items that nobody has fetched ('vscrapy items {0} -o FILE'); 'vscrapy clean {0}' removes it",
    Cleaned.HOME: "has ended just now, and its sender may still write; 'vscrapy clean {0}' removes it",
    Cleaned.LIVE: "has not ended; 'vscrapy stop {0}' ends it",
    Cleaned.GONE: "is not there (any more)",
}


def run(argv: list[str]) -> int:
    """
    Remove finished tasks from Redis: logs, stats, errors and items.

    Without ids, all of them but those with items that nobody has fetched.

    Returns:
        1 when a task that was named is still there, or was not, or is of another version of vscrapy.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy clean", description="Remove what is kept of tasks that have ended (else it goes after a week)."
    )
    parser.add_argument("taskids", nargs="*", metavar="ID[,ID...]", help="these, whatever items they have")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    tasks = Tasks(_store.store(opts))
    named = _store.taskids(opts.taskids)
    found: dict[int, Cleaned] = {}
    for taskid in named or sorted(tasks.finished_ids(1_000_000)):
        try:
            found[taskid] = tasks.clean(taskid, is_forced=bool(named))
        except ProtocolMismatch as error:
            print(f"{error}, or wait: what has ended goes after a week")
    for taskid, what in found.items():
        if what is not Cleaned.REMOVED and (named or what is not Cleaned.GONE):
            print(f"task {taskid} {_KEPT[what].format(taskid)}")
    n_removed = sum(what is Cleaned.REMOVED for what in found.values())
    print(f"{n_removed} {'task' if n_removed == 1 else 'tasks'} removed")
    return int(bool(named) and n_removed < len(named))
