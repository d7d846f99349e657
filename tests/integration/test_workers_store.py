"""Workers on Redis: their names, their heartbeat, who is dead, and their places in tasks."""

from __future__ import annotations

import pytest

from tests.integration.support import Process, request, running, submit, view
from vscrapy import keys
from vscrapy.errors import NameTaken, ProtocolMismatch, WorkerGone
from vscrapy.model import PROTOCOL
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import MOST_CRASHES
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import SILENCE_MS, WORKER_TTL_MS, Heard, Workers


@pytest.fixture
def workers(store: Store) -> Workers:
    """Give the workers of a server whose pulse is steady: nobody was silent."""
    keep_pulse(store)
    return Workers(store)


def keep_pulse(store: Store, *, ago_ms: int = 0, grace_ms: int = 0) -> None:
    """Set when the last heartbeat came, and how long nobody is reaped."""
    now_ms = Tasks(store).now_ms()
    store.client.hset(keys.PULSE, mapping={"last_ms": now_ms - ago_ms, "grace_until_ms": now_ms + grace_ms})


def let_die(store: Store, name: str) -> None:
    """Put a worker's deadline into the past."""
    store.client.zadd(keys.WORKERS, {name: Tasks(store).now_ms() - 1})


# --- names ----------------------------------------------------------------------------------------------------------


def test_register_lists_the_worker_with_what_it_says(workers: Workers) -> None:
    """The list shows a live worker and its fields."""
    workers.register("w1", "t1", {"slots": 4, "host": "h", "pid": 7, "python": "3.11", "scrapy": "2.13"})
    (found,) = workers.list()
    assert (found.name, found.is_alive, found.slots, found.host, found.pid, found.python, found.scrapy) == (
        *("w1", True, 4, "h", 7),
        *("3.11", "2.13"),
    )


def test_register_refuses_the_name_of_a_live_worker(workers: Workers) -> None:
    """Two agents never share a name."""
    workers.register("w1", "t1", {})
    with pytest.raises(NameTaken, match="'w1'"):
        workers.register("w1", "t2", {})


def test_register_again_by_the_same_agent_is_harmless(workers: Workers) -> None:
    """A call whose reply was lost is repeated."""
    workers.register("w1", "t1", {"slots": 1})
    workers.register("w1", "t1", {"slots": 2})
    assert [worker.slots for worker in workers.list()] == [2]


def test_register_takes_the_name_of_a_dead_worker(store: Store, workers: Workers) -> None:
    """A machine that starts again gets its old name, and the agent that was suspended learns of it."""
    workers.register("w1", "t1", {})
    let_die(store, "w1")
    workers.register("w1", "t2", {})
    assert workers.beat("w1", "t1", {}) is None


def test_register_gives_back_what_the_dead_worker_of_that_name_held(store: Store, workers: Workers) -> None:
    """Nobody else would: the name is alive again, so no reaper looks at it."""
    workers.register("w1", "t1", {})
    process = running(store, submit(store))
    process.feed(request("1"), wanted=1)
    let_die(store, "w1")
    workers.register("w1", "t2", {})
    found = view(store, process.taskid)
    assert (found.number("queued"), found.number("processes"), workers.processes("w1")) == (1, 0, [])


def test_register_leaves_what_a_worker_of_another_protocol_held_to_its_like(store: Store, workers: Workers) -> None:
    """A machine that was upgraded after a crash has its name again; older workers find its places under another."""
    workers.register("w1", "t1", {"protocol": PROTOCOL - 1})
    process = running(store, submit(store))
    process.feed(request("1"), wanted=1)
    let_die(store, "w1")
    for _ in range(2):
        workers.register("w1", "t2", {"slots": 1})
    assert (workers.processes("w1"), view(store, process.taskid).number("processes")) == ([], 1)
    heir = f"w1-protocol-{PROTOCOL - 1}"
    assert workers.processes(heir) == [(process.taskid, process.name)]
    assert workers.beat("w1", "t2", {}) == Heard([])
    workers.register("w0", "t0", {"protocol": PROTOCOL - 1})
    assert workers.beat("w0", "t0", {}) == Heard([heir])
    workers.leave_places(heir)
    assert workers.retire(heir)
    found = view(store, process.taskid)
    assert (found.number("queued"), found.number("processes")) == (1, 0)


def test_register_goes_on_giving_back_after_a_lost_connection(store: Store, workers: Workers) -> None:
    """A registration that broke off half-way is repeated, and finds the rest."""
    workers.register("w1", "t1", {})
    process = running(store, submit(store))
    workers.register("w1", "t1", {})
    assert (workers.processes("w1"), view(store, process.taskid).number("processes")) == ([], 0)


def test_death_of_a_worker_is_one_crash_of_a_task(store: Store, workers: Workers) -> None:
    """A machine with many slots that dies does not end the task."""
    taskid = submit(store)
    running(store, taskid, capacity=1).feed(*(request(f"{n}") for n in range(50)))
    for _ in range(MOST_CRASHES):
        running(store, taskid, capacity=1)
    workers.leave_places("w1")
    found = view(store, taskid)
    assert (found.state, found.number("processes"), found.number("crashes")) == (TaskState.RUNNING, 0, 1)


# --- heartbeat ------------------------------------------------------------------------------------------------------


def test_beat_moves_the_deadline(store: Store, workers: Workers) -> None:
    """A heartbeat gives a new time to live."""
    workers.register("w1", "t1", {})
    let_die(store, "w1")
    before_ms = Tasks(store).now_ms()
    workers.beat("w1", "t1", {"processes": 3})
    deadline_ms = store.client.zscore(keys.WORKERS, "w1")
    assert before_ms + WORKER_TTL_MS <= deadline_ms <= Tasks(store).now_ms() + WORKER_TTL_MS


def test_beat_without_an_entry_says_so(store: Store, workers: Workers) -> None:
    """A worker that was reaped, or whose server lost its data, learns it."""
    workers.register("w1", "t1", {})
    store.client.zrem(keys.WORKERS, "w1")
    assert workers.beat("w1", "t1", {}) is None


def test_beat_leaves_the_dead_of_another_protocol_to_their_like(store: Store, workers: Workers) -> None:
    """However many there are: those of its own are named."""
    for number in range(10):
        workers.register(f"old{number}", "t", {"protocol": PROTOCOL - 1})
        let_die(store, f"old{number}")
    workers.register("dead", "t", {})
    let_die(store, "dead")
    workers.register("w1", "t1", {})
    assert workers.beat("w1", "t1", {}) == Heard(["dead"])
    workers.register("older", "t2", {"protocol": PROTOCOL - 1})
    heard = workers.beat("older", "t2", {})
    assert heard is not None
    assert len(heard.dead) == 5
    assert "dead" not in heard.dead


def test_beat_names_workers_past_their_deadline(store: Store, workers: Workers) -> None:
    """The dead are named, the living and oneself are not."""
    for name in ("w1", "w2", "w3"):
        workers.register(name, name, {})
    let_die(store, "w1")
    let_die(store, "w2")
    assert workers.beat("w1", "w1", {}) == Heard(["w2"])


def test_beat_names_five_workers_at_most(store: Store, workers: Workers) -> None:
    """A whole rack that died is reaped in turns."""
    for number in range(8):
        workers.register(f"w{number}", "t", {})
        let_die(store, f"w{number}")
    heard = workers.beat("w0", "t", {})
    assert heard is not None
    assert len(heard.dead) == 5


@pytest.mark.parametrize("ago_ms", [SILENCE_MS + 1000, 10**12])
def test_beat_after_a_silence_of_all_names_nobody(store: Store, workers: Workers, ago_ms: int) -> None:
    """Redis was away, not the workers: they have time to come back."""
    workers.register("w1", "t1", {})
    workers.register("w2", "t2", {})
    let_die(store, "w2")
    keep_pulse(store, ago_ms=ago_ms)
    assert [workers.beat("w1", "t1", {}), workers.beat("w1", "t1", {})] == [Heard([]), Heard([])]


def test_beat_names_the_dead_after_the_grace(store: Store, workers: Workers) -> None:
    """The grace is one time to live, then it is over."""
    workers.register("w1", "t1", {})
    workers.register("w2", "t2", {})
    let_die(store, "w2")
    keep_pulse(store, grace_ms=-1)
    assert workers.beat("w1", "t1", {}) == Heard(["w2"])


def test_first_beat_ever_begins_with_a_grace(store: Store, workers: Workers) -> None:
    """A server that lost its pulse does not start with a massacre."""
    store.client.delete(keys.PULSE)
    workers.register("w1", "t1", {})
    workers.register("w2", "t2", {})
    let_die(store, "w2")
    assert workers.beat("w1", "t1", {}) == Heard([])


def test_beat_tells_who_is_to_finish(workers: Workers) -> None:
    """Once it was told, each heartbeat says so; and the list."""
    workers.register("w1", "t1", {})
    workers.register("w2", "t2", {})
    assert [workers.drain("w1"), workers.drain("w1")] == [True, False]
    for _ in range(2):
        assert workers.beat("w1", "t1", {}) == Heard([], is_to_drain=True)
    assert workers.beat("w2", "t2", {}) == Heard([])
    assert [worker.is_draining for worker in workers.list()] == [True, False]


def test_drain_is_not_for_who_has_the_name_later(store: Store, workers: Workers) -> None:
    """A worker that was told to finish has died; the next one of its name has nothing to do with that."""
    workers.register("w1", "t1", {})
    workers.drain("w1")
    let_die(store, "w1")
    workers.register("w1", "t2", {})
    assert workers.beat("w1", "t2", {}) == Heard([])
    assert workers.drain("w1")


def test_drain_of_a_worker_that_is_not_online_says_so(store: Store, workers: Workers) -> None:
    """Neither a dead one nor one that never was is told anything, and no key is left."""
    workers.register("w1", "t1", {})
    let_die(store, "w1")
    for name in ("w1", "w2"):
        with pytest.raises(WorkerGone, match=f"{name}' is online"):
            workers.drain(name)
    assert not store.client.exists(keys.worker("w2"))


def test_dead_worker_is_listed_as_dead(store: Store, workers: Workers) -> None:
    """Until it is reaped it stands on the list."""
    workers.register("w1", "t1", {})
    let_die(store, "w1")
    assert [(worker.name, worker.is_alive) for worker in workers.list()] == [("w1", False)]


# --- retirement -----------------------------------------------------------------------------------------------------


def test_retire_takes_the_worker_off_the_list(store: Store, workers: Workers) -> None:
    """At its own end an agent leaves nothing behind."""
    workers.register("w1", "t1", {})
    assert (workers.retire("w1", "t1"), workers.list(), store.client.keys("{vs}:worker*")) == (True, [], [])


def test_retire_by_another_agent_does_nothing(workers: Workers) -> None:
    """The name is another agent's now."""
    workers.register("w1", "t1", {})
    assert (workers.retire("w1", "t0"), len(workers.list())) == (False, 1)


def test_retire_of_a_dead_worker_that_came_back_does_nothing(workers: Workers) -> None:
    """Between being named and being reaped, a worker may beat again."""
    workers.register("w1", "t1", {})
    assert (workers.retire("w1"), len(workers.list())) == (False, 1)


def test_retire_of_a_dead_worker_twice_is_harmless(store: Store, workers: Workers) -> None:
    """Two reapers may meet."""
    workers.register("w1", "t1", {})
    let_die(store, "w1")
    assert [workers.retire("w1"), workers.retire("w1")] == [True, True]


# --- places in tasks ------------------------------------------------------------------------------------------------


def test_claim_gives_the_first_place_at_once(store: Store) -> None:
    """A task that nobody works on needs a process, even with an empty frontier."""
    assert Process(store, submit(store)).claim() == 1


def test_claim_that_arrives_late_does_nothing(store: Store, workers: Workers) -> None:
    """Its worker has given the place back, for no answer came: nobody would ever run a process in it."""
    taskid, now_ms = submit(store), Tasks(store).now_ms()
    assert workers.claim(taskid, "p", "w1", until_ms=now_ms - 1) == 0
    assert view(store, taskid).number("processes") == 0
    assert workers.claim(taskid, "p", "w1", until_ms=now_ms + 60_000) == 1
    assert workers.claim(taskid, "p", "w1", until_ms=now_ms - 1) == 1, "the place is its own: a repeated call"


def test_claim_gives_no_second_place_for_as_much_as_one_process_can_take(store: Store) -> None:
    """As many requests as one has room for need no second process."""
    taskid = submit(store)
    running(store, taskid, capacity=3).feed(*(request(f"{n}") for n in range(3)))
    assert Process(store, taskid).claim() == 0


def test_claim_gives_places_while_more_waits_than_the_present_ones_can_take(store: Store) -> None:
    """Growth follows what waits."""
    taskid = submit(store)
    running(store, taskid, capacity=3).feed(*(request(f"{n}") for n in range(7)))
    assert [Process(store, taskid).claim() for _ in range(3)] == [2, 3, 0]


def test_claim_keeps_to_the_most_processes(store: Store) -> None:
    """--workers is a limit."""
    taskid = submit(store, max_processes=1)
    running(store, taskid).feed(*(request(f"{n}") for n in range(100)))
    assert Process(store, taskid).claim() == 0


def test_claim_gives_a_new_number_after_a_process_has_left(store: Store) -> None:
    """Numbers name processes in the log; none is used twice."""
    taskid = submit(store)
    running(store, taskid).leave()
    assert Process(store, taskid).claim() == 2


@pytest.mark.parametrize("is_stopped", [True, False])
def test_claim_that_is_repeated_gives_the_same_place(store: Store, is_stopped: bool) -> None:
    """After a lost reply the place is taken, and must be left, whatever has become of the task."""
    process = running(store, submit(store, max_processes=1))
    if is_stopped:
        Tasks(store).stop(process.taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert (process.claim(), Workers(store).processes("w1")) == (1, [(process.taskid, process.name)])


def test_claim_of_another_protocol_is_refused(store: Store) -> None:
    """A task of a newer vscrapy is not run by an older worker."""
    taskid = submit(store)
    store.client.hset(keys.task(taskid), "protocol", 999)
    with pytest.raises(ProtocolMismatch, match=f"task {taskid}"):
        Process(store, taskid).claim()


@pytest.mark.parametrize("taskid", [1, 99])
def test_claim_that_is_refused_leaves_no_trace(store: Store, taskid: int) -> None:
    """Neither a finished nor an unknown task stands among the worker's processes."""
    Tasks(store).stop(submit(store), reason="shutdown", mode=StopMode.GRACEFUL)
    assert (Process(store, taskid).claim(), Workers(store).processes("w1")) == (0, [])


def test_claim_by_a_worker_without_an_entry_does_not_last_for_ever(store: Store) -> None:
    """A worker that was reaped a moment ago may still claim; no heartbeat renews that key."""
    Process(store, submit(store)).claim()
    assert 0 < store.client.ttl(keys.worker_processes("w1")) <= keys.WORKER_TTL_S


def test_release_is_harmless_when_repeated(store: Store) -> None:
    """A place is given up once or twice."""
    process = running(store, submit(store))
    process.leave()
    process.leave()
    assert Workers(store).processes("w1") == []
