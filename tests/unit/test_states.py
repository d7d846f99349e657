"""The moves that the scripts make, held against the table of states; on a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.integration.support import Process, request, running, submit, view
from vscrapy import keys
from vscrapy.errors import Fenced, TaskGone
from vscrapy.states import MOVES, StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import MOST_CRASHES, Result
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers
from vscrapy.wire import LogLine

#: A process of a task, and what somebody calls.
Operation = Callable[[Process], object]

OPERATIONS: dict[str, Operation] = {
    "submit": lambda process: Tasks(process.store).submit(
        process.taskid, b"job", spider="x", options=TaskOptions(log_keep=1)
    ),
    "claim": lambda process: Process(process.store, process.taskid).claim(),
    "claim again": lambda process: process.claim(),
    "join": lambda process: process.join(),
    "commit": lambda process: process.commit(Result("started"), wanted=5),
    "feed": lambda process: process.feed(*(request(f"{n}") for n in range(99))),
    "repeat": lambda process: process.repeat(),
    "left": lambda process: process.leave("left"),
    "crashed": lambda process: process.leave("crashed"),
    "crashed again and again": lambda process: _crash(process),
    "failed": lambda process: process.leave("failed"),
    "reopen": lambda process: Tasks(process.store).reopen(
        process.taskid, b"job", token="token", options=TaskOptions(log_keep=1)
    ),
    "stop": lambda process: Tasks(process.store).stop(process.taskid, reason="x", mode=StopMode.GRACEFUL),
    "stop at once": lambda process: Tasks(process.store).stop(process.taskid, reason="x", mode=StopMode.FORCED),
    "pause": lambda process: Tasks(process.store).pause(process.taskid),
    "resume": lambda process: Tasks(process.store).resume(process.taskid),
    "log": lambda process: Streams(process.store).append_log(process.taskid, [LogLine("out", "x")]),
    "claim home": lambda process: Workers(process.store).claim_home(process.taskid, "home", "w1"),
    "stored": lambda process: _stored(process),
    "sign of life": lambda process: Tasks(process.store).sign_of_life(process.taskid),
    "archive": lambda process: _archive(process),
    "worker dies": lambda process: Workers(process.store).leave_places(process.worker),
}

#: How a task comes to be in each state, with a process (which a queued task has not yet, a finished one no more).
SITUATIONS: dict[str, Callable[[Store], Process]] = {
    "queued": lambda store: Process(store, submit(store)),
    "running": lambda store: running(store, submit(store)),
    "paused": lambda store: _paused(store),
    "paused before its first process": lambda store: _paused_early(store),
    "running with feeds": lambda store: running(store, submit(store, has_feeds=True)),
    "paused with feeds": lambda store: _paused(store, has_feeds=True),
    "stopping": lambda store: _stopping(store),
    "stopping with feeds": lambda store: _stopping(store, has_feeds=True),
    "queued with a job directory": lambda store: Process(store, submit(store, job_dir="token")),
    "running with a job directory": lambda store: running(store, submit(store, job_dir="token")),
    "running with a job directory, left": lambda store: _left(store),
    "paused with a job directory": lambda store: _paused_left(store),
    "stopping with a job directory": lambda store: _stopping(store, job_dir="token"),
    "suspended": lambda store: _suspended(store),
    "suspended with feeds": lambda store: _suspended(store, has_feeds=True),
    "storing": lambda store: _storing(store),
    "storing by somebody": lambda store: _home(store),
    "finished": lambda store: _finished(store),
}


def _crash(process: Process) -> None:
    process.store.client.hset(keys.task(process.taskid), "crashes", MOST_CRASHES - 1)
    process.leave("crashed")


def _archive(process: Process) -> None:
    tasks = Tasks(process.store)
    record = tasks.record(process.taskid)
    if record.state is TaskState.FINISHED:
        tasks.archive(record)


def _stored(process: Process) -> None:
    Tasks(process.store).stored(process.taskid, process.name)
    process.leave()


def _left(store: Store) -> Process:
    process = running(store, submit(store, job_dir="token"))
    process.leave()
    return process


def _paused_left(store: Store) -> Process:
    process = _left(store)
    Tasks(store).pause(process.taskid)
    return process


def _suspended(store: Store, *, has_feeds: bool = False) -> Process:
    process = _stopping(store, has_feeds=has_feeds, job_dir="token")
    process.leave()
    return process


def _storing(store: Store) -> Process:
    process = _stopping(store, has_feeds=True)
    process.leave()
    return process


def _home(store: Store) -> Process:
    process = Process(store, _storing(store).taskid)
    assert Workers(store).claim_home(process.taskid, process.name, process.worker) == 2
    return process


def _paused(store: Store, *, has_feeds: bool = False) -> Process:
    process = running(store, submit(store, has_feeds=has_feeds))
    Tasks(store).pause(process.taskid)
    return process


def _paused_early(store: Store) -> Process:
    process = Process(store, submit(store))
    Tasks(store).pause(process.taskid)
    return process


def _stopping(store: Store, *, has_feeds: bool = False, job_dir: str = "") -> Process:
    process = running(store, submit(store, has_feeds=has_feeds, job_dir=job_dir))
    Tasks(store).stop(process.taskid, reason="x", mode=StopMode.GRACEFUL)
    return process


def _finished(store: Store) -> Process:
    process = _stopping(store)
    process.leave()
    return process


def move(store: Store, situation: str, operation: str) -> tuple[TaskState, TaskState]:
    """Bring a task into a state, let something happen, and read what it was and what has become of it."""
    process = SITUATIONS[situation](store)
    before = view(store, process.taskid).state
    assert situation.startswith(before.value)
    with contextlib.suppress(Fenced, TaskGone):  # The process is not, or not any more, in the task.
        OPERATIONS[operation](process)
    return before, view(store, process.taskid).state


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_task_stays_or_moves_as_the_table_says(store: Store, situation: str, operation: str) -> None:
    """No call makes a move that is not in the table, whatever the state."""
    before, after = move(store, situation, operation)
    assert after in {before, *MOVES[before]}


def test_every_move_of_the_table_is_made(bare_store: Store) -> None:
    """The table promises no move that nothing makes."""
    made = {move(bare_store, situation, operation) for situation in SITUATIONS for operation in OPERATIONS}
    promised = {(state, after) for state, others in MOVES.items() for after in others}
    assert {(before, after) for before, after in made if before is not after} == promised


def test_paused_task_gives_no_lease(store: Store) -> None:
    """What waits stays where it is until the task goes on."""
    process = _paused(store)
    assert process.feed(request("1"), wanted=1).leases == []


def test_paused_task_takes_no_process(store: Store) -> None:
    """It does not grow while it rests."""
    process = _paused(store)
    process.feed(*(request(f"{n}") for n in range(99)))
    assert Process(store, process.taskid).claim() == 0


def test_every_state_has_its_moves() -> None:
    """No state is forgotten in the table, and nothing follows the end."""
    assert (set(MOVES), MOVES[TaskState.FINISHED]) == (set(TaskState), frozenset())
