"""
Shares of what the sites may see, held against a model: whatever is said, heard late or lost with its process, no site
sees more at once than its limits say, and every download has its turn.

Scripts and :class:`Politeness` are the real ones; the downloader and the threads between are played.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from scrapy.settings import Settings

from tests.integration.downloads import BY_SLOT, DELAY_S, LIMITS, Downloads
from tests.integration.support import faults, request, submit
from vscrapy import keys
from vscrapy.politeness import Politeness
from vscrapy.store.base import Store
from vscrapy.store.frontier import HOME, Committed, Frontier, Lease, Result, leave, share
from vscrapy.store.workers import Workers

N_PROCESSES: Final = 3
#: Rounds in which everything must have had its turn.
MOST_ROUNDS: Final = 400


@dataclass
class Words:
    """What waits for the next call."""

    shares: dict[str, int] = field(default_factory=dict)
    needs: dict[str, int] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


class Party:
    """One process that downloads: home, or a crawl process with leases."""

    def __init__(self, store: Store, taskid: int, name: str, on_start: Callable[[str, str], None]) -> None:
        self.store, self.taskid, self.name = store, taskid, name
        self.downloads = Downloads(lambda slot: on_start(name, slot))
        fake: Any = self.downloads
        self.politeness = Politeness(fake, Settings(BY_SLOT), None)
        self.politeness.begin(self)
        self.words = Words()
        self.replies: deque[tuple[Any, Words]] = deque()
        self.n_commits = 0
        self.leases: list[Lease] = []
        self.pages: dict[str, list[Lease]] = {slot: [] for slot in LIMITS}
        self.last_needs: dict[str, int] = {}

    # The channel.

    def lower_share(self, slot: str, share: int) -> None:
        self.words.shares[slot] = share

    def need(self, slot: str, demand: int, *, is_again: bool = False) -> None:
        self.words.needs[slot] = demand

    def keep_need(self, slot: str) -> bool:
        if self.words.needs.get(slot) != 0:
            return False
        del self.words.needs[slot]
        return True

    # What it does.

    def call(self, wanted: int) -> None:
        """Say what there is to say; the reply is heard later."""
        words, self.words = self.words, Words()
        if self.name == HOME:
            self.last_needs = {slot: n for slot, n in (self.last_needs | words.needs).items() if n}
            words.needs = {**self.last_needs, **words.needs}
            found = share(
                self.store,
                self.taskid,
                HOME,
                shares=words.shares,
                needs=words.needs,
                limits=self.politeness.limits,
            )
            self.replies.append((found, words))
            return
        self.n_commits += 1
        reply = Frontier(self.store, self.taskid, self.name, seal=b"".join).commit(
            self.n_commits, words.results, shares=words.shares, needs=words.needs, wanted=wanted
        )
        self.replies.append((reply, words))

    def hear(self) -> None:
        """The oldest reply arrives."""
        if not self.replies:
            return
        reply, words = self.replies.popleft()
        shares = reply
        if isinstance(reply, Committed):
            self.politeness.add_leases(reply.leases)
            self.leases.extend(reply.leases)
            shares = reply.shares
        self.politeness.use(shares, words.shares, words.needs)

    def begin_page(self) -> None:
        """The engine takes a request."""
        if self.leases:
            lease = self.leases.pop(0)
            self.pages[lease.slot].append(lease)
            self.downloads.put(lease.slot)

    def end_page(self, slot: str) -> None:
        """A callback is through."""
        if self.pages[slot] and len(self.pages[slot]) > self.downloads.active(slot):
            done = [Result("done", self.pages[slot].pop().id)]
            self.politeness.end_leases(done)
            self.words.results += done

    @property
    def is_idle(self) -> bool:
        """Is there nothing to do here?"""
        return not (
            self.leases
            or self.replies
            or self.words != Words()
            or any(self.pages.values())
            or any(map(self.downloads.active, LIMITS))
        )


slots = st.sampled_from(sorted(LIMITS))
parties = st.integers(0, N_PROCESSES)


class SharesMachine(RuleBasedStateMachine):
    """The rules; the store comes with a subclass."""

    store: Store

    @initialize(feed=st.lists(slots, max_size=12))
    def begin(self, feed: list[str]) -> None:
        """Submit the task; three crawl processes join, and home is there."""
        self.taskid = submit(self.store)
        self.starts: dict[str, tuple[str, float]] = {}
        self.too_early: list[str] = []
        self.n_made = 0
        self.parties: dict[int, Party] = {}
        for number in range(N_PROCESSES):
            self.join(number)
        self.parties[N_PROCESSES] = self.party(HOME)
        self.feed(0, feed)

    def party(self, name: str) -> Party:
        """A new one."""
        return Party(self.store, self.taskid, name, self.note_start)

    def join(self, number: int) -> None:
        """A crawl process takes a place."""
        self.n_made += 1
        party = self.party(f"p{self.n_made}")
        # Whether the task needs it is not what is looked at here.
        self.store.client.hset(keys.task(self.taskid), "start", "lost")
        assert Workers(self.store).claim(self.taskid, party.name, "w") > 0
        limits = party.politeness.limits
        Frontier(self.store, self.taskid, party.name, seal=b"".join).join(
            capacity=16, is_lifo=False, is_start_lifo=False, limits=limits
        )
        self.parties[number] = party

    def note_start(self, name: str, slot: str) -> None:
        """A download begins; in a slot with a delay, not too soon after another process's."""
        now_s = time.monotonic()
        before, at_s = self.starts.get(slot, (name, 0.0))
        if slot == "slow" and before != name and now_s - at_s < DELAY_S:
            self.too_early.append(f"{name} began {now_s - at_s:.4f} s after {before}")
        self.starts[slot] = (name, now_s)

    @rule(who=st.integers(0, N_PROCESSES - 1), wanted=st.lists(slots, max_size=4))
    def feed(self, who: int, wanted: list[str]) -> None:
        """A callback yields requests."""
        requests = [request(f"{self.n_made}", slot=slot) for slot in wanted]
        self.parties[who].words.results.append(Result("feed", requests=requests))

    @rule(who=parties, wanted=st.integers(0, 4))
    def call(self, who: int, wanted: int) -> None:
        """A process talks with Redis."""
        self.parties[who].call(wanted)

    @rule(who=parties)
    def hear(self, who: int) -> None:
        """A reply arrives in a process's reactor."""
        self.parties[who].hear()

    @rule(who=parties, wanted=st.integers(0, 4))
    def call_and_hear(self, who: int, wanted: int) -> None:
        """Both, and all that is late."""
        self.parties[who].call(wanted)
        while self.parties[who].replies:
            self.parties[who].hear()

    @rule(who=parties, slot=slots, n=st.integers(1, 5))
    def download(self, who: int, slot: str, n: int) -> None:
        """A pipeline or a callback downloads."""
        for _ in range(n):
            self.parties[who].downloads.put(slot)

    @rule(who=parties)
    def begin_page(self, who: int) -> None:
        """The engine takes a request."""
        self.parties[who].begin_page()

    @rule(who=parties, slot=slots)
    def end_download(self, who: int, slot: str) -> None:
        """The site has answered."""
        if self.parties[who].downloads.running(slot):
            self.parties[who].downloads.end(slot)

    @rule(who=parties, slot=slots)
    def end_page(self, who: int, slot: str) -> None:
        """A callback is through."""
        self.parties[who].end_page(slot)

    @rule(slot=slots)
    def let_time_pass(self, slot: str) -> None:
        """Whoever holds a slot has had its turn."""
        key = f"{keys.prefix(self.taskid)}holders:{slot}"
        for process, value in self.store.client.hgetall(key).items():
            self.store.client.hset(key, process, f"{int(value.split()[0])} 1")

    @rule(who=st.integers(0, N_PROCESSES - 1))
    def die(self, who: int) -> None:
        """A crawl process is killed; its agent says so, and another takes its place."""
        party = self.parties.pop(who)
        leave(self.store, self.taskid, party.name, how="left")
        assert not self.store.client.exists(f"{keys.prefix(self.taskid)}needs:{party.name}")
        self.join(who)

    @invariant()
    def no_site_sees_more(self) -> None:
        """All processes together."""
        for slot, most in LIMITS.items():
            begun = {party.name: party.downloads.running(slot) for party in self.parties.values()}
            assert sum(begun.values()) <= most, f"{slot}: {begun}"
            assert slot != "slow" or sum(map(bool, begun.values())) <= 1, begun
        assert self.too_early == []

    @invariant()
    def shares_add_up(self) -> None:
        """On Redis, too; and each has an owner."""
        assert faults(self.store) == []
        names = {party.name for party in self.parties.values()}
        for slot, most in LIMITS.items():
            holders = self.store.client.hgetall(f"{keys.prefix(self.taskid)}holders:{slot}")
            assert sum(int(value.split()[0]) for value in holders.values()) <= most
            assert {process.decode() for process in holders} <= names

    def teardown(self) -> None:
        """Everything has its turn, and then nobody holds or waits for anything."""
        if hasattr(self, "parties"):
            rounds = 0
            while not all(party.is_idle for party in self.parties.values()) or rounds < 4:
                rounds += 1
                assert rounds < MOST_ROUNDS, self.left()
                for slot in LIMITS:
                    self.let_time_pass(slot)
                for party in self.parties.values():
                    party.call(2)
                    while party.replies:
                        party.hear()
                    party.begin_page()
                    for slot in LIMITS:
                        if party.downloads.running(slot):
                            party.downloads.end(slot)
                        party.end_page(slot)
                    self.no_site_sees_more()
                time.sleep(DELAY_S / 4)
            assert self.store.client.keys(f"{keys.prefix(self.taskid)}holders:*") == []
            assert self.store.client.keys(f"{keys.prefix(self.taskid)}needs:*") == []
        self.store.client.flushall()

    def left(self) -> str:
        """What does not end."""
        client, prefix = self.store.client, keys.prefix(self.taskid)
        redis = {
            name: client.hgetall(name)
            for kind in ("holders", "waiters", "needs", "held")
            for name in client.keys(f"{prefix}{kind}:*")
        }
        here = {
            party.name: (
                party.downloads.queue,
                party.downloads.begun,
                party.leases,
                party.words,
                vars(party.politeness),
            )
            for party in self.parties.values()
            if not party.is_idle
        }
        return f"{redis}, {here}"


def test_shares_hold_whatever_is_called(bare_store: Store) -> None:
    """Any calls in any order, and any replies as late as may be."""
    machine = type("Machine", (SharesMachine,), {"store": bare_store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("VSCRAPY_TEST_EXAMPLES", "60")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
