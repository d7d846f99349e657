"""Failed requests that are put back, by their task's state, and when that is cut short; on a real server."""

from __future__ import annotations

import pytest

from tests.integration.support import Process, request, running, submit, view
from vscrapy import keys
from vscrapy.errors import TaskGone
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.failures import Failures, Retried
from vscrapy.store.frontier import NewFailure, NewRequest, Result
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks


@pytest.fixture
def taskid(store: Store) -> int:
    """Give a task that is queued."""
    return submit(store)


@pytest.fixture
def process(store: Store, taskid: int) -> Process:
    """Give a crawl process of the task, which has run ``start()``."""
    process = running(store, taskid)
    process.commit(Result("started"))
    return process


def fail(process: Process, *names: str, payload: bytes = b"", is_local: bool = False) -> None:
    """Let requests fail; *payload* is what would be put back, if not they themselves."""
    process.feed(*(request(name, slot="a:b", queue="-1s") for name in names))
    leases = process.commit(wanted=len(names)).leases
    process.commit(
        *(
            Result("done", lease.id, failures=[NewFailure("" if is_local else lease.id, b"f", payload)])
            for lease in leases
        )
    )


def end(store: Store, process: Process) -> None:
    """End the task."""
    Tasks(store).stop(process.taskid, reason="finished", mode=StopMode.GRACEFUL)
    assert process.leave() is TaskState.FINISHED


def listed(store: Store, taskid: int) -> list[int]:
    """The numbers of the list."""
    return [entry.number for entry in Failures(store).list(taskid)[0]]


def test_retry_puts_requests_into_the_queue_that_they_came_from(store: Store, taskid: int, process: Process) -> None:
    """Slot, priority and kind of queue are the old ones, and the list has them no more."""
    fail(process, "a", "b", "c")
    assert Failures(store).retry(taskid, [1, 3]) == Retried(None, [1, 3])
    assert listed(store, taskid) == [2]
    found = view(store, taskid)
    assert {queue: len(payloads) for queue, payloads in found.waiting.items()} == {("a:b", "-1s"): 2}
    assert found.number("queued") == 2
    assert len(process.lease(5)) == 2


def test_retry_puts_back_what_the_failure_says(store: Store, taskid: int, process: Process) -> None:
    """A request that was retried begins anew."""
    fail(process, "a", payload=b"fresh")
    Failures(store).retry(taskid, [1])
    assert process.lease(1) == ["fresh"]


def test_retry_again_does_nothing(store: Store, taskid: int, process: Process) -> None:
    """What is not in the list any more is in the frontier, once."""
    fail(process, "a")
    assert Failures(store).retry(taskid, [1, 9]) == Retried(None, [1])
    assert Failures(store).retry(taskid, [1, 9]) == Retried(None, [])
    assert view(store, taskid).number("queued") == 1


def test_retry_leaves_out_what_could_not_be_serialised(store: Store, taskid: int, process: Process) -> None:
    """There is nothing to put back; it stays in the list."""
    fail(process, "a", is_local=True)
    assert Failures(store).retry(taskid, [1]) == Retried(None, [])
    assert listed(store, taskid) == [1]


def test_retry_puts_requests_back_into_a_paused_task(store: Store, taskid: int, process: Process) -> None:
    """They wait there."""
    fail(process, "a")
    Tasks(store).pause(taskid)
    assert Failures(store).retry(taskid, [1]) == Retried(None, [1])
    assert process.lease(1) == []
    assert view(store, taskid).number("queued") == 1


def test_task_that_was_idle_goes_on_after_retry(store: Store, taskid: int, process: Process) -> None:
    """Its process closes, for it was told of the end; that does not end the task any more."""
    fail(process, "a")
    assert process.commit().is_idle
    Failures(store).retry(taskid, [1])
    tasks = Tasks(store)
    assert tasks.stop(taskid, reason="finished", mode=StopMode.GRACEFUL, if_idle=True) is TaskState.RUNNING
    assert process.leave() is TaskState.RUNNING
    other = running(store, taskid)
    assert other.lease(1) == ["a"]


def test_idle_task_is_stopped_by_the_process_that_was_told(store: Store, taskid: int, process: Process) -> None:
    """Where nothing was put back."""
    assert process.commit().is_idle
    state = Tasks(store).stop(taskid, reason="finished", mode=StopMode.GRACEFUL, if_idle=True)
    assert state is TaskState.STOPPING


def test_retry_waits_for_the_end_of_a_task_that_stops(store: Store, taskid: int, process: Process) -> None:
    """Its frontier is about to be freed."""
    fail(process, "a")
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert Failures(store).retry(taskid, [1]) is None
    assert listed(store, taskid) == [1]


def test_retry_of_a_task_that_has_ended_needs_a_new_one(store: Store, taskid: int, process: Process) -> None:
    """Without one nothing is noted; with one, it is noted once, whoever comes later."""
    fail(process, "a", "b", "c")
    end(store, process)
    failures = Failures(store)
    assert failures.retry(taskid, [1, 2]) is None
    assert failures.retry(taskid, [1, 2], new_taskid=8) == Retried(8, [1, 2])
    assert failures.retry(taskid, [3], new_taskid=9) == Retried(8, [1, 2])
    assert listed(store, taskid) == [1, 2, 3]
    failures.retried(taskid, 9)
    assert listed(store, taskid) == [1, 2, 3]
    failures.retried(taskid, 8)
    failures.retried(taskid, 8)
    assert listed(store, taskid) == [3]
    assert failures.retry(taskid, [3], new_taskid=9) == Retried(9, [3])


def test_retry_of_a_task_that_has_ended_notes_nothing_where_there_is_nothing(
    store: Store, taskid: int, process: Process
) -> None:
    """The new task is not made."""
    end(store, process)
    assert Failures(store).retry(taskid, [1], new_taskid=8) == Retried(None, [])


def test_retry_of_no_task_is_an_error(store: Store) -> None:
    """It has expired, or never was."""
    with pytest.raises(TaskGone):
        Failures(store).retry(7, [1])


def test_requests_of_a_failure_are_as_they_were_leased(store: Store, taskid: int, process: Process) -> None:
    """Those that cannot be put back, or are not in the list, are left out."""
    fail(process, "a")
    fail(process, "b", is_local=True)
    assert Failures(store).requests(taskid, [1, 2, 3]) == {1: NewRequest("a:b", "-1s", b"a")}


def test_task_that_is_submitted_with_requests_has_no_start(store: Store) -> None:
    """They wait from the first moment, and it ends after them."""
    tasks = Tasks(store)
    taskid = tasks.new_id()
    for _ in range(2):  # the second time, nothing is done
        tasks.submit(
            taskid,
            b"job",
            spider="books",
            options=TaskOptions(log_keep=10),
            requests=[request("a"), request("b", queue="5s")],
        )
    assert view(store, taskid).number("queued") == 2
    process = Process(store, taskid)
    process.claim()
    assert process.join().start_from is None
    leases = process.commit(wanted=5).leases
    assert [lease.payload for lease in leases] == [b"b", b"a"]
    assert process.commit(*(Result("done", lease.id) for lease in leases)).is_idle


def test_task_is_entered_again_where_it_was_forgotten(store: Store) -> None:
    """Its id stands in the registry once, with its first time."""
    tasks = Tasks(store)
    taskid = tasks.new_id()
    since = store.client.zscore(keys.TASKS, taskid)
    tasks.enter(taskid)
    assert store.client.zscore(keys.TASKS, taskid) == since
    store.client.zrem(keys.TASKS, taskid)
    tasks.enter(taskid)
    assert tasks.live_ids() == [taskid]
