"""
A model of a task, held against the scripts: a request is waiting, leased or done, exactly one of them.

The model knows what must follow from each call; the invariants are read straight from Redis after each step.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.support import View, begin_at_once, faults, request, submit, view
from vscrapy import keys
from vscrapy.errors import Fenced
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord
from vscrapy.store.frontier import (
    HOME,
    MOST_CRASHES,
    Committed,
    Frontier,
    Joined,
    Lease,
    NewRequest,
    Result,
    leave,
    share,
)
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Offer, Workers

CAPACITY = 2
SLOTS = ("a", "b:1", "é")
QUEUES = ("0", "0s", "10", "9", "-1", "-10s", "1s")
ACTIVE = (TaskState.QUEUED, TaskState.RUNNING)

#: Which slot, which queue, which fingerprint (None: not filtered); few of each, so that they meet.
children = st.lists(
    st.tuples(st.sampled_from(SLOTS), st.sampled_from(QUEUES), st.none() | st.integers(0, 6)), max_size=5
)
deltas = st.dictionaries(st.sampled_from(["n", "m"]), st.sampled_from([1, 2, -1, 0.5]), max_size=2)
needs = st.dictionaries(st.sampled_from(SLOTS), st.integers(0, 2), max_size=2)
facts = st.dictionaries(st.sampled_from(["cookie", "robots"]), st.text(max_size=3), max_size=1)


@dataclass
class Commit:
    """One commit as it was sent."""

    number: int
    results: Sequence[Result]
    options: dict[str, Any]


@dataclass
class Member:
    """What the model knows of a crawl process that has a place."""

    name: str
    number: int
    has_joined: bool = False
    leases: dict[str, Lease] = field(default_factory=dict)
    last: Commit | None = None
    #: Those that were filtered by the last commit.
    duplicates: Sequence[int] = ()
    fact_version: int = 0
    #: It has brought the task on; it was told to leave.
    has_done: bool = False
    is_leaving: bool = False
    frontier: Frontier | None = None


class FrontierMachine(RuleBasedStateMachine):
    """The rules; the store comes with a subclass."""

    store: Store

    @initialize(max_processes=st.integers(0, 3), is_lifo=st.booleans(), is_start_lifo=st.booleans())
    def begin(self, max_processes: int, is_lifo: bool, is_start_lifo: bool) -> None:
        """Submit the task."""
        self.max_processes = max_processes
        self.order: dict[str, Any] = {"is_lifo": is_lifo, "is_start_lifo": is_start_lifo}
        self.taskid = submit(self.store, max_processes=max_processes)
        self.state = TaskState.QUEUED
        self.reason = ""
        self.stop_mode: StopMode | None = None
        self.exit_code = 0
        self.members: list[Member] = []
        self.gone: list[Member] = []
        self.waiting: Counter[bytes] = Counter()
        self.done: Counter[bytes] = Counter()
        self.n_made = self.n_named = self.crashes = self.n_items = self.start_done = self.n_start_items = 0
        self.crash_seq = 0
        self.seen: set[int] = set()
        self.start = "waiting"
        self.start_owner: Member | None = None
        self.idle_owner: Member | None = None
        self.counted: Counter[str] = Counter()
        self.facts: dict[str, tuple[int, str]] = {}
        self.n_facts = 0
        self.waiting_task = submit(self.store)

    # --- calls

    @rule()
    def submit_again(self) -> None:
        """The sender repeats a call whose reply was lost."""
        Tasks(self.store).submit(
            self.taskid, b"other", spider="x", options=TaskOptions(max_processes=9, sender_timeout_ms=9, log_keep=9)
        )

    @rule()
    def give_sign_of_life(self) -> None:
        """The sender is there."""
        sign = Tasks(self.store).sign_of_life(self.taskid)
        assert sign is not None
        assert sign[:2] == (self.state, len(self.members))

    @rule()
    def claim(self) -> None:
        """A worker has a free slot."""
        self.n_named += 1
        name = f"p{self.n_named}"
        is_needed = (
            self.state in ACTIVE
            and not 0 < self.max_processes <= len(self.members)
            and (not self.members or self.start == "lost" or self.waiting.total() > len(self.members) * self.capacity)
        )
        number = Workers(self.store).claim(self.taskid, name, "w")
        assert (number > 0) == is_needed
        if is_needed:
            assert number == 1 + max((member.number for member in [*self.members, *self.gone]), default=0)
            self.members.append(Member(name, number))
            self.state = TaskState.RUNNING

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def claim_again(self, data: st.DataObject) -> None:
        """A worker repeats a call whose reply was lost: in whatever state, the place is its own."""
        member = self.draw_member(data)
        assert Workers(self.store).claim(self.taskid, member.name, "w") == member.number

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """A crawl process is ready, perhaps for the second time."""
        member = self.draw_member(data)
        joined = self.frontier(member).join(capacity=CAPACITY, **self.order)
        assert isinstance(joined, Joined)
        if self.start in ("waiting", "lost"):
            self.start, self.start_owner = "running", member
        start_from = self.start_done if self.start_owner is member and self.start == "running" else None
        assert (joined.state, joined.reason, joined.stop_mode) == (self.state, self.reason, self.stop_mode)
        assert joined.start_from == start_from
        member.has_joined = True

    @precondition(lambda self: any(member.has_joined for member in self.members))
    @rule(
        data=st.data(),
        brood=children,
        wanted=st.integers(0, 20),
        added=deltas,
        new_facts=facts,
        needed=needs,
        is_early=st.booleans(),
    )
    def commit(
        self,
        data: st.DataObject,
        brood: list[tuple[str, str, int | None]],
        wanted: int,
        added: dict[str, float],
        new_facts: dict[str, str],
        needed: dict[str, int],
        is_early: bool,
    ) -> None:
        """A crawl process says what came of its requests, and asks for more."""
        member = data.draw(st.sampled_from([member for member in self.members if member.has_joined]))
        results = [Result("part" if is_early else "feed", requests=self.make(brood))]
        if member.leases:
            ended = data.draw(st.lists(st.sampled_from(sorted(member.leases, key=int)), unique=True))
            n_back = data.draw(st.integers(0, len(ended)))
            results = [
                *(Result("back", id_) for id_ in ended[:n_back]),
                *(Result("done", id_, self.make(data.draw(children)), items=[b"i", b"ii"]) for id_ in ended[n_back:]),
                *results,
            ]
        if self.start_owner is member and self.start == "running":
            n_outputs = data.draw(st.integers(0, 3))
            results.append(Result("start", str(n_outputs), self.make(brood[:n_outputs]), [b"i"] * n_outputs))
            if data.draw(st.booleans()):
                results.append(Result("started"))
        options: dict[str, Any] = {
            "stats": StatChanges(added=added),
            "facts": new_facts,
            "needs": needed,
            "fact_version": member.fact_version,
            "wanted": wanted,
        }
        number = member.last.number + 1 if member.last else 1
        member.last = Commit(number, results, options)
        before = view(self.store, self.taskid)
        reply = self.frontier(member).commit(number, results, **options)
        assert not reply.is_replayed
        member.duplicates = self.note_results(member, results)
        assert reply.duplicates == member.duplicates
        self.note_facts(member, new_facts, reply)
        self.counted.update(added)
        self.note_leases(member, wanted, before, reply)
        self.check_reply(member, reply)

    @rule(needed=needs)
    def ask_for_shares(self, needed: dict[str, int]) -> None:
        """Home downloads, or does not any more; where limits are not kept, there is nothing to share."""
        found = share(self.store, self.taskid, HOME, shares={}, needs=needed)
        is_over = self.state in (TaskState.FINISHED, TaskState.STORING)
        assert found == (None if is_over else {slot: 0 for slot, demand in needed.items() if demand})

    @precondition(lambda self: any(member.last for member in self.members))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A crawl process repeats a commit whose reply was lost."""
        member = data.draw(st.sampled_from([member for member in self.members if member.last]))
        assert member.last is not None
        reply = self.frontier(member).commit(member.last.number, member.last.results, **member.last.options)
        assert reply.is_replayed
        assert reply.duplicates == member.duplicates
        assert {lease.id: lease for lease in reply.leases} == member.leases
        self.check_reply(member, reply)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), how=st.sampled_from(["left", "crashed", "crashed", "failed"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        """A crawl process has ended, or its worker is dead."""
        member = self.draw_member(data)
        self.members.remove(member)
        self.gone.append(member)
        for lease in member.leases.values():
            self.waiting[lease.payload] += 1
        if self.start_owner is member:
            self.start_owner = None
            self.start = "lost" if self.start == "running" else self.start
        if self.idle_owner is member:
            self.idle_owner = None
        if self.state in (TaskState.RUNNING, TaskState.PAUSED):
            if how == "crashed" and member.number > self.crash_seq:
                self.crashes += 1
                self.crash_seq = max(other.number for other in [*self.members, *self.gone])
            if how == "failed" or self.crashes >= MOST_CRASHES:
                self.state, self.exit_code = TaskState.STOPPING, 1
                self.reason = "failed" if how == "failed" else "crashed"
        self.end_if_empty()
        assert leave(self.store, self.taskid, member.name, how=how) is self.state

    @precondition(lambda self: self.members)
    @rule(data=st.data(), least=st.integers(0, 2), is_start_spared=st.booleans(), is_long=st.booleans())
    def ask_to_leave(self, data: st.DataObject, least: int, is_start_spared: bool, is_long: bool) -> None:
        """Another task waits for a slot, and an agent offers it this one's."""
        member = self.draw_member(data)
        has_start = self.start_owner is member and self.start == "running"
        may_go = self.state in (TaskState.RUNNING, TaskState.PAUSED)
        if not member.is_leaving:
            may_go &= sum(not other.is_leaving for other in self.members) - 1 >= least
            may_go &= not (least and has_start and is_start_spared)
            is_start_to_do = has_start or self.start in ("waiting", "lost")
            is_of_use = self.state is TaskState.PAUSED or member.has_done or (is_long and not is_start_to_do)
            may_go &= bool(least) or (self.max_processes != 1 and is_of_use)
        begin_at_once(self.store, self.taskid, member.name)
        self.store.client.hset(keys.task(self.waiting_task), "promised_until_ms", 0)
        offer = Offer(self.taskid, member.name, least, is_start_spared=is_start_spared, is_long=is_long)
        assert Workers(self.store).make_room(self.waiting_task, 0, [offer]) == (offer if may_go else None)
        member.is_leaving |= may_go

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), how=st.sampled_from(["left", "crashed", "failed"]))
    def leave_again(self, data: st.DataObject, how: str) -> None:
        """Agent and reaper both let a process leave."""
        member = data.draw(st.sampled_from(self.gone))
        assert leave(self.store, self.taskid, member.name, how=how) is self.state

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def commit_late(self, data: st.DataObject) -> None:
        """A process that was given up for dead was only slow."""
        member = data.draw(st.sampled_from(self.gone))
        ended = [Result("done", id_, [request("late")], [b"late"]) for id_ in member.leases]
        number = member.last.number if member.last else 1
        for late in (number, number + 1):
            with pytest.raises(Fenced):
                self.frontier(member).commit(late, ended, wanted=5)
        with pytest.raises(Fenced):
            self.frontier(member).join(capacity=9, is_lifo=True, is_start_lifo=True)

    @rule(mode=st.sampled_from(StopMode), reason=st.sampled_from(["shutdown", "closespider_itemcount"]))
    def stop(self, mode: StopMode, reason: str) -> None:
        """Somebody ends the task."""
        if self.state in (*ACTIVE, TaskState.PAUSED):
            self.state, self.reason, self.stop_mode = TaskState.STOPPING, reason, mode
        elif self.state is TaskState.STOPPING and mode is StopMode.FORCED:
            self.stop_mode = mode
        self.end_if_empty()
        assert Tasks(self.store).stop(self.taskid, reason=reason, mode=mode) is self.state

    @rule()
    def pause(self) -> None:
        """Somebody holds the task still."""
        is_changed = self.state in ACTIVE
        self.state = TaskState.PAUSED if is_changed else self.state
        assert Tasks(self.store).pause(self.taskid) == (is_changed, self.state)

    @rule()
    def resume(self) -> None:
        """Somebody lets it go on."""
        is_changed = self.state is TaskState.PAUSED
        if is_changed:
            self.state = TaskState.RUNNING if self.members or self.gone else TaskState.QUEUED
        assert Tasks(self.store).resume(self.taskid) == (is_changed, self.state)

    # --- the model

    @property
    def capacity(self) -> int:
        """What the task holds for a process's capacity: 16 until one has joined."""
        return CAPACITY if any(member.has_joined for member in [*self.members, *self.gone]) else 16

    def frontier(self, member: Member) -> Frontier:
        """The frontier as the process sees it."""
        if member.frontier is None:
            member.frontier = Frontier(self.store, self.taskid, member.name, seal=b"".join)
        return member.frontier

    def draw_member(self, data: st.DataObject) -> Member:
        """One of the processes that have a place."""
        return data.draw(st.sampled_from(self.members))

    def make(self, brood: list[tuple[str, str, int | None]]) -> list[NewRequest]:
        """New requests; every third one equals the one before."""
        made = []
        for slot, queue, seen in brood:
            self.n_made += self.n_made % 3 != 2 or seen is not None
            payload = f"{self.n_made}\n{slot}\n{queue}"
            made.append(
                request(
                    payload, slot=slot, queue=queue, seen=None if seen is None else (f"{seen % 2:04x}", str(seen))
                )
            )
        return made

    def note_results(self, member: Member, results: Sequence[Result]) -> list[int]:
        """Let the results come true; the indexes of the duplicates."""
        duplicates, index = [], 0
        for result in results:
            self.n_items += len(result.items)
            for new in result.requests:
                seen = None if new.seen is None else int(new.seen[1])
                if seen in self.seen:
                    duplicates.append(index)
                else:
                    self.waiting[new.payload] += 1
                    self.counted.update({"scheduler/enqueued": 1, "scheduler/enqueued/memory": 1})
                if seen is not None:
                    self.seen.add(seen)
                index += 1
            member.has_done |= result.what in ("done", "start", "started")
            if result.what in ("done", "back"):
                payload = member.leases.pop(result.id).payload
                (self.done if result.what == "done" else self.waiting)[payload] += 1
                self.crashes = 0 if result.what == "done" else self.crashes
            elif result.what == "start":
                self.start_done += int(result.id)
            elif result.what == "started":
                self.start, self.start_owner = "done", None
        return duplicates

    def note_facts(self, member: Member, new_facts: dict[str, str], reply: Committed) -> None:
        """Facts are told to who does not know them yet."""
        for fact, value in new_facts.items():
            self.n_facts += 1
            self.facts[fact] = (self.n_facts, value)
        assert reply.fact_version == self.n_facts
        assert reply.facts == {
            fact: value for fact, (version, value) in self.facts.items() if version > member.fact_version
        }
        member.fact_version = reply.fact_version

    def note_leases(self, member: Member, wanted: int, before: View, reply: Committed) -> None:
        """As many as are wanted, of those that wait; the first in order of each slot, the slots balanced."""
        n_expected = min(wanted, self.waiting.total()) if self.state is TaskState.RUNNING else 0
        assert len(reply.leases) == n_expected
        for lease in reply.leases:
            assert lease.id not in member.leases
            assert lease.payload.decode().split("\n")[1:] == [lease.slot, lease.queue]
            member.leases[lease.id] = lease
            self.waiting[lease.payload] -= 1
        self.waiting += Counter()  # without the zeros
        after = view(self.store, self.taskid)
        active = Counter(lease.slot for owner in self.members for lease in owner.leases.values())
        for slot in {lease.slot for lease in reply.leases}:
            granted = [_rank(lease.queue) for lease in reply.leases if lease.slot == slot]
            left = [_rank(queue) for other, queue in after.waiting if other == slot]
            assert granted == sorted(granted)
            assert not left or granted[-1] <= min(left)
            for other in {other for other, _ in after.waiting} - {slot}:
                assert active[slot] - 1 <= active[other], f"{slot} had its turn before {other}: {before}, {after}"

    def check_reply(self, member: Member, reply: Committed) -> None:
        """State, counters, and who is told of the end."""
        assert (reply.state, reply.reason, reply.stop_mode) == (self.state, self.reason, self.stop_mode)
        n_leased = sum(len(owner.leases) for owner in self.members)
        assert (reply.queued, reply.leased) == (self.waiting.total(), n_leased)
        is_idle = not self.waiting and not n_leased and self.start == "done" and self.state is TaskState.RUNNING
        if not is_idle:
            self.idle_owner = None
        elif self.idle_owner is None:
            self.idle_owner = member
        assert reply.is_idle == (self.idle_owner is member)

    def end_if_empty(self) -> None:
        """The last one turns off the light."""
        if self.state is TaskState.STOPPING and not self.members:
            self.state = TaskState.FINISHED
            self.waiting.clear()

    # --- what always holds

    @invariant()
    def redis_agrees_with_itself(self) -> None:
        """Counters, sets of slots and queues, owners, lifetimes."""
        assert faults(self.store) == []

    @invariant()
    def every_request_is_waiting_leased_or_done(self) -> None:
        """What stands on Redis is what the model knows."""
        found = view(self.store, self.taskid)
        assert found.state is self.state
        assert found.payloads() == self.waiting
        assert found.leased == {
            member.name: {lease.id: (lease.slot, lease.queue, lease.payload) for lease in member.leases.values()}
            for member in self.members
            if member.leases
        }
        assert set(found.processes) == {member.name for member in self.members}
        assert (found.record["start"], int(found.record["start_done"])) == (self.start, self.start_done)

    @invariant()
    def items_and_stats_are_counted_once(self) -> None:
        """However often a commit was repeated."""
        entries = self.store.client.xrange(keys.items(self.taskid))
        assert sum(int(fields[b"n"]) for _, fields in entries) == self.n_items
        counted, _ = Tasks(self.store).stats(self.taskid)
        assert counted == {name: number for name, number in self.counted.items() if name in counted}
        assert not any(number for name, number in self.counted.items() if name not in counted)

    @invariant()
    def end_is_told_once(self) -> None:
        """The end record stands in the log exactly when the task has ended."""
        logs = Streams(self.store).last_lines(self.taskid, 1)
        is_over = self.state is TaskState.FINISHED
        ends = [entry.end for entry in logs if not entry.is_joined]
        assert ends == ([EndRecord(self.reason, self.exit_code)] if is_over else [])

    def teardown(self) -> None:
        """The next example begins with an empty server."""
        self.store.client.flushall()


def _rank(queue: str) -> tuple[int, bool]:
    """The smaller, the earlier."""
    return -int(queue.removesuffix("s")), queue.endswith("s")


def test_frontier_agrees_with_its_model_whatever_is_called(bare_store: Store) -> None:
    """Any calls in any order, by any number of processes, leave every request in exactly one place."""
    machine = type("Machine", (FrontierMachine,), {"store": bare_store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("VSCRAPY_TEST_EXAMPLES", "100")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
