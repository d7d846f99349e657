"""The list of requests that failed for good: what a commit puts into it, and how much it holds; on a real server."""

from __future__ import annotations

import pytest

from tests.integration.support import Process, request, running, submit, view
from vscrapy import keys
from vscrapy.errors import Fenced
from vscrapy.states import StopMode, TaskState
from vscrapy.store import frontier
from vscrapy.store.base import Store
from vscrapy.store.failures import Entry, Failures
from vscrapy.store.frontier import NewFailure, Result
from vscrapy.store.tasks import Tasks
from vscrapy.store.work import work


@pytest.fixture
def taskid(store: Store) -> int:
    """Give a task that is queued."""
    return submit(store)


def fail(process: Process, *names: str, is_local: bool = False) -> None:
    """Feed requests, lease them, and let all of them fail."""
    process.feed(*(request(name) for name in names))
    leases = process.commit(wanted=len(names)).leases
    process.commit(*(failed(lease.id, lease.payload.decode(), is_local=is_local) for lease in leases))


def failed(lease: str, name: str, *, is_local: bool = False) -> Result:
    """The result of a request that failed."""
    return Result("done", lease, failures=[NewFailure("" if is_local else lease, f"{name} failed".encode())])


def test_failure_is_noted_by_the_commit_that_ends_the_lease(store: Store, taskid: int) -> None:
    """Together with everything else, in order."""
    process = running(store, taskid, is_lifo=False)
    fail(process, "a", "b")
    assert Failures(store).list(taskid) == ([Entry(1, b"a failed", True), Entry(2, b"b failed", True)], 0)
    assert view(store, taskid).number("leased") == 0
    [part] = work(store, taskid)
    assert (part.failed, part.done) == (2, 2)


def test_failure_is_noted_once_when_a_commit_is_repeated(store: Store, taskid: int) -> None:
    """A lost reply changes nothing."""
    process = running(store, taskid)
    process.feed(request("a"))
    [lease] = process.commit(wanted=1).leases
    process.commit(failed(lease.id, "a"))
    assert process.repeat(failed(lease.id, "a")).is_replayed
    assert Failures(store).list(taskid) == ([Entry(1, b"a failed", True)], 0)


def test_failure_of_who_was_given_up_for_dead_is_not_noted(store: Store, taskid: int) -> None:
    """The request goes to another, and fails there, or not."""
    process = running(store, taskid)
    process.feed(request("a"))
    [lease] = process.commit(wanted=1).leases
    process.leave("crashed")
    with pytest.raises(Fenced):
        process.commit(failed(lease.id, "a"))
    assert Failures(store).list(taskid) == ([], 0)


def test_failure_of_a_request_that_cannot_travel_cannot_be_put_back(store: Store, taskid: int) -> None:
    """It is listed all the same."""
    fail(running(store, taskid), "a", is_local=True)
    assert Failures(store).list(taskid) == ([Entry(1, b"a failed", False)], 0)


def test_failures_beyond_the_bound_drop_the_oldest(
    store: Store, taskid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how many were dropped is known."""
    monkeypatch.setattr(frontier, "MOST_FAILURES", 3)
    process = running(store, taskid, is_lifo=False)
    fail(process, "a", "b")
    fail(process, "c", "d", "e")
    entries, dropped = Failures(store).list(taskid)
    assert ([entry.number for entry in entries], dropped) == ([3, 4, 5], 2)


def test_failures_outlive_the_task_for_a_while(store: Store, taskid: int) -> None:
    """As long as its record."""
    process = running(store, taskid)
    fail(process, "a")
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert process.leave() is TaskState.FINISHED
    assert Failures(store).list(taskid) == ([Entry(1, b"a failed", True)], 0)
    assert 0 < store.client.ttl(keys.failures(taskid)) <= keys.FINISHED_TTL_S
