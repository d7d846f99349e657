"""
The thread that talks to Redis for one crawl process: results out, leases in.

The reactor never waits for it. It hands over results and says how many leases it wants; replies come back as
calls in the reactor's thread. A commit whose reply was lost is repeated with the same number, so it is done
once. Without Redis the crawl goes on with the leases it has, and results wait here.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from vscrapy.errors import Fenced, StoreRefused, StoreUnavailable, TaskGone
from vscrapy.states import StopMode, TaskState
from vscrapy.stats import merge
from vscrapy.store.frontier import Committed, Frontier, Joined, Limits, Result, Unconfirmed
from vscrapy.store.stat_changes import StatChanges

if TYPE_CHECKING:
    from vscrapy.store.tasks import Tasks

logger = logging.getLogger("vscrapy")

#: Exit code of a process that was given up for dead; its agent has nothing to give back.
FENCED: Final = 71
#: Time between two looks at the task when there is nothing to say and nothing to ask (seconds).
LOOK_S: Final = 0.5
#: Longest wait for the sender to confirm a provisional task, until the next look at it (ms): it may be stopped.
CONFIRM_LOOK_MS: Final = 500
#: Waits between two empty replies while leases are wanted (seconds): the first, and the longest.
HUNGRY_FIRST_S: Final = 0.005
HUNGRY_MOST_S: Final = 0.2
#: The longest wait before Redis is asked again after a failure (seconds).
RETRY_MOST_S: Final = 0.5
#: The longest wait, at a task's end, for its other processes to commit all they did (seconds); and between two looks.
OTHERS_MOST_S: Final = 30.0
OTHERS_LOOK_S: Final = 0.2
#: Results in one commit at most.
BATCH: Final = 200
#: Time in which results gather for a commit while there are leases enough (seconds): a commit costs Redis and this
#: process as much as several pages do. In turn: plenty waits on Redis, for all processes, and for one that comes;
#: something waits there; nothing does that others could take.
GATHER_LONG_S: Final = 0.2
GATHER_S: Final = 0.05
GATHER_SHORT_S: Final = 0.02


@dataclass(slots=True)
class Outbox:
    """What the reactor's thread has handed over and no commit has taken yet."""

    results: list[Result] = field(default_factory=list)
    #: Changes of counted stats.
    stats: StatChanges = field(default_factory=StatChanges)
    stat_values: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    #: Downloader slot -> downloads there, perhaps without a lease; 0: none any more.
    needs: dict[str, int] = field(default_factory=dict)
    #: What the task counts, not as a stat: name -> so many more.
    counts: dict[str, int] = field(default_factory=dict)
    #: Counts that begin anew.
    restarted: set[str] = field(default_factory=set)
    #: They do not wait for results to leave with.
    is_urgent: bool = False

    def add_stats(self, delta: StatChanges, stat_values: str) -> None:
        """Put changes of stats on top of those that wait."""
        self.stats = self.stats.plus(delta)
        self.stat_values = stat_values or self.stat_values

    @property
    def is_pressing(self) -> bool:
        """Does somebody wait for what is in it?"""
        return bool(self.is_urgent or self.facts or self.shares or self.needs)

    @property
    def is_empty(self) -> bool:
        """Is there nothing to commit? Needs have a time of their own."""
        has_stats = self.stats.are_there or self.stat_values
        return not (self.results or has_stats or self.facts or self.shares or self.is_urgent)

    @property
    def is_blank(self) -> bool:
        """Would a commit of it say nothing at all?"""
        return self.is_empty and not (self.needs or self.counts or self.restarted)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What is called in the reactor's thread."""

    #: With the reply, and how far Redis's clock is ahead of this machine's (seconds).
    on_joined: Callable[[Joined, float], None]
    #: With the reply, what was committed with it, and the leases that were asked for.
    on_committed: Callable[[Committed, Outbox, int], None]
    #: With shares, while commits are refused; and the lowered shares and the needs that they were asked for with.
    on_shares: Callable[[Mapping[str, int], Mapping[str, int], Mapping[str, int]], None]
    #: With the whole task's stats, where the task ends.
    on_closed: Callable[[dict[str, Any] | None], None]


class Session:
    """
    One crawl process's conversation with the store.

    Args:
        gathers: A commit may wait for more results, as long as nobody waits for it.
        call: Runs a function in the reactor's thread, from any thread.
        end_process: Ends the process, with an exit code; a crawl process can be given up at any moment.
    """

    def __init__(
        self,
        frontier: Frontier,
        tasks: Tasks,
        taskid: int,
        *,
        capacity: int,
        is_lifo: bool,
        is_start_lifo: bool,
        limits: Limits,
        counts_filtered: bool,
        gathers: bool,
        callbacks: Callbacks,
        call: Callable[..., Any],
        end_process: Callable[[int], NoReturn],
    ) -> None:
        self._frontier = frontier
        self._tasks = tasks
        self._taskid = taskid
        self._capacity = capacity
        self._join = partial(
            frontier.join, capacity=capacity, is_lifo=is_lifo, is_start_lifo=is_start_lifo, limits=limits
        )
        self._counts_filtered = counts_filtered
        self._gathers = gathers
        self._callbacks = callbacks
        self._call = call
        self._end_process = end_process
        self._condition = threading.Condition()
        self._outbox = Outbox()
        self._wanted = 0
        #: Leases that have not begun.
        self._n_leases = 0
        self._is_gathering = False
        #: At the last reply, plenty waited on Redis.
        self._has_plenty = False
        #: How long a commit may wait for more results, by what waited (seconds).
        self._gather_s = GATHER_SHORT_S
        #: So many results go into the next commit at most.
        self._cut = BATCH
        #: Leases are not asked for before this (monotonic seconds): the last reply had none.
        self._hungry_from_s = 0.0
        self._hungry_pause_s = 0.0
        #: Needs are not told again before this.
        self._needy_from_s = math.inf
        self._needy_pause_s = 0.0
        self._is_counting = False
        self._stop_reason: str | None = None
        self._stops_if_idle = False
        self._is_closing = False
        self._is_with_others = False
        self._number = 0
        self._fact_version = 0
        self._is_store_lost = False
        #: What is being committed.
        self._sent = Outbox()
        self._held: set[str] = set()
        self._thread = threading.Thread(target=self._run_or_end, name="vscrapy-session", daemon=True)

    # Called in the reactor's thread.

    @property
    def together(self) -> AbstractContextManager[Any]:
        """A context: what is handed over, told and wanted within it leaves in one commit."""
        return self._condition

    def start(self) -> None:
        """Join the task; ``on_joined`` is called with what it says."""
        self._thread.start()

    def put(self, results: Sequence[Result], stats: StatChanges, stat_values: str) -> None:
        """Hand over results, with the changes of stats up to now."""
        with self._condition:
            self._outbox.results.extend(results)
            self._outbox.add_stats(stats, stat_values)
            if not self._is_gathering or len(self._outbox.results) >= BATCH:
                self._condition.notify()

    def tell(self, fact: str, value: str) -> None:
        """Let all crawl processes of the task know; before, or together with, the requests put after this."""
        with self._condition:
            self._outbox.facts[fact] = value
            self._condition.notify()

    def lower_share(self, slot: str, share: int) -> None:
        """Say that no more than *share* downloads of this slot run here any more."""
        with self._condition:
            self._outbox.shares[slot] = share
            self._condition.notify()

    def need(self, slot: str, demand: int, *, is_again: bool = False) -> None:
        """Say how many downloads of a slot there are here, perhaps without a lease; 0: none any more."""
        with self._condition:
            self._outbox.needs[slot] = demand
            if is_again:
                self._needy_pause_s = min(max(self._needy_pause_s * 2, HUNGRY_FIRST_S), HUNGRY_MOST_S)
                self._needy_from_s = min(self._needy_from_s, time.monotonic() + self._needy_pause_s)
            elif demand:
                self._needy_pause_s = self._needy_from_s = 0.0
            self._condition.notify()

    def keep_need(self, slot: str) -> bool:
        """Unsay that there are no more downloads of a slot; False: it has left."""
        with self._condition:
            return self._outbox.needs.get(slot) == 0 and self._outbox.needs.pop(slot) == 0

    def counts_for_task(self) -> None:
        """Ask with each commit what the whole task has counted."""
        self._is_counting = True

    def count(self, name: str, *, is_urgent: bool = False) -> None:
        """Count one more, for the whole task; it leaves with the next results, or at once."""
        with self._condition:
            self._outbox.counts[name] = self._outbox.counts.get(name, 0) + 1
            if is_urgent:
                self._outbox.is_urgent = True
                self._condition.notify()

    def restart(self, name: str) -> None:
        """Count from zero again, for the whole task."""
        with self._condition:
            self._outbox.counts[name] = 0
            self._outbox.restarted.add(name)

    def knows_better(self, fact: str) -> bool:
        """Is a newer value of this fact still on its way from here?"""
        return fact in self._outbox.facts

    def want(self, leases: int, *, is_strict: bool = False) -> None:
        """
        Say how many leases there is room for; until a commit has asked for them, the last word counts.

        Args:
            is_strict: Choose them before anything counts that is put after this.
        """
        with self._condition:
            self._wanted = leases
            self._cut = len(self._outbox.results) if is_strict else BATCH
            self._condition.notify()

    def look(self) -> None:
        """Ask at once how the task is. From any thread."""
        with self._condition:
            self._outbox.is_urgent = True
            self._condition.notify()

    def feed(self, n_leases: int) -> None:
        """Say how many leases have not begun: a commit may wait for more results while these are enough."""
        was_fed = self._is_fed
        self._n_leases = n_leases
        if was_fed and not self._is_fed:
            with self._condition:
                self._condition.notify()

    @property
    def _is_fed(self) -> bool:
        # Of plenty, the next leases come with the next reply for sure.
        return self._n_leases * (4 if self._has_plenty else 2) > self._capacity

    @property
    def waiting(self) -> int:
        """Results that no commit has taken yet."""
        return len(self._outbox.results)

    def stop_task(self, reason: str, *, if_idle: bool) -> None:
        """Give the task its reason to end; *if_idle*: unless there is something to do again."""
        with self._condition:
            if self._stop_reason is None:
                self._stop_reason, self._stops_if_idle = reason, if_idle
            self._condition.notify()

    def close(self, *, is_with_others: bool) -> None:
        """
        Commit what waits, give back what was not run, and end; ``on_closed`` is called then.

        Args:
            is_with_others: At the task's end, wait until all of its processes have come so far.
        """
        with self._condition:
            self._is_closing = True
            self._is_with_others = is_with_others
            self._wanted = 0
            self._condition.notify()

    def finish(self, stats: StatChanges, stat_values: str, *, timeout_s: float) -> None:
        """After the loop has ended: commit the last stats, here and now."""
        self._thread.join(timeout_s)
        deadline = time.monotonic() + timeout_s
        if not self._thread.is_alive():
            outbox, self._outbox = self._outbox, Outbox()
            outbox.add_stats(stats, stat_values)
            self._number += 1
            self._insist(partial(self._commit, outbox, 0), give_up=lambda: time.monotonic() > deadline)

    # Runs in the session's own thread.

    def _run_or_end(self) -> None:
        """Without this thread nothing is committed: a defect in it ends the process, and others go on."""
        try:
            self._run()
        except Exception:
            logger.exception("vscrapy: a defect in the session; this crawl process ends")
            self._end_process(1)

    def _run(self) -> None:
        # Redis's clock counts: those of the machines may be wrong, and a crawl has one begin and one end.
        ahead_s = self._insist(self._ahead_s)
        while isinstance(joined := self._insist(self._join), Unconfirmed):
            self._insist(partial(self._frontier.wait_for_word, joined, most_ms=CONFIRM_LOOK_MS))
        self._call(self._callbacks.on_joined, joined, ahead_s)
        is_last = False
        while not is_last:
            outbox, wanted, reason, is_last = self._next()
            if reason is not None:
                stop = partial(self._tasks.stop, self._taskid, if_idle=self._stops_if_idle)
                self._insist(partial(stop, reason=reason, mode=StopMode.GRACEFUL))
            if (reason is not None or is_last) and outbox.is_blank:
                continue  # the spider closes, and there is nothing left to say
            self._number += 1
            self._sent = outbox
            reply: Committed = self._insist(partial(self._commit, outbox, wanted))
            self._sent = Outbox()
            if reply.stop_mode is StopMode.FORCED:
                self._end_process(0)
            if reply.is_replayed:
                reply = self._sort_out(reply)
            self._held.update(lease.id for lease in reply.leases)
            self._held.difference_update(r.id for r in outbox.results if r.what in ("done", "back"))
            self._fact_version = reply.fact_version
            self._learn(reply)
            self._pace(reply, wanted)
            self._call(self._callbacks.on_committed, reply, outbox, wanted)
        self._call(self._callbacks.on_closed, self._all_stats())

    def _ahead_s(self) -> float:
        """How far Redis's clock is ahead, at least: its reply may have taken any part of the time between."""
        before_s = time.time()
        redis_s = self._tasks.now_ms() / 1000
        after_s = time.time()
        return max(0.0, redis_s - after_s) + min(0.0, redis_s - before_s)

    def _all_stats(self) -> dict[str, Any] | None:
        """Where the task ends: the stats of the whole of it, when the others have committed theirs."""
        if not self._is_with_others:
            return None
        deadline_s = time.monotonic() + OTHERS_MOST_S
        pause_s = HUNGRY_FIRST_S

        def is_late() -> bool:
            return time.monotonic() > deadline_s

        while (reply := self._insist(self._frontier.closing, is_late)) is not None:
            if reply.stop_mode is StopMode.FORCED:
                self._end_process(0)
            if reply.state is not TaskState.STOPPING:
                return None
            if not reply.n_others or is_late():
                break
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, OTHERS_LOOK_S)
        found = self._insist(partial(self._tasks.stats, self._taskid), is_late)
        return None if found is None else merge(*found)

    def _next(self) -> tuple[Outbox, int, str | None, bool]:
        """Wait for something to do; the outbox to commit, leases wanted, a reason to stop, is it the last?"""
        look_s = time.monotonic() + LOOK_S
        with self._condition:
            while self._outbox.is_empty and self._stop_reason is None and not self._is_closing:
                until_s = min(look_s, self._needy_from_s)
                if self._wanted:
                    until_s = min(until_s, self._hungry_from_s)
                pause_s = until_s - time.monotonic()
                if pause_s <= 0:
                    break
                self._condition.wait(pause_s)
            self._gather()
            outbox, self._outbox = self._outbox, Outbox()
            self._needy_from_s = math.inf
            cut, self._cut = min(self._cut, BATCH), BATCH
            self._outbox.results = outbox.results[cut:]  # facts go first, with the earlier results
            outbox.results = outbox.results[:cut]
            reason, self._stop_reason = self._stop_reason, None
            # Some may have begun since they were asked for.
            wanted, self._wanted = max(self._wanted, self._capacity - self._n_leases) if self._wanted else 0, 0
            return outbox, wanted, reason, self._is_closing and self._outbox.is_empty

    def _learn(self, reply: Committed) -> None:
        """How long may the next commit wait for more results?"""
        self._has_plenty = reply.queued >= max(reply.leased, 2 * self._capacity)
        if reply.queued == 0:
            self._gather_s = GATHER_SHORT_S
        # Where it is counted for the whole task, the others wait for what this process has counted.
        elif self._has_plenty and not self._is_counting:
            self._gather_s = GATHER_LONG_S
        else:
            self._gather_s = GATHER_S

    def _can_wait(self) -> bool:
        """Does nobody wait for what is in the outbox?"""
        if not self._gathers or self._is_closing or self._stop_reason or self._outbox.is_pressing:
            return False
        # Where leases are short, a wish for them does not wait; nor do results, which may bring requests.
        return self._is_fed or (self._has_plenty and not self._wanted)

    def _gather(self) -> None:
        """Wait for more results, as long as nobody waits for these; a wish for leases leaves together with some."""
        until_s = time.monotonic() + self._gather_s
        self._is_gathering = True
        while (
            self._can_wait()
            and (self._outbox.results or self._wanted)
            and len(self._outbox.results) < BATCH
            and (pause_s := until_s - time.monotonic()) > 0
        ):
            self._condition.wait(pause_s)
        self._is_gathering = False

    def _pace(self, reply: Committed, wanted: int) -> None:
        """After an empty reply, wait before asking again; results that are committed ask along at once."""
        if reply.state is TaskState.PAUSED:
            self._hungry_pause_s = 0.0
            self._hungry_from_s = time.monotonic() + LOOK_S
            return
        if not wanted:
            if reply.queued:
                self._hungry_from_s = 0.0  # these results had requests, or somebody's had: the next to ask gets some
            return
        if reply.leases:
            self._hungry_pause_s = 0.0
        elif reply.queued == 0 and reply.leased <= len(self._held):
            # All that is leased is ours: new requests can only come from our own results.
            self._hungry_pause_s = LOOK_S
        else:
            self._hungry_pause_s = min(max(self._hungry_pause_s * 2, HUNGRY_FIRST_S), HUNGRY_MOST_S)
        self._hungry_from_s = time.monotonic() + self._hungry_pause_s

    def _commit(self, outbox: Outbox, wanted: int) -> Committed:
        return self._frontier.commit(
            self._number,
            outbox.results,
            stats=outbox.stats,
            stat_values=outbox.stat_values,
            facts=outbox.facts,
            fact_version=self._fact_version,
            shares=outbox.shares,
            needs=outbox.needs,
            counts=outbox.counts if self._is_counting else None,
            restarted=outbox.restarted,
            counts_filtered=self._counts_filtered,
            wanted=wanted,
        )

    def _share(self) -> None:
        """
        Commits are refused, as when Redis is out of memory: let others have their shares all the same.

        Home may be one of them, and what it takes frees memory.
        """
        with self._condition:
            # Not again with the commit, which would say them after what is newer.
            shares, self._sent.shares = self._sent.shares | self._outbox.shares, {}
            needs, self._sent.needs = self._sent.needs | self._outbox.needs, {}
            self._outbox.shares, self._outbox.needs = {}, {}
        try:
            found = self._frontier.share(shares=shares, needs=needs)
        except (StoreUnavailable, StoreRefused):
            with self._condition:
                self._outbox.shares = shares | self._outbox.shares
                self._outbox.needs = needs | self._outbox.needs
        else:
            self._call(self._callbacks.on_shares, found, shares, needs)

    def _sort_out(self, reply: Committed) -> Committed:
        """After a lost reply: keep of the process's leases those that are new to us."""
        return replace(reply, leases=[lease for lease in reply.leases if lease.id not in self._held])

    def _insist(self, ask: Callable[[], Any], give_up: Callable[[], bool] = lambda: False) -> Any:
        """Ask until Redis answers; end the process when it is not wanted any more."""
        pause_s = 0.02
        while True:
            try:
                reply = ask()
            except (Fenced, TaskGone) as error:
                logger.error("vscrapy: %s; this crawl process ends, its unfinished requests go to others", error)
                self._end_process(FENCED)
            except (StoreUnavailable, StoreRefused) as error:
                if not self._is_store_lost:
                    logger.warning("vscrapy: %s; the crawl goes on with what it has", error)
                    self._is_store_lost = True
                if give_up():
                    return None
                if isinstance(error, StoreRefused) and self._number:
                    self._share()
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MOST_S)
            else:
                if self._is_store_lost:
                    logger.info("vscrapy: Redis answers again")
                    self._is_store_lost = False
                return reply
