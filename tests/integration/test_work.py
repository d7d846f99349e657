"""What each worker has done for a task; against a real server."""

from __future__ import annotations

import pytest

from tests.integration.support import Process, request, running, submit
from vscrapy import keys
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import Result
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.tasks import Tasks
from vscrapy.store.work import Work, work


@pytest.fixture
def taskid(store: Store) -> int:
    """Give a task that is queued."""
    return submit(store)


def on_worker(store: Store, taskid: int, worker: str) -> Process:
    """A crawl process of a worker, that has joined the task."""
    process = Process(store, taskid, worker)
    assert process.claim() > 0
    process.join()
    return process


def test_work_is_empty_before_any_process(store: Store, taskid: int) -> None:
    """A queued task has no worker."""
    assert work(store, taskid) == []


def test_work_is_counted_by_worker(store: Store, taskid: int) -> None:
    """Done, in flight, errors and items are those of the worker's own processes."""
    first = on_worker(store, taskid, "one")
    first.feed(*(request(f"{n}") for n in range(40)))
    second = on_worker(store, taskid, "the other one")
    leases = first.commit(wanted=3).leases
    second.commit(wanted=2)
    first.commit(
        Result("done", leases[0].id, items=[b"i"] * 2),
        Result("part", leases[1].id, items=[b"i"] * 3),
        Result("back", leases[2].id),
        stats=StatChanges(added={"log_count/ERROR": 2, "log_count/INFO": 9}),
    )
    assert work(store, taskid) == [Work("one", 1, 1, 1, 0, 2, 5), Work("the other one", 1, 0, 2, 0, 0, 0)]


def test_work_is_counted_once_when_a_commit_is_repeated(store: Store, taskid: int) -> None:
    """A lost reply changes nothing."""
    process = running(store, taskid)
    process.feed(request("a"))
    [lease] = process.commit(wanted=1).leases
    result, stats = Result("done", lease.id, items=[b"i"]), StatChanges(added={"log_count/ERROR": 1})
    process.commit(result, stats=stats)
    assert process.repeat(result, stats=stats).is_replayed
    assert work(store, taskid) == [Work("w1", 1, 1, 0, 0, 1, 1)]


def test_work_of_a_worker_that_has_left_is_kept(store: Store, taskid: int) -> None:
    """Its counts stay, what it had in hand is another's; also after the task's end, for as long as the task."""
    first = on_worker(store, taskid, "one")
    first.feed(*(request(f"{n}") for n in range(40)))
    second = on_worker(store, taskid, "two")
    [lease, *_] = first.commit(wanted=2).leases
    first.commit(Result("done", lease.id, items=[b"i"]))
    first.leave("crashed")
    assert work(store, taskid) == [Work("one", 0, 1, 0, 0, 0, 1), Work("two", 1, 0, 0, 0, 0, 0)]
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert second.leave() is TaskState.FINISHED
    assert work(store, taskid) == [Work("one", 0, 1, 0, 0, 0, 1)]
    assert 0 < store.client.ttl(keys.counts(taskid)) <= keys.FINISHED_TTL_S


def test_stats_that_home_dumped_are_kept_for_a_while(store: Store, taskid: int) -> None:
    """They have a life of their own, for the task has ended already."""
    tasks = Tasks(store)
    tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert tasks.kept_stats(taskid) == ""
    tasks.keep_stats(taskid, '{"item_scraped_count": 3}')
    assert tasks.kept_stats(taskid) == '{"item_scraped_count": 3}'
    assert 0 < store.client.ttl(keys.final_stats(taskid)) <= keys.FINISHED_TTL_S
