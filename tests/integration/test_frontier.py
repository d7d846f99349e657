"""The frontier's order, its one end, and what a commit does and does not do; against a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.machine import wait_for
from tests.integration.support import Process, request, running, submit, view
from vscrapy import keys
from vscrapy.errors import Fenced, StoreRefused, TaskGone
from vscrapy.model import Endpoint
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord
from vscrapy.store.frontier import (
    CHANGES_BYTES,
    HOME,
    MOST_CRASHES,
    Closing,
    Limits,
    NewRequest,
    Result,
    Unconfirmed,
    leave,
    share,
)
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions, submission
from vscrapy.store.tasks import Tasks


@pytest.fixture
def taskid(store: Store) -> int:
    """Give a task that is queued."""
    return submit(store)


def idle(store: Store, taskid: int) -> tuple[Process, Process]:
    """Two processes of a task that is idle; the first is the one that was told."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, taskid)
    first.commit(Result("started"))
    assert first.commit(*(Result("done", lease.id) for lease in first.lease_all())).is_idle
    return first, second


def holding(store: Store, taskid: int, limits: Limits) -> Process:
    """A process with leases of a slot in which more waits than it can take."""
    process = running(store, taskid, limits=limits)
    process.feed(*(request(f"{n}") for n in range(20)))
    process.commit(wanted=2)
    return process


def test_little_is_parted_among_the_processes(store: Store, taskid: int) -> None:
    """Each gets its part of what waits, so that nobody is without work; where there is much, as much as it wants."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(40)))
    second, third = (running(store, taskid) for _ in range(2))
    assert [len(each.lease(10)) for each in (first, second, third)] == [10, 10, 7]
    assert [len(each.lease(10)) for each in (first, second, third)] == [5, 3, 2]
    assert [len(each.lease(10)) for each in (first, second, third)] == [1, 1, 1]
    assert third.lease(10) == []
    second.leave()
    third.leave()
    assert len(first.lease_all()) == 24


@pytest.mark.parametrize(
    ("limits", "asked"),
    [(Limits(8), {"a": 4}), (Limits(1), {}), (Limits(8, delay_ms=50), {}), (Limits(), {})],
    ids=["parted", "one-at-a-time", "delay", "no-limit"],
)
def test_holder_makes_room_for_a_process_that_is_about_to_come(
    store: Store, taskid: int, limits: Limits, asked: dict[str, int]
) -> None:
    """From its claim on, where there is a share for each; not where they would take turns."""
    first = holding(store, taskid, limits)
    assert Process(store, taskid).claim() == 2
    assert {slot: share for slot, share in first.commit().shares.items() if share < limits.most} == asked


def test_process_finds_its_share_when_the_others_have_made_room(store: Store, taskid: int) -> None:
    """Its first question is answered with it."""
    first = holding(store, taskid, Limits(8))
    second = Process(store, taskid)
    second.claim()
    first.commit(shares=first.commit().shares)
    second.join(limits=Limits(8))
    found = second.commit(wanted=2)
    assert (len(found.leases), dict(found.shares)) == (2, {"a": 4})


def test_nobody_makes_room_for_a_process_that_left_before_it_came(store: Store, taskid: int) -> None:
    """Its waiting ends with it."""
    first = holding(store, taskid, Limits(8))
    second = Process(store, taskid)
    second.claim()
    second.leave()
    assert not first.commit().shares
    assert not store.client.exists(keys.prefix(taskid) + "waiters:a", keys.prefix(taskid) + "contended")


# --- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_lifo", [True, False])
def test_lease_takes_the_highest_priority_first(store: Store, taskid: int, is_lifo: bool) -> None:
    """Priority comes before age, and below zero it goes on."""
    process = running(store, taskid, is_lifo=is_lifo)
    process.feed(*(request(queue, queue=queue) for queue in ("0", "-1", "10", "9", "-10", "200")))
    assert process.lease(6) == ["200", "10", "9", "0", "-1", "-10"]


@pytest.mark.parametrize(("is_lifo", "expected"), [(True, ["3", "2", "1"]), (False, ["1", "2", "3"])])
def test_lease_takes_equal_priorities_in_the_order_of_the_queue(
    store: Store, taskid: int, is_lifo: bool, expected: list[str]
) -> None:
    """Within a priority, the project's queue decides."""
    process = running(store, taskid, is_lifo=is_lifo)
    process.feed(request("1"), request("2"))
    process.feed(request("3"))
    assert process.lease(3) == expected


@pytest.mark.parametrize(
    ("is_start_lifo", "expected"), [(True, ["n2", "n1", "s2", "s1"]), (False, ["n2", "n1", "s1", "s2"])]
)
def test_lease_takes_start_requests_after_the_others_of_a_priority(
    store: Store, taskid: int, is_start_lifo: bool, expected: list[str]
) -> None:
    """Start requests have a queue of their own, behind the other one, with an order of its own."""
    process = running(store, taskid, is_start_lifo=is_start_lifo)
    process.feed(request("s1", queue="0s"), request("n1"), request("s2", queue="0s"), request("n2"))
    assert process.lease(4) == expected


@pytest.mark.parametrize("priority", [0, 1, 10, -1, -10])
def test_lease_takes_start_requests_of_a_higher_priority_first(store: Store, taskid: int, priority: int) -> None:
    """Priority comes before the kind of queue."""
    process = running(store, taskid)
    process.feed(request("normal", queue=str(priority)), request("start", queue=f"{priority + 1}s"))
    assert process.lease(2) == ["start", "normal"]


def test_lease_takes_slots_in_turn(store: Store, taskid: int) -> None:
    """The slot with the fewest leased requests is next."""
    process = running(store, taskid)
    process.feed(*(request(f"{slot}{n}", slot=slot) for slot in "abc" for n in range(3)))
    assert sorted(payload[0] for payload in process.lease(6)) == ["a", "a", "b", "b", "c", "c"]


def test_lease_counts_what_other_processes_hold_of_a_slot(store: Store, taskid: int) -> None:
    """Balance is kept over the whole task, not per process."""
    first = running(store, taskid)
    first.feed(*(request(f"a{n}") for n in range(20)))
    second = running(store, taskid)
    first.lease(5)
    second.feed(*(request(f"b{n}", slot="b") for n in range(6)))
    assert {payload[0] for payload in second.lease(5)} == {"b"}


def test_new_request_does_not_put_its_slot_in_front(store: Store, taskid: int) -> None:
    """A slot with leased requests stays behind, also when it had nothing left to wait."""
    process = running(store, taskid)
    process.feed(*(request(f"a{n}") for n in range(3)), wanted=3)
    process.feed(request("a3"), request("b0", slot="b"), request("b1", slot="b"))
    assert [payload[0] for payload in process.lease(2)] == ["b", "b"]


def test_lease_takes_all_from_the_only_slot(store: Store, taskid: int) -> None:
    """One slot alone is not held back, over the ends of its queues."""
    process = running(store, taskid)
    process.feed(*(request(f"{n}", queue=str(n % 3)) for n in range(9)))
    assert len(process.lease(20)) == 9


@pytest.mark.parametrize("is_lifo", [True, False])
def test_request_that_is_given_back_comes_out_next(store: Store, taskid: int, is_lifo: bool) -> None:
    """What was not run keeps its place at the head."""
    process = running(store, taskid, is_lifo=is_lifo)
    process.feed(*(request(f"{n}") for n in range(4)))
    lease = process.commit(wanted=1).leases[0]
    process.commit(Result("back", lease.id))
    assert process.lease(1) == [lease.payload.decode()]


@pytest.mark.parametrize("is_lifo", [True, False])
def test_requests_that_are_given_back_together_come_out_in_their_old_order(
    store: Store, taskid: int, is_lifo: bool
) -> None:
    """The order in which leases are given back does not matter."""
    process = running(store, taskid, is_lifo=is_lifo)
    process.feed(*(request(f"{n}") for n in range(15)))
    leases = process.commit(wanted=12).leases
    process.commit(*(Result("back", lease.id) for lease in sorted(leases, key=lambda lease: lease.id)))
    assert process.lease(12) == [lease.payload.decode() for lease in leases]


@pytest.mark.parametrize("queue", ["0", "0s"])
@pytest.mark.parametrize("is_lifo", [True, False])
@pytest.mark.parametrize("n_held", [3, 700])
def test_requests_of_a_process_that_left_come_out_in_their_old_order(
    store: Store, taskid: int, is_lifo: bool, n_held: int, queue: str
) -> None:
    """A crash does not turn the order around, however many requests were held."""
    process = running(store, taskid, is_lifo=is_lifo, is_start_lifo=is_lifo)
    process.feed(*(request(f"{n}", queue=queue) for n in range(n_held + 5)))
    held = process.lease(min(n_held, 500)) + process.lease(n_held - min(n_held, 500))
    process.leave("crashed")
    other = running(store, taskid, is_lifo=is_lifo, is_start_lifo=is_lifo)
    assert other.lease(min(n_held, 500)) + other.lease(n_held - min(n_held, 500)) == held


def test_commit_takes_the_leases_from_what_it_has_brought(store: Store, taskid: int) -> None:
    """New requests can be leased by the commit that brings them."""
    leases = running(store, taskid).feed(request("1"), wanted=1).leases
    assert [lease.payload for lease in leases] == [b"1"]


def test_lease_gives_no_more_than_is_wanted_and_at_most_500(store: Store, taskid: int) -> None:
    """One commit takes 500 leases at most."""
    process = running(store, taskid)
    assert len(process.feed(*(request(f"{n}") for n in range(600)), wanted=501).leases) == 500


@pytest.mark.parametrize("n_requests", [999, 1000, 1001, 2001])
def test_commit_keeps_the_order_of_very_many_requests(store: Store, taskid: int, n_requests: int) -> None:
    """Large batches are not cut, and not put in another order."""
    running(store, taskid).feed(*(request(f"{n}") for n in range(n_requests)))
    assert view(store, taskid).waiting["a", "0"] == [f"{n}".encode() for n in range(n_requests)]


@pytest.mark.parametrize("slot", ["", "::1", "a:0", "queue:a", "é", "a b", "{x}"])
def test_slot_of_any_name_is_kept(store: Store, taskid: int, slot: str) -> None:
    """A project may name its slots as it likes."""
    lease = running(store, taskid).feed(request(b"\n\0\xff\n", slot=slot, queue="-3s"), wanted=1).leases[0]
    assert (lease.slot, lease.queue, lease.payload) == (slot, "-3s", b"\n\0\xff\n")


# --- what is seen ---------------------------------------------------------------------------------------------------


def test_request_that_was_seen_is_told_by_its_index_over_all_results(store: Store, taskid: int) -> None:
    """Indexes go through all results of the commit, also within one commit."""
    process = running(store, taskid)
    process.feed(request("1", seen=("0001", "7")))
    reply = process.commit(
        Result("feed", requests=[request("2"), request("3", seen=("0001", "7"))]),
        Result("feed", requests=[request("4", seen=("0002", "7")), request("5", seen=("0002", "7"))]),
    )
    assert reply.duplicates == [1, 3]


def test_equal_requests_without_a_filter_are_two(store: Store, taskid: int) -> None:
    """Two equal requests with dont_filter are two requests."""
    assert running(store, taskid).feed(request("x"), request("x")).queued == 2


def test_what_was_seen_stays_so_when_it_becomes_much(store: Store, taskid: int) -> None:
    """From 4,096 on it takes 8 bytes each; equal ones of one commit are found in each of its ways."""
    process = running(store, taskid)
    places = [(f"{n * 7 % 65536:04x}", str(n)) for n in range(5_000)]
    few = [request(f"{n}", seen=place) for n, place in enumerate(places[:1_500])]
    assert process.feed(*few, *few[:2]).duplicates == [1_500, 1_501]
    many = [request(f"{n}", seen=place) for n, place in enumerate(places)]
    assert process.feed(*many, many[0], many[-1]).duplicates == [*range(1_500), 5_000, 5_001]
    names = store.client.keys(f"{keys.prefix(taskid)}seen:*")
    assert sum(store.client.scard(name) for name in names) == 5_000
    assert {store.client.object("encoding", name) for name in names} == {b"intset"}
    assert not store.client.exists(f"{keys.prefix(taskid)}first")
    assert process.feed(*many, *2 * [request("new", seen=("0000", "7000"))]).duplicates == [*range(5_000), 5_001]
    assert store.client.hget(keys.task(taskid), "seen") == b"5001"


def test_what_was_seen_stays_so_when_the_first_sets_are_full(store: Store, taskid: int) -> None:
    """What comes after that stands elsewhere; requests that stay on their process are held against both, too."""
    process = running(store, taskid)
    process.feed(*(request(f"{n}", seen=(f"{n * 6000:04x}", "7")) for n in range(9)))
    assert store.client.hget(keys.task(taskid), "seen") == b"9"
    store.client.hset(keys.task(taskid), "seen", 4_095)
    process.feed(request("9", seen=(f"{9 * 6000:04x}", "7")))
    store.client.hset(keys.task(taskid), "seen", 1_600_000)
    again = process.feed(*(request(f"{n}", seen=(f"{n * 6000:04x}", "7")) for n in range(10)))
    assert again.duplicates == list(range(10))
    places = [*(f"{n * 6000 + 4096:04x}" for n in range(10)), "ffff"]  # with the first ten's last digits
    assert process.feed(*(request(f"{place}", seen=(place, "8")) for place in places)).duplicates == []
    assert process.feed(*(request(f"{place}", seen=(place, "8")) for place in places)).duplicates == list(range(11))
    seen = [(place, member) for place in ("0000", "ffff") for member in ("7", "8")]
    claims = [NewRequest.claim(f"{place}:{member}", (place, member)) for place, member in seen]
    assert process.commit(Result("feed", requests=claims)).duplicates == [0, 3]
    process.commit(Result("feed", requests=[claim.settled for claim in claims[1:3]]))
    settled = [request("x", seen=("0000", "8")), request("y", seen=("ffff", "7"))]
    assert process.feed(*settled).duplicates == [0, 1]
    assert store.client.hget(keys.task(taskid), "seen") == b"1600013"
    Tasks(store).stop(taskid, reason="finished", mode=StopMode.GRACEFUL)
    assert process.leave("left") is TaskState.FINISHED
    names = store.client.keys(f"{keys.prefix(taskid)}*")
    assert not [name for name in names if any(part in name for part in (b"seen", b"wide", b"first"))]


# --- commits --------------------------------------------------------------------------------------------------------


def test_commit_that_is_repeated_is_done_once(store: Store, taskid: int) -> None:
    """After a lost reply: nothing twice, and all leases of the process in the reply."""
    process = running(store, taskid)
    process.feed(request("1"), request("2"), wanted=1)
    work = Result("feed", requests=[request("3")], items=[b"items"])
    process.commit(work, stats=StatChanges({"n": 1}), wanted=1)
    reply = process.repeat(work, stats=StatChanges({"n": 1}), wanted=1)
    counted, _ = Tasks(store).stats(taskid)
    found = (reply.is_replayed, reply.queued, len(reply.leases), counted["n"], store.client.xlen(keys.items(taskid)))
    assert found == (True, 1, 2, 1, 1)


def test_commit_of_an_earlier_number_is_not_done(store: Store, taskid: int) -> None:
    """A packet that comes late, after its successor, changes nothing."""
    process = running(store, taskid)
    process.commit()
    process.commit()
    assert process.frontier.commit(1, [Result("feed", requests=[request("1")])]).queued == 0


def test_commit_after_one_that_redis_has_lost_is_fenced(store: Store, taskid: int) -> None:
    """After a crash of the server, what the process holds is not what stands there: it must begin anew."""
    process = running(store, taskid)
    process.n_commits += 1
    with pytest.raises(Fenced):
        process.commit()


def test_commit_of_a_process_that_has_left_is_fenced(store: Store, taskid: int) -> None:
    """Who was given up for dead commits nothing, not even a repeated call."""
    process = running(store, taskid)
    process.feed(request("1"), wanted=1)
    process.leave("crashed")
    with pytest.raises(Fenced):
        process.repeat(wanted=1)


def provisional(store: Store) -> Process:
    """A process of a task that was submitted early, which has claimed its place."""
    tasks = Tasks(store)
    taskid = tasks.new_id()
    options = TaskOptions(log_keep=1000)
    store.run("submit", *submission(taskid, b"job", spider="books", options=options, is_provisional=True))
    process = Process(store, taskid)
    assert process.claim() == 1
    return process


def test_join_waits_until_the_task_is_confirmed(store: Store) -> None:
    """Nothing is changed by who asks too early: nobody hears of it, and ``start()`` stays with nobody."""
    process, tasks = provisional(store), Tasks(store)
    before = store.client.hgetall(keys.task(process.taskid))
    waits = process.frontier.join(capacity=16, is_lifo=True, is_start_lifo=True)
    assert waits == Unconfirmed("0-0")
    assert store.client.hgetall(keys.task(process.taskid)) == before
    assert not store.client.exists(keys.log(process.taskid))
    process.frontier.wait_for_word(waits, most_ms=10)  # in vain
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(process.frontier.wait_for_word, waits, most_ms=10_000)
        wait_for(lambda: store.client.info("clients")["blocked_clients"] == 1, what="it waits")
        assert tasks.confirm(process.taskid)
        waiting.result(timeout=5)
    assert process.join().start_from == 0
    assert tasks.confirm(process.taskid)  # a repeated call
    assert [entry.is_joined for entry in Streams(store).last_lines(process.taskid, 9)] == [False, True]
    assert not tasks.confirm(process.taskid + 1)


def test_join_does_not_wait_when_the_task_is_to_end(store: Store) -> None:
    """Who waits to be confirmed is told to close, as everybody is."""
    process = provisional(store)
    Tasks(store).stop(process.taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert process.join().state is TaskState.STOPPING


def test_join_of_a_process_that_has_left_is_fenced(store: Store, taskid: int) -> None:
    """Who was given up for dead does not take start()."""
    process = running(store, taskid)
    process.leave("crashed")
    with pytest.raises(Fenced):
        process.join()


@pytest.mark.parametrize("ask", [Process.commit, Process.join])
def test_task_that_is_not_there_is_told(store: Store, ask: object) -> None:
    """A server that lost its data says so, and the process can end."""
    assert callable(ask)
    with pytest.raises(TaskGone):
        ask(Process(store, 99))


def test_leave_of_a_task_that_is_not_there_does_nothing(store: Store) -> None:
    """The agent has nothing to give back."""
    assert leave(store, 99, "p", how="crashed") is None


def test_leave_without_a_lease_frees_the_place(store: Store, taskid: int) -> None:
    """A process that held nothing leaves as well (redis 7.0 takes no ``-0``)."""
    running(store, taskid).leave()
    assert view(store, taskid).number("processes") == 0


def test_result_for_a_lease_of_another_process_ends_nothing(store: Store, taskid: int) -> None:
    """A lease is ended by its holder alone."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, taskid)
    lease = first.commit(wanted=1).leases[0]
    assert second.commit(Result("done", lease.id), Result("back", lease.id)).leased == 1


# --- start() --------------------------------------------------------------------------------------------------------


def test_start_is_run_by_one_process(store: Store, taskid: int) -> None:
    """The first that joins gets start(), the second does not, and asking again changes nothing."""
    first = Process(store, taskid)
    first.claim()
    assert first.join().start_from == 0
    first.feed(*(request(f"{n}") for n in range(20)))
    second = Process(store, taskid)
    second.claim()
    assert (second.join().start_from, first.join().start_from) == (None, 0)


def test_start_is_resumed_by_another_process_after_its_outputs(store: Store, taskid: int) -> None:
    """Outputs that are committed are not made again."""
    first = running(store, taskid)
    first.commit(Result("start", "2", [request("1")]), Result("start", "3"))
    first.leave("crashed")
    second = Process(store, taskid)
    second.claim()
    assert second.join().start_from == 5


def test_start_that_is_exhausted_is_not_run_again(store: Store, taskid: int) -> None:
    """Once exhausted, nobody gets it."""
    first = running(store, taskid)
    first.commit(Result("started"))
    first.leave()
    second = Process(store, taskid)
    second.claim()
    assert second.join().start_from is None


# --- the end --------------------------------------------------------------------------------------------------------


def test_idle_is_told_to_one_process(store: Store, taskid: int) -> None:
    """Of two processes of an idle task, one is told, again and again."""
    first, second = idle(store, taskid)
    assert [first.commit().is_idle, second.commit().is_idle, first.commit().is_idle] == [True, False, True]


@pytest.mark.parametrize("how", ["left", "crashed"])
def test_idle_is_told_to_another_process_when_the_first_has_left(store: Store, taskid: int, how: str) -> None:
    """The end of a task does not hang on one process."""
    first, second = idle(store, taskid)
    first.leave(how)
    assert second.commit().is_idle


@pytest.mark.parametrize("missing", ["start", "lease", "waiting"])
def test_idle_is_not_told_while_something_is_to_do(store: Store, taskid: int, missing: str) -> None:
    """Frontier, leases and start() must all be at their end."""
    process = running(store, taskid)
    if missing != "start":
        process.commit(Result("started"))
    reply = process.commit() if missing == "start" else process.feed(request("1"), wanted=int(missing == "lease"))
    assert not reply.is_idle


def test_idle_is_decided_anew_after_new_work(store: Store, taskid: int) -> None:
    """Work that spider_idle brings makes the task busy; who ends it is told."""
    first, second = idle(store, taskid)
    first.feed(request("1"))
    lease = second.commit(wanted=1).leases[0]
    assert [first.commit().is_idle, second.commit(Result("done", lease.id)).is_idle] == [False, True]


def test_stopping_task_gives_no_lease(store: Store, taskid: int) -> None:
    """After a stop, what waits stays where it is."""
    process = running(store, taskid)
    process.feed(request("1"))
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    reply = process.commit(wanted=5)
    assert (reply.state, reply.reason, reply.stop_mode, reply.leases) == (
        TaskState.STOPPING,
        "shutdown",
        StopMode.GRACEFUL,
        [],
    )


def test_closing_process_hears_how_many_others_still_crawl(store: Store, taskid: int) -> None:
    """Not of those that are gone, nor of those that have not begun."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(100)))
    second, third = running(store, taskid), running(store, taskid)
    Process(store, taskid).claim()
    Tasks(store).stop(taskid, reason="finished", mode=StopMode.GRACEFUL)
    assert first.frontier.closing() == Closing(TaskState.STOPPING, StopMode.GRACEFUL, 2)
    assert first.frontier.closing().n_others == 2
    leave(store, taskid, second.name, how="crashed")
    assert first.frontier.closing().n_others == 1
    assert third.frontier.closing().n_others == 0
    leave(store, taskid, first.name, how="left")
    assert third.frontier.closing().n_others == 0
    with pytest.raises(Fenced):
        first.frontier.closing()


def test_last_process_that_leaves_a_stopping_task_ends_it(store: Store, taskid: int) -> None:
    """State, end record and lifetimes come in one step."""
    process = running(store, taskid)
    process.feed(
        *(request(f"{n}", slot=f"slot{n % 3}", queue=str(n)) for n in range(30)), request("s", seen=("0000", "1"))
    )
    process.lease(5)
    Tasks(store).stop(taskid, reason='od"d \\ é', mode=StopMode.GRACEFUL)
    states = process.leave()
    last = Streams(store).last_lines(taskid, 1)[-1]
    assert (states, last.end) == (TaskState.FINISHED, EndRecord('od"d \\ é', 0))


def crash(store: Store, taskid: int, times: int) -> TaskState | None:
    """Let processes crash one after the other."""
    state = None
    for _ in range(times):
        state = running(store, taskid).leave("crashed")
    return state


def test_crashes_in_a_row_end_the_task(store: Store, taskid: int) -> None:
    """A task that kills its processes ends, with an exit code that says so."""
    states = [crash(store, taskid, MOST_CRASHES - 1), crash(store, taskid, 1)]
    record = Tasks(store).record(taskid)
    assert (states, record.reason, record.exit_code) == ([TaskState.RUNNING, TaskState.FINISHED], "crashed", 1)


def test_processes_that_crash_together_are_one_crash(store: Store, taskid: int) -> None:
    """An accident that kills all of them at once does not end the task; what kills each new one does."""
    first = running(store, taskid, capacity=1)
    first.feed(*(request(f"{n}") for n in range(50)))
    for process in [first, *(running(store, taskid, capacity=1) for _ in range(MOST_CRASHES))]:
        assert process.leave("crashed") is TaskState.RUNNING
    assert crash(store, taskid, MOST_CRASHES - 2) is TaskState.RUNNING
    assert crash(store, taskid, 1) is TaskState.FINISHED


def test_crashes_are_counted_anew_after_a_finished_request(store: Store, taskid: int) -> None:
    """Progress between two crashes keeps the task alive."""
    crash(store, taskid, MOST_CRASHES - 1)
    process = running(store, taskid)
    lease = process.feed(request("1"), wanted=1).leases[0]
    process.commit(Result("done", lease.id))
    process.leave()
    assert crash(store, taskid, MOST_CRASHES - 1) is TaskState.RUNNING


def test_failed_process_ends_the_task_when_the_others_have_left(store: Store, taskid: int) -> None:
    """A spider that cannot be opened anywhere is not tried on every worker."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, taskid)
    states = [second.leave("failed"), first.leave()]
    record = Tasks(store).record(taskid)
    assert (states, record.reason, record.exit_code) == ([TaskState.STOPPING, TaskState.FINISHED], "failed", 1)


def test_first_reason_stands_when_a_process_fails_later(store: Store, taskid: int) -> None:
    """Ctrl-C, then a failure: it was Ctrl-C."""
    process = running(store, taskid)
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    process.leave("failed")
    record = Tasks(store).record(taskid)
    assert (record.reason, record.exit_code) == ("shutdown", 0)


# --- stats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [(1, 2), (0.5, 1), (1, 0.5), (0.5, 0.5, 1), (-1, 0.25), (2**53, 1), (1e300, 1), (10**17, -1), (1e-9, 1)],
)
def test_counted_stats_add_up_whatever_their_type(store: Store, taskid: int, numbers: tuple[float, ...]) -> None:
    """Whole and broken numbers may follow each other."""
    process = running(store, taskid)
    for number in numbers:
        process.count(n=number)
    assert Tasks(store).stats(taskid)[0]["n"] == pytest.approx(sum(numbers))


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 2**63, 10**30, 10**400])
def test_stat_that_redis_cannot_count_does_not_harm_the_commit(store: Store, taskid: int, number: float) -> None:
    """A script is not rolled back: a bad number must never cost the requests that come with it."""
    process = running(store, taskid)
    process.count(n=1)
    work = Result("feed", requests=[request("1")])
    reply = process.commit(work, stats=StatChanges({"n": number}, {"m": number}, {"l": number}))
    assert reply.queued == 1
    assert Tasks(store).stats(taskid)[0]["scheduler/enqueued"] == 1
    process.leave()
    assert Tasks(store).stats(taskid)[0]["scheduler/enqueued"] == 1


def test_stat_that_is_named_by_a_number_is_counted(store: Store, taskid: int) -> None:
    """Scrapy takes any name; on Redis it is a text."""
    process = running(store, taskid)
    named: Any = {404: 2}
    process.commit(stats=StatChanges(named))
    process.commit(stats=StatChanges(named))
    assert Tasks(store).stats(taskid)[0] == {"404": 4}


def test_raised_and_lowered_stats_keep_their_extreme(store: Store, taskid: int) -> None:
    """The highest and the lowest over all processes stand."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, taskid)
    first.commit(stats=StatChanges(raised={"most": 3}, lowered={"least": 3}))
    second.commit(stats=StatChanges(raised={"most": 10, "new": -1}, lowered={"least": 2.5}))
    first.commit(stats=StatChanges(raised={"most": 9}, lowered={"least": 7}))
    stats = Tasks(store).stats(taskid)[0]
    assert {name: stats[name] for name in ("most", "least", "new")} == {"most": 10, "least": 2.5, "new": -1}


@pytest.mark.parametrize("counts_filtered", [False, True])
def test_what_the_frontier_takes_and_filters_is_counted_with_it(
    store: Store, taskid: int, counts_filtered: bool
) -> None:
    """In the commit itself, once: a process that dies before it has the reply could not count it."""
    process = running(store, taskid)
    seen = ("0001", "1")
    results = [Result("feed", requests=[request("1", seen=seen), request("1", seen=seen), request("2")])]
    process.commit(*results, counts_filtered=counts_filtered)
    process.repeat(*results, counts_filtered=counts_filtered)
    counted = {"scheduler/enqueued": 2, "scheduler/enqueued/memory": 2}
    assert Tasks(store).stats(taskid)[0] == counted | ({"dupefilter/filtered": 1} if counts_filtered else {})


def test_stats_of_a_result_are_counted_with_it(store: Store, taskid: int) -> None:
    """What was counted on behalf of requests is added up, with what was counted otherwise."""
    process = running(store, taskid)
    results = [Result("feed", stats={"items": 2, "pages": 1}), Result("feed", stats={"items": 3})]
    process.commit(*results, stats=StatChanges({"pages": 1}))
    assert Tasks(store).stats(taskid)[0] == {"items": 5, "pages": 2}


NAMES = ("plain", "a name with spaces", "line\nbreak", "12 + 3 x", "snowman \u2603", "")


def test_stats_of_a_process_are_the_same_when_it_has_left(store: Store, taskid: int) -> None:
    """Redis adds up what a reader added up before: whole and broken numbers, extremes, names of all kinds."""
    stays = running(store, taskid)
    stays.feed(*(request(f"{n}") for n in range(20)))
    goes = running(store, taskid)
    for number in (3, 0.5, -7):
        for process in (stays, goes):
            added = dict.fromkeys(NAMES, number)
            process.commit(stats=StatChanges(added, {"most": number, "whole": 2}, {"least": number}))
    before = Tasks(store).stats(taskid)[0]
    own = {"scheduler/enqueued": 20, "scheduler/enqueued/memory": 20}
    assert before == {**dict.fromkeys(NAMES, pytest.approx(-7)), "most": 3, "whole": 2, "least": -7, **own}
    goes.leave("crashed")
    assert Tasks(store).stats(taskid)[0] == before
    assert store.client.hkeys(keys.commits(taskid)) == [stays.name.encode()]


def test_stats_with_many_names_are_added_up_at_once(store: Store, taskid: int) -> None:
    """What each commit sends again has a bound; nothing is counted twice, also when a reply was lost."""
    process, length = running(store, taskid), 0
    for number in range(40):
        stats = StatChanges({f"{'n' * 100}{number}": 1, "all": 1})
        process.commit(stats=stats)
        process.repeat(stats=stats)
        sent = store.client.hget(keys.commits(taskid), process.name)
        length = max(length, len(sent or b""))
    found = Tasks(store).stats(taskid)[0]
    assert found == {"all": 40, **{f"{'n' * 100}{number}": 1 for number in range(40)}}
    assert CHANGES_BYTES / 2 < length <= CHANGES_BYTES


def test_stats_that_were_set_are_kept_by_process(store: Store, taskid: int) -> None:
    """An empty word leaves what was set before."""
    process = running(store, taskid)
    process.commit(stat_values='{"a": 1}')
    process.commit(stat_values="")
    assert Tasks(store).stats(taskid)[1] == [{"a": 1}]


# --- facts ----------------------------------------------------------------------------------------------------------


def test_facts_reach_the_others_once_and_in_their_last_version(store: Store, taskid: int) -> None:
    """A process is told what is newer than what it knows."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, taskid)
    first.commit(facts={"cookie": "old", "robots": "r"})
    first.commit(facts={"cookie": "new"})
    reply = second.commit()
    assert (reply.facts, second.commit(fact_version=reply.fact_version).facts) == (
        {"cookie": "new", "robots": "r"},
        {},
    )


def test_facts_that_begin_with_first_stay_as_they_were_told_first(store: Store, taskid: int) -> None:
    """Who comes later is told the first word, and nobody is told the later one."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(60)))
    second, third = running(store, taskid), running(store, taskid)
    first.commit(facts={"first:domain": "one"})
    reply = second.commit(facts={"first:domain": "two"})
    assert (reply.facts, reply.fact_version) == ({"first:domain": "one"}, 1)
    assert third.commit().facts == {"first:domain": "one"}


def test_facts_stand_in_the_reply_of_a_repeated_commit(store: Store, taskid: int) -> None:
    """A lost reply does not lose what it told."""
    process = running(store, taskid)
    process.commit(facts={"a": "é"})
    assert process.repeat(facts={"a": "é"}).facts == {"a": "é"}


# --- shares ---------------------------------------------------------------------------------------------------------


def polite(store: Store, taskid: int, most: int, delay_ms: int = 0) -> Process:
    """A crawl process of a task with limits, with twenty requests for one site."""
    process = Process(store, taskid)
    process.claim()
    process.frontier.join(capacity=8, is_lifo=True, is_start_lifo=True, limits=Limits(most, delay_ms))
    process.feed(*(request(f"{n}") for n in range(20)))
    return process


def home(store: Store, taskid: int, *, needs: dict[str, int], shares: dict[str, int] | None = None) -> dict[str, int]:
    """What home is told."""
    found = share(store, taskid, HOME, shares=shares or {}, needs=needs, limits=Limits(8, 0))
    assert found is not None
    return dict(found)


def end_turns(store: Store, taskid: int, slot: str = "a") -> None:
    """Let whoever holds a slot have had its turn."""
    key = f"{keys.prefix(taskid)}holders:{slot}"
    for process, value in store.client.hgetall(key).items():
        store.client.hset(key, process, f"{int(value.split()[0])} 1")


def test_share_of_home_is_what_the_holders_have_come_down_to(store: Store, taskid: int) -> None:
    """It waits, they are asked for less and say so, and it has its part; and all of it when they have nothing."""
    process = polite(store, taskid, 8)
    leases = process.commit(wanted=8).leases
    assert home(store, taskid, needs={"a": 3}) == {"a": 0}
    assert process.commit().shares == {"a": 5}
    assert process.commit(shares={"a": 5}).shares == {}
    assert home(store, taskid, needs={"a": 3}) == {"a": 3}
    assert home(store, taskid, needs={"a": 20}) == {"a": 3}
    assert process.commit().shares == {"a": 4}
    process.commit(*(Result("back", lease.id) for lease in leases))
    assert home(store, taskid, needs={"a": 20}) == {"a": 8}


def test_share_that_home_has_no_use_for_goes_to_the_others(store: Store, taskid: int) -> None:
    """Home is asked for what is more than it downloads; and gives back all when it downloads nothing."""
    process = polite(store, taskid, 8)
    assert home(store, taskid, needs={"a": 8}) == {"a": 8}
    assert process.commit(wanted=8).leases == []
    assert home(store, taskid, needs={"a": 2}) == {"a": 2}
    assert home(store, taskid, needs={"a": 2}, shares={"a": 2}) == {"a": 2}
    assert process.commit(wanted=8).shares == {"a": 6}
    home(store, taskid, needs={"a": 0})
    assert process.commit(wanted=8).shares == {"a": 8}


@pytest.mark.parametrize(("most", "delay_ms"), [(1, 0), (8, 30)])
def test_share_that_is_not_there_for_all_goes_round(store: Store, taskid: int, most: int, delay_ms: int) -> None:
    """Who had its turn is asked for all, and keeps its leases; then the other is, as long as somebody waits."""
    process = polite(store, taskid, most, delay_ms)
    process.commit(wanted=2)
    assert home(store, taskid, needs={"a": 5}) == {"a": 0}
    assert process.commit().shares == {}
    end_turns(store, taskid)
    assert process.commit().shares == {"a": 0}
    reply = process.commit(shares={"a": 0}, needs={"a": 2})
    assert (reply.shares, reply.leased) == ({}, 2)
    wait_for(lambda: home(store, taskid, needs={"a": 5}) == {"a": most}, what="home's turn")
    assert process.commit(needs={"a": 2}, wanted=2).shares == {}
    end_turns(store, taskid)
    assert home(store, taskid, needs={"a": 5}) == {"a": 0}
    assert home(store, taskid, needs={"a": 5}, shares={"a": 0}) == {"a": 0}
    wait_for(lambda: process.commit(needs={"a": 2}).shares == {"a": most}, what="the process's turn")


def test_share_for_downloads_outlives_the_leases(store: Store, taskid: int) -> None:
    """With a need that comes with the end of the last lease, or before, a process keeps its share; then not."""
    process = polite(store, taskid, 8)
    lease = process.commit(wanted=1).leases[0]
    process.commit(Result("done", lease.id), needs={"a": 1})
    assert process.repeat(Result("done", lease.id), needs={"a": 1}).shares == {"a": 8}
    assert home(store, taskid, needs={"a": 1}) == {"a": 0}
    process.commit(needs={"a": 0})
    assert home(store, taskid, needs={"a": 1}) == {"a": 8}


def test_share_grows_when_others_have_nothing_left_and_nothing_waits(store: Store, taskid: int) -> None:
    """Who has leases of a slot that nobody waits for any more goes on with all of it."""
    one, other = polite(store, taskid, 4), Process(store, taskid)
    other.claim()
    leases = one.commit(wanted=10).leases
    other.frontier.join(capacity=8, is_lifo=True, is_start_lifo=True, limits=Limits(4, 0))
    assert other.commit(wanted=20).shares == {}
    assert one.commit().shares == {"a": 2}
    one.commit(shares={"a": 2})
    found = other.commit(wanted=20)
    assert (len(found.leases), found.queued, found.shares) == (5, 5, {"a": 2})
    others = [*found.leases, *other.lease_all()]
    assert len(others) == 10
    assert one.commit(Result("done", leases[0].id)).shares == {}
    other.commit(*(Result("done", lease.id) for lease in others))
    assert one.commit(Result("done", leases[1].id)).shares == {"a": 4}
    assert one.commit(Result("done", leases[2].id)).shares == {}


def test_share_of_a_process_that_has_left_is_free(store: Store, taskid: int) -> None:
    """Whatever it was for."""
    process = polite(store, taskid, 8)
    process.commit(needs={"a": 1, "b": 1}, wanted=1)
    process.leave("crashed")
    assert home(store, taskid, needs={"a": 8, "b": 8}) == {"a": 8, "b": 8}


def test_share_is_all_of_home_s_when_the_task_has_ended(store: Store, taskid: int) -> None:
    """And nothing is left of it on Redis."""
    process = polite(store, taskid, 8)
    home(store, taskid, needs={"a": 2, "c": 2})
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    process.leave()
    assert share(store, taskid, HOME, shares={}, needs={"c": 2}) is None
    assert share(store, 99, HOME, shares={}, needs={"c": 2}) is None


def test_share_is_taken_before_any_process_has_joined(store: Store, taskid: int) -> None:
    """A pipeline may download as it opens: home knows the limits as well."""
    assert home(store, taskid, needs={"a": 2}) == {"a": 8}
    assert polite(store, taskid, 8).commit(wanted=2).leases == []
    home(store, taskid, needs={"a": 0})


def test_share_is_given_up_when_commits_are_refused(own_server: Endpoint) -> None:
    """Home's downloads free memory: without its share nobody would go on."""
    store = Store(own_server, name="test")
    taskid = submit(store)
    process = polite(store, taskid, 8)
    process.commit(wanted=8)
    assert home(store, taskid, needs={"a": 3}) == {"a": 0}
    store.client.config_set("maxmemory", 1)
    with pytest.raises(StoreRefused):
        process.commit()
    assert process.frontier.share(shares={}, needs={}) == {"a": 5}
    process.frontier.share(shares={"a": 5}, needs={})
    assert home(store, taskid, needs={"a": 3}) == {"a": 3}
    store.close()
