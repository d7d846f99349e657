"""``vscrapy valve 7 --level WARNING``: which lines of a task's log are relayed, while it runs."""

from __future__ import annotations

import argparse
from typing import Final

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.states import TaskState
from vscrapy.store.tasks import Tasks
from vscrapy.valve import Valve

#: What each word means, for the task's log.
_WORDS: Final = {
    Valve.AUTO: "automatic: all lines while somebody listens, else warnings and worse",
    Valve.OFF: "off: nothing that the crawl says is relayed",
}


def run(argv: list[str]) -> int:
    """
    Turn the valve of tasks.

    Raises:
        TaskGone: One of the tasks does not exist; no valve was turned.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy valve",
        description="Turn on or off what a task's log gets, while it runs. Without this, all lines are relayed while "
        "a sender or 'vscrapy -c' listens, else warnings and worse. Prints count as INFO, stderr as WARNING.",
    )
    parser.add_argument("taskids", nargs="+", metavar="ID[,ID...]")
    parser.add_argument(
        "--level", required=True, type=_valve, metavar="LEVEL", help=f"the least that is kept: {_names()}"
    )
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    ids = _store.taskids(opts.taskids)
    store = _store.store(opts)
    tasks = Tasks(store)
    valve: Valve = opts.level
    for record in [tasks.record(taskid) for taskid in ids]:
        is_changed, state = tasks.turn_valve(record.taskid, valve)
        if state is TaskState.FINISHED:
            print(f"task {record.taskid} had ended already ({tasks.record(record.taskid).reason})")
            continue
        print(f"task {record.taskid}: valve {valve.value}")
        if is_changed:
            words = _WORDS.get(valve, f"at {valve.value}: lines below it are not relayed")
            _store.say_in_log(store, record.taskid, f"the valve of task {record.taskid} is {words}")
    return 0


def _names() -> str:
    return ", ".join(valve.value for valve in Valve)


def _valve(word: str) -> Valve:
    for valve in Valve:
        if valve.value.lower() == word.lower():
            return valve
    raise argparse.ArgumentTypeError(f"{word!r} is not one of {_names()}")
