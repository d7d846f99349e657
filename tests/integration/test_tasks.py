"""Tasks on Redis: submit, look, stop, archive; and the sender's signs of life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.support import Process, request, running, submit
from vscrapy import keys
from vscrapy.errors import ProtocolMismatch, TaskGone
from vscrapy.model import PROTOCOL
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord
from vscrapy.store.frontier import Result
from vscrapy.store.looks import Looks
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Subscription, TaskRecord, Tasks
from vscrapy.store.workers import Workers
from vscrapy.valve import Valve


@pytest.fixture
def tasks(store: Store) -> Tasks:
    """Give the tasks of a server."""
    return Tasks(store)


# --- submit ---------------------------------------------------------------------------------------------------------


def test_submit_makes_a_task_that_is_queued(store: Store, tasks: Tasks) -> None:
    """The record holds what was submitted."""
    record = tasks.record(submit(store, max_processes=3, sender_timeout_ms=20_000))
    assert (record.spider, record.state, record.max_processes, record.is_attached, record.queued) == (
        *("books", TaskState.QUEUED),
        *(3, True, 0),
    )


def test_submit_that_is_repeated_changes_nothing(store: Store, tasks: Tasks) -> None:
    """A lost reply makes no second task, and does not set a running one back."""
    taskid = submit(store)
    running(store, taskid)
    tasks.submit(taskid, b"other", spider="x", options=TaskOptions(max_processes=9, sender_timeout_ms=9, log_keep=9))
    record = tasks.record(taskid)
    assert (record.state, record.spider, tasks.job(taskid)) == (TaskState.RUNNING, "books", b"job")


def test_new_ids_are_different_and_on_the_list(tasks: Tasks) -> None:
    """An id stands in the registry before its task does."""
    assert [tasks.new_id(), tasks.new_id()] == tasks.live_ids()


@pytest.mark.parametrize("ask", [Tasks.job, Tasks.record])
def test_task_that_is_not_there_is_told(tasks: Tasks, ask: object) -> None:
    """The message names the task and what to do."""
    assert callable(ask)
    with pytest.raises(TaskGone, match=r"task 7 .*vscrapy -l"):
        ask(tasks, 7)


def test_record_of_another_protocol_is_refused(store: Store, tasks: Tasks) -> None:
    """The message names both protocols."""
    taskid = submit(store)
    store.client.hset(keys.task(taskid), "protocol", 999)
    with pytest.raises(ProtocolMismatch, match=rf"\(protocol 999\), and this is vscrapy .* \(protocol {PROTOCOL}\)"):
        tasks.record(taskid)


def test_records_leave_out_what_is_not_there(store: Store, tasks: Tasks) -> None:
    """An id that is still on its way has no record."""
    taskid = submit(store)
    assert list(tasks.records([taskid, 99])) == [taskid]


def test_record_counts_pages_items_and_errors(store: Store, tasks: Tasks) -> None:
    """The table's numbers come from the stats."""
    process = running(store, submit(store))
    process.count(**{"response_received_count": 3, "item_scraped_count": 2, "log_count/ERROR": 1})
    record = tasks.record(process.taskid)
    assert (record.pages, record.items, record.errors) == (3, 2, 1)


def test_record_counts_what_is_not_a_whole_number(store: Store, tasks: Tasks) -> None:
    """A project that counts halves does not break the list of tasks."""
    process = running(store, submit(store))
    process.count(item_scraped_count=2.5)
    assert tasks.record(process.taskid).items == 2


@pytest.mark.parametrize("max_processes", [0, 1, 2])
def test_growing_is_what_claim_grants(store: Store, tasks: Tasks, max_processes: int) -> None:
    """An agent does not ask in vain, and does not overlook a task."""
    taskid = submit(store, max_processes=max_processes)
    first = Process(store, taskid)
    agreed = [tasks.record(taskid).is_growing == (first.claim() > 0)]
    for n_requests in (0, 16, 1, 16, 16):
        first.feed(*(request("x") for _ in range(n_requests)))
        is_growing = tasks.record(taskid).is_growing
        agreed.append(is_growing == (Process(store, taskid).claim() > 0))
    assert agreed == [True] * 6


# --- stop -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", StopMode)
def test_stop_without_a_process_ends_the_task_at_once(store: Store, tasks: Tasks, mode: StopMode) -> None:
    """A queued task has nobody to wait for."""
    taskid = submit(store)
    state = tasks.stop(taskid, reason="shutdown", mode=mode)
    ends = [entry.end for entry in Streams(store).last_lines(taskid, 1)]
    assert (state, ends) == (TaskState.FINISHED, [EndRecord("shutdown", 0)])


def test_stop_with_a_process_waits_for_it(store: Store, tasks: Tasks) -> None:
    """The last process that leaves ends the task."""
    process = running(store, submit(store))
    assert tasks.stop(process.taskid, reason="shutdown", mode=StopMode.GRACEFUL) is TaskState.STOPPING


def test_stop_keeps_the_first_reason(store: Store, tasks: Tasks) -> None:
    """A later call can make it forced, and no more than that."""
    process = running(store, submit(store))
    tasks.stop(process.taskid, reason="first", mode=StopMode.GRACEFUL)
    tasks.stop(process.taskid, reason="second", mode=StopMode.FORCED)
    record = tasks.record(process.taskid)
    assert (record.reason, record.stop_mode) == ("first", StopMode.FORCED)


def test_stop_does_not_become_graceful_again(store: Store, tasks: Tasks) -> None:
    """Forced stays forced."""
    process = running(store, submit(store))
    tasks.stop(process.taskid, reason="first", mode=StopMode.FORCED)
    tasks.stop(process.taskid, reason="second", mode=StopMode.GRACEFUL)
    assert tasks.record(process.taskid).stop_mode is StopMode.FORCED


def test_stop_of_a_finished_task_changes_nothing(store: Store, tasks: Tasks) -> None:
    """One end record, whoever stops how often."""
    taskid = submit(store)
    tasks.stop(taskid, reason="first", mode=StopMode.GRACEFUL)
    tasks.stop(taskid, reason="second", mode=StopMode.FORCED)
    assert (tasks.record(taskid).reason, len(Streams(store).last_lines(taskid, 9))) == ("first", 1)


def test_stop_of_a_task_that_is_not_there_is_told(tasks: Tasks) -> None:
    """There is nothing to stop."""
    with pytest.raises(TaskGone):
        tasks.stop(7, reason="shutdown", mode=StopMode.GRACEFUL)


# --- pause and resume -----------------------------------------------------------------------------------------------


def test_paused_task_gives_what_waits_again_after_resume(store: Store, tasks: Tasks) -> None:
    """Leases can be given back while it is paused, and come again in their order."""
    process = running(store, submit(store), is_lifo=False)
    process.feed(request("1"), request("2"))
    leases = process.commit(wanted=2).leases
    tasks.pause(process.taskid)
    held = process.commit(*(Result("back", lease.id) for lease in leases), wanted=2)
    assert (held.state, held.leases, held.queued) == (TaskState.PAUSED, [], 2)
    tasks.resume(process.taskid)
    assert process.lease(2) == ["1", "2"]


def test_paused_task_that_is_idle_is_not_told_before_resume(store: Store, tasks: Tasks) -> None:
    """A task does not end while it is held still."""
    process = running(store, submit(store))
    tasks.pause(process.taskid)
    told = [process.commit(Result("started")).is_idle]
    tasks.resume(process.taskid)
    assert [*told, process.commit().is_idle] == [False, True]


def test_paused_task_without_a_process_takes_one_after_resume(store: Store, tasks: Tasks) -> None:
    """A crash while it is paused leaves it without one; it grows again when it goes on."""
    process = running(store, submit(store))
    tasks.pause(process.taskid)
    process.leave("crashed")
    seen = [(tasks.record(process.taskid).is_growing, Process(store, process.taskid).claim() > 0)]
    tasks.resume(process.taskid)
    seen.append((tasks.record(process.taskid).is_growing, Process(store, process.taskid).claim() > 0))
    assert seen == [(False, False), (True, True)]


@pytest.mark.parametrize(
    "call", [Tasks.pause, Tasks.resume, lambda tasks, taskid: tasks.turn_valve(taskid, Valve.OFF)]
)
def test_turning_a_task_that_is_not_there_makes_no_record(
    store: Store, tasks: Tasks, call: Callable[[Tasks, int], object]
) -> None:
    """There is nothing to turn, and nothing is left behind."""
    with pytest.raises(TaskGone):
        call(tasks, 7)
    assert not store.client.exists(keys.task(7))


def test_pause_says_whether_it_was_this_call(store: Store, tasks: Tasks) -> None:
    """So that a log tells it once, however often somebody pauses."""
    taskid = submit(store)
    calls = [tasks.pause(taskid), tasks.pause(taskid), tasks.resume(taskid), tasks.resume(taskid)]
    assert calls == [
        *((True, TaskState.PAUSED), (False, TaskState.PAUSED)),
        *((True, TaskState.QUEUED), (False, TaskState.QUEUED)),
    ]


def test_valve_stands_in_the_record(store: Store, tasks: Tasks) -> None:
    """Each call says whether it has turned it."""
    taskid = submit(store)
    turned = [tasks.turn_valve(taskid, valve)[0] for valve in (Valve.AUTO, Valve.OFF, Valve.OFF, Valve.INFO)]
    assert (turned, tasks.record(taskid).valve) == ([False, True, False, True], Valve.INFO)


def test_valve_of_a_finished_task_stays(store: Store, tasks: Tasks) -> None:
    """There is nothing to say any more."""
    record = finished(store, tasks)
    assert tasks.turn_valve(record.taskid, Valve.OFF) == (False, TaskState.FINISHED)
    assert tasks.record(record.taskid).valve is Valve.AUTO


def test_followers_are_counted_by_their_subscription(store: Store, tasks: Tasks) -> None:
    """One connection can follow several tasks."""
    subscription = Subscription(store, keys.followers(7), keys.followers(8))
    subscription.keep(wait_s=0.1)
    found = Looks(store).audience([7], [7, 8, 9])
    assert (found.senders, found.followers) == ({7: 0}, {7: 1, 8: 1, 9: 0})
    subscription.close()


# --- registries -----------------------------------------------------------------------------------------------------


def finished(store: Store, tasks: Tasks) -> TaskRecord:
    """A task that has ended."""
    taskid = submit(store)
    tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    return tasks.record(taskid)


def test_archive_moves_a_task_to_the_finished_ones(store: Store, tasks: Tasks) -> None:
    """Twice is as good as once."""
    record = finished(store, tasks)
    tasks.archive(record)
    tasks.archive(record)
    assert (tasks.live_ids(), tasks.finished_ids(9)) == ([], [record.taskid])


def test_archive_forgets_what_ended_too_long_ago(store: Store, tasks: Tasks) -> None:
    """The registry of finished tasks is no longer than their life."""
    store.client.zadd(keys.FINISHED, {"77": 1})
    record = finished(store, tasks)
    tasks.archive(record)
    assert tasks.finished_ids(9) == [record.taskid]


def test_finished_ids_are_the_newest_first(store: Store, tasks: Tasks) -> None:
    """The last ended is the first listed, and no more than asked for."""
    store.client.zadd(keys.FINISHED, {"1": 10, "2": 30, "3": 20})
    assert tasks.finished_ids(2) == [2, 3]


@pytest.mark.parametrize(("ahead_ms", "n_left"), [(-1000, 1), (1000, 0)])
def test_forget_takes_only_an_old_id_off_the_list(tasks: Tasks, ahead_ms: int, n_left: int) -> None:
    """An id whose task is still on its way stays."""
    taskid = tasks.new_id()
    tasks.forget(taskid, older_than_ms=tasks.now_ms() + ahead_ms)
    assert len(tasks.live_ids()) == n_left


# --- signs of life, and bells ---------------------------------------------------------------------------------------


def test_sign_of_life_tells_state_and_processes(store: Store, tasks: Tasks) -> None:
    """The sender sees how its task fares, and is seen."""
    process = running(store, submit(store, sender_timeout_ms=1000))
    store.client.hset(keys.task(process.taskid), "sender_ms", 1)
    sign = tasks.sign_of_life(process.taskid)
    assert (sign, tasks.record(process.taskid).sender_ms > 1) == ((TaskState.RUNNING, 1, 1), True)


def test_sign_of_life_for_a_task_that_is_gone_makes_no_record(store: Store, tasks: Tasks) -> None:
    """A sender that outlives its task does not bring a part of it back."""
    assert (tasks.sign_of_life(7), store.client.exists(keys.task(7))) == (None, 0)


def test_sender_is_seen_as_long_as_it_is_subscribed(store: Store, tasks: Tasks) -> None:
    """The count goes up and down with the connection."""
    subscription = Subscription(store, keys.sender(7))
    found = [Looks(store).audience([7, 8])]
    subscription.keep(wait_s=0.1)
    found.append(Looks(store).audience([7, 8], [7]))
    subscription.close()
    found.append(Looks(store).audience([7, 8]))
    assert [(one.senders, one.followers) for one in found] == [
        ({7: 0, 8: 0}, {}),
        ({7: 1, 8: 0}, {7: 0}),
        ({7: 0, 8: 0}, {}),
    ]
    assert [one.now_ms for one in found] == sorted(one.now_ms for one in found)


@pytest.mark.parametrize("call", ["submit", "stop", "pause", "resume", "valve"])
def test_agents_are_woken(store: Store, tasks: Tasks, call: str) -> None:
    """A task that comes, goes on or ends is not found at the next look only."""
    taskid = submit(store)
    if call == "resume":
        tasks.pause(taskid)
    bell = Subscription(store, keys.WAKE)
    bell.keep(wait_s=0.1)
    if call == "submit":
        submit(store)
    elif call == "stop":
        tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    elif call == "valve":
        tasks.turn_valve(taskid, Valve.OFF)
    else:
        getattr(tasks, call)(taskid)
    assert bell.keep(wait_s=5)
    bell.close()


def test_workers_of_an_empty_server_are_none(store: Store) -> None:
    """Lists of nothing are no error."""
    tasks = Tasks(store)
    found = (Workers(store).list(), tasks.live_ids(), tasks.finished_ids(5), tasks.records([]))
    assert found == ([], [], [], {})
    seen = Looks(store).see([])
    assert (seen.live, seen.records, seen.audience.senders, seen.audience.followers) == ([], {}, {}, {})


@pytest.mark.parametrize("tally", ["", "1 2 x 4 5", "1 2 3 4 5 6", "9" * 5000])
def test_tally_that_cannot_be_read_counts_for_nothing(store: Store, tasks: Tasks, tally: str) -> None:
    """Stats are not signed, and whoever asks for them gets the others; the record is as one that is not there."""
    taskid = submit(store)
    store.client.hset(keys.task(taskid), "tally", tally)
    store.client.hset(keys.stats(taskid), "n", 3)
    assert tasks.stats(taskid)[0] == {"n": 3}
    assert (taskid in tasks.records([taskid])) is (tally == "")


def test_task_that_only_another_protocol_can_read_is_not_forgotten(store: Store, tasks: Tasks) -> None:
    """Its state has a name that is not known here; garbage of this protocol is forgotten."""
    foreign, garbage = submit(store), submit(store)
    store.client.hset(keys.task(foreign), mapping={"protocol": PROTOCOL + 1, "state": "dreaming"})
    store.client.hset(keys.task(garbage), "state", "dreaming")
    assert tasks.records([foreign, garbage]) == {}
    for taskid in (foreign, garbage):
        tasks.forget(taskid, older_than_ms=tasks.now_ms() + 1)
    assert tasks.live_ids() == [foreign]
    with pytest.raises(ProtocolMismatch, match=f"task {foreign} was made by .* give this command with vscrapy"):
        tasks.record(foreign)
    store.client.delete(keys.job(garbage), keys.task(garbage))
    store.client.hset(keys.task(foreign), "state", TaskState.QUEUED)


def test_same_words_may_be_said_once_in_a_task(store: Store, tasks: Tasks) -> None:
    """By one of all who want to; who asks again, for its reply was lost, gets the same answer."""
    taskid = submit(store)
    assert [tasks.may_say(taskid, "words", asker) for asker in ("p1", "p2", "p1")] == [True, False, True]
    assert tasks.may_say(taskid, "other words", "p2")
    assert not tasks.may_say(taskid + 1, "words", "p1")
    assert not store.client.exists(keys.task(taskid + 1))
