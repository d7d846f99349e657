"""Slots that are given to others: one process leaves for a task that waits, and none that its own task needs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.support import Process, done_ms, request, running, set_begin, submit
from vscrapy import keys
from vscrapy.states import StopMode
from vscrapy.store import workers as workers_module
from vscrapy.store.base import Store
from vscrapy.store.frontier import NewRequest, Result
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Offer, Workers


def crawling(store: Store, n_processes: int, **options: Any) -> list[Process]:
    """The processes of a task in the middle of its crawl: start() is exhausted, and much waits."""
    taskid = submit(store, **options)
    first = running(store, taskid, capacity=1)
    first.commit(Result("start", "1", [request(f"{n}") for n in range(100)]), Result("started"))
    return [first, *(running(store, taskid, capacity=1) for _ in range(n_processes - 1))]


def offer(process: Process, least: int = 1, **options: bool) -> Offer:
    """What its agent offers."""
    return Offer(process.taskid, process.name, least, **options)


def room(store: Store, taskid: int, *offers: Offer, processes: int = 0) -> Offer | None:
    """Who leaves for this task?"""
    return Workers(store).make_room(taskid, processes, offers)


def test_process_leaves_for_a_task_that_waits(store: Store) -> None:
    """The first that may; the task's record tells that it is promised a slot, until it has one."""
    first, second = crawling(store, 2)
    waiting = submit(store)
    assert room(store, waiting, offer(second), offer(first)) == offer(second)
    assert Tasks(store).record(waiting).promised_until_ms > Tasks(store).now_ms()
    second.leave()
    assert Process(store, waiting).claim() == 1
    assert Tasks(store).record(waiting).promised_until_ms == 0


def test_one_process_leaves_for_a_task_whoever_asks(store: Store) -> None:
    """All agents see it at once."""
    processes = crawling(store, 6)
    waiting = submit(store)
    with ThreadPoolExecutor(6) as pool:
        chosen = list(pool.map(lambda process: room(store, waiting, offer(process)), processes))
    assert sum(found is not None for found in chosen) == 1


def test_as_many_leave_as_tasks_wait_and_one_stays(store: Store) -> None:
    """Whichever agent asks for whom: those that are leaving do not count as staying."""
    processes = crawling(store, 3)
    waiting = [submit(store) for _ in range(5)]
    with ThreadPoolExecutor(6) as pool:
        chosen = list(pool.map(lambda taskid: room(store, taskid, *map(offer, processes)), waiting))
    assert sum(found is not None for found in chosen) == 2


def test_promise_that_is_not_kept_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes long to leave holds nobody up for ever."""
    monkeypatch.setattr(workers_module, "PROMISE_MS", 50)
    processes = crawling(store, 3)
    waiting = submit(store)
    assert room(store, waiting, offer(processes[2])) is not None
    deadline = time.monotonic() + 5
    while room(store, waiting, offer(processes[1])) is None:
        assert time.monotonic() < deadline


def test_promise_of_who_may_not_leave_is_taken_back(store: Store) -> None:
    """Another agent has one that may."""
    alone, pair = crawling(store, 1), crawling(store, 2)
    waiting = submit(store)
    assert room(store, waiting, offer(alone[0])) is None
    assert room(store, waiting, offer(pair[0])) == offer(pair[0])


def test_process_that_did_not_hear_counts_as_staying_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent's reply was lost, and its agent with it."""
    monkeypatch.setattr(workers_module, "LEAVING_MS", 50)
    processes = crawling(store, 2)
    assert room(store, submit(store), offer(processes[0])) is not None
    waiting, deadline = submit(store), time.monotonic() + 5
    while room(store, waiting, offer(processes[1])) is None:
        assert time.monotonic() < deadline


def test_call_that_is_repeated_chooses_the_same_again(store: Store) -> None:
    """Its reply was lost."""
    processes = crawling(store, 2)
    waiting = submit(store)
    assert [room(store, waiting, offer(processes[1])) for _ in range(2)] == [offer(processes[1])] * 2


@pytest.mark.parametrize("what", ["paused", "ended", "unknown", "full", "served", "foreign", "starved"])
def test_nobody_leaves_for_a_task_that_cannot_use_the_slot(store: Store, what: str) -> None:
    """Whatever the agent saw a moment ago."""
    processes = crawling(store, 4)
    waiting, has = submit(store, max_processes=1), 0
    if what == "paused":
        Tasks(store).pause(waiting)
    elif what == "ended":
        Tasks(store).stop(waiting, reason="shutdown", mode=StopMode.GRACEFUL)
    elif what == "unknown":
        waiting = 99
    elif what == "full":
        Process(store, waiting).claim()
        has = 1
    elif what == "served":
        Process(store, waiting).claim()
    elif what == "foreign":
        store.client.hset(keys.task(waiting), "protocol", 999)
    else:
        waiting, has = crawling(store, 1)[0].taskid, 1
        store.client.sadd(keys.starved(waiting), "process")
    assert room(store, waiting, *(offer(process, has + 1) for process in processes), processes=has) is None
    assert all(process.commit(wanted=1).leases for process in processes)


def test_slot_is_promised_to_a_task_that_grows(store: Store) -> None:
    """As long as the other one keeps one more."""
    three, two = crawling(store, 3), crawling(store, 2)
    grows = crawling(store, 1)[0].taskid
    assert room(store, grows, offer(two[0], 2), processes=1) is None
    assert room(store, grows, offer(three[0], 2), processes=1) == offer(three[0], 2)


def test_slot_is_promised_for_feeds_that_wait(store: Store) -> None:
    """Home needs one, too."""
    processes = crawling(store, 2)
    stored = submit(store, has_feeds=True)
    last = running(store, stored)
    Tasks(store).stop(stored, reason="finished", mode=StopMode.GRACEFUL)
    last.leave()
    assert room(store, stored, offer(processes[0])) is not None
    home = Process(store, stored)
    assert Workers(store).claim_home(stored, home.name, home.worker) > 0
    assert Tasks(store).record(stored).promised_until_ms == 0


# --- who may go -----------------------------------------------------------------------------------------------------


def test_process_that_runs_start_stays_while_another_can_go(store: Store) -> None:
    """Its outputs would be read anew; but better so than never."""
    taskid = submit(store)
    first = running(store, taskid, capacity=1)
    first.commit(Result("start", "1", [request(f"{n}") for n in range(9)]))
    second, waiting = running(store, taskid, capacity=1), submit(store)
    assert room(store, waiting, offer(first), offer(second)) == offer(second)
    assert room(store, submit(store), offer(first)) is None
    running(store, taskid, capacity=1)
    assert room(store, submit(store), offer(first, is_start_spared=False)) is not None


@pytest.mark.parametrize("least", [0, 1])
def test_process_stays_with_requests_that_cannot_travel(store: Store, least: int) -> None:
    """Their page would be done anew, at each turn."""
    process = crawling(store, 2)[0]
    claim = NewRequest.claim("claim", None)
    process.commit(Result("feed", requests=[claim]))
    assert room(store, submit(store), offer(process, least)) is None
    process.commit(Result("feed", requests=[claim.settled]))
    process.begin_at_once()
    assert room(store, submit(store), offer(process, least)) is not None


def test_turn_ends_when_something_is_finished(store: Store) -> None:
    """A task whose processes come and go gets on with each of them."""
    first = crawling(store, 1)[0]
    first.leave()
    second = running(store, first.taskid)
    waiting = submit(store)
    lease = second.commit(wanted=1).leases[0]
    assert room(store, waiting, offer(second, 0)) is None
    second.commit(Result("done", lease.id))
    second.begin_at_once()
    assert room(store, waiting, offer(second, 0)) is not None


def test_turn_lasts_twice_as_long_as_it_took_to_finish_something(store: Store) -> None:
    """What was repeated to come there, as the outputs of start() are, is at most half of it."""
    first = crawling(store, 1)[0]
    waiting, tasks = submit(store), Tasks(store)
    came_ms = done_ms(store, first.taskid, first.name)
    assert came_ms is not None
    set_begin(store, first.taskid, first.name, came_ms - 400)
    deadline = time.monotonic() + 5
    while room(store, waiting, offer(first, 0)) is None:
        assert time.monotonic() < deadline
    assert tasks.now_ms() - came_ms >= 400


@pytest.mark.parametrize("is_long", [True, False])
def test_turn_does_not_end_before_an_output_of_start(store: Store, is_long: bool) -> None:
    """However long start() takes to come to where the last process was."""
    process = running(store, submit(store))
    process.commit(wanted=1)
    waiting = submit(store)
    assert room(store, waiting, offer(process, 0, is_long=is_long)) is None
    process.commit(Result("start", "1", [request("a")]))
    process.begin_at_once()
    assert room(store, waiting, offer(process, 0)) is not None


def test_turn_of_an_idle_process_ends_after_many(store: Store) -> None:
    """Its spider does not close, and has nothing to do."""
    first = crawling(store, 1)[0]
    first.leave()
    second = running(store, first.taskid)
    waiting = submit(store)
    assert room(store, waiting, offer(second, 0)) is None
    assert room(store, waiting, offer(second, 0, is_long=True)) is not None


@pytest.mark.parametrize("is_paused", [True, False])
def test_only_process_of_a_task_that_wants_one_stays(store: Store, is_paused: bool) -> None:
    """--workers 1: what its spider remembers is the crawl's."""
    process = crawling(store, 1, max_processes=1)[0]
    if is_paused:
        Tasks(store).pause(process.taskid)
    assert room(store, submit(store), offer(process, 0, is_long=True)) is None


def test_processes_of_a_paused_task_leave_and_it_goes_on_after_resume(store: Store) -> None:
    """They had nothing to do; start() is run on elsewhere."""
    process = running(store, submit(store))
    Tasks(store).pause(process.taskid)
    assert room(store, submit(store), offer(process, 0)) is not None
    process.leave()
    assert Process(store, process.taskid).claim() == 0
    Tasks(store).resume(process.taskid)
    assert running(store, process.taskid).claim() == 2


@pytest.mark.parametrize("what", ["stopping", "gone"])
def test_process_that_ends_anyway_is_not_chosen(store: Store, what: str) -> None:
    """Its slot is free soon."""
    processes = crawling(store, 3)
    if what == "stopping":
        Tasks(store).stop(processes[0].taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    else:
        processes[0].leave()
    assert room(store, submit(store), offer(processes[0])) is None


# --- who is next ----------------------------------------------------------------------------------------------------


def test_task_waits_since_its_last_process_has_left(store: Store) -> None:
    """So a task that had its turn is behind those that had none; before that, since it was submitted."""
    taskid = submit(store)
    tasks = Tasks(store)
    assert tasks.record(taskid).waits_since_ms == tasks.record(taskid).created_ms
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(99)))
    second = running(store, taskid)
    first.leave()
    assert tasks.record(taskid).waits_since_ms == tasks.record(taskid).created_ms
    before_ms = tasks.now_ms()
    second.leave()
    assert tasks.record(taskid).waits_since_ms >= before_ms
    assert tasks.record(taskid).is_waiting


def test_task_that_was_paused_waits_since_it_goes_on(store: Store) -> None:
    """Its rest was wanted."""
    taskid, tasks = submit(store), Tasks(store)
    tasks.pause(taskid)
    assert not tasks.record(taskid).is_waiting
    before_ms = tasks.now_ms()
    tasks.resume(taskid)
    assert tasks.record(taskid).waits_since_ms >= before_ms


def test_task_that_was_suspended_waits_since_its_command_was_given_again(store: Store) -> None:
    """Not since it ended, days ago."""
    taskid, tasks = submit(store, job_dir="token"), Tasks(store)
    process = running(store, taskid)
    process.feed(request("a"))
    tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    process.leave()
    ended_ms, deadline = tasks.record(taskid).ended_ms, time.monotonic() + 5
    while tasks.now_ms() <= ended_ms:
        assert time.monotonic() < deadline
    tasks.reopen(taskid, b"job", token="token", options=TaskOptions(log_keep=10))
    assert tasks.record(taskid).waits_since_ms == tasks.record(taskid).created_ms > ended_ms
