"""
The frontier of one task as one crawl process sees it: join, commit, leave.

A request is waiting, leased or done, exactly one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from vscrapy import keys
from vscrapy.errors import Fenced, TaskGone
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store, text
from vscrapy.store.connection import translate
from vscrapy.store.stat_changes import StatChanges, is_finite

#: Crashes in a row, without one finished request, that end a task.
MOST_CRASHES: Final = 5
#: Requests that failed for good, and that are kept of a task.
MOST_FAILURES: Final = 1000
#: So many processes die with a request in hand, all but the first with it alone, until it is given up.
MOST_DEATHS: Final = 4
#: A process that found nothing to do has left: the task does not grow for this long (ms).
STARVED_PAUSE_MS: Final = 30_000
#: How often the feeds of a detached task are tried, and the wait after the first try (ms); it doubles with each.
MOST_FEED_TRIES: Final = 5
FEED_WAIT_MS: Final = 2000
#: Items of one signed batch at most, and what they are pickled (bytes), unless one is larger by itself.
BATCH_ITEMS: Final = 1000
BATCH_BYTES: Final = 2**20
#: Stats that the task's record has, too: pages, items and errors.
_TOLD: Final = ("response_received_count", "item_scraped_count", "log_count/ERROR")
#: What a process has counted is added up when it is longer than this (bytes).
CHANGES_BYTES: Final = 4096
#: What home is called where a crawl process has its name.
HOME: Final = "home"


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on one request."""

    id: str
    #: Downloader slot.
    slot: str
    #: Priority, and ``s`` for a start request.
    queue: str
    #: The signed request. What stands above is not signed: it only says where it was.
    payload: bytes


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request on its way into the frontier."""

    slot: str
    queue: str
    payload: bytes
    #: Where its fingerprint stands (:func:`vscrapy.wire.fingerprint_place`); None: not filtered.
    seen: tuple[str, str] | None = None

    @classmethod
    def claim(cls, name: str, seen: tuple[str, str] | None) -> NewRequest:
        """
        Claim a request that stays on its process: it is a duplicate if it was seen, or another process has it.

        Args:
            name: The same in all processes of the task for a request that is filtered, else unique.
        """
        return cls(name, "claim", b"", seen)

    @property
    def settled(self) -> NewRequest:
        """What ends a claim: the request is done, and counts as seen."""
        return NewRequest(self.slot, "settled", b"", self.seen)


@dataclass(frozen=True, slots=True)
class NewFailure:
    """A request that failed for good, on its way into the task's list."""

    #: Of the lease that the same commit ends; empty: the request cannot be put back.
    lease: str
    #: The signed :class:`~vscrapy.wire.Failure`.
    signed: bytes
    #: What is put back, signed; empty: the request as it was leased.
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one request, or of some outputs of ``start()``, or of nobody in particular."""

    #: ``done``, ``part``, ``back``, ``start``, ``started``, ``feed``: see ``commit.lua``.
    what: str
    #: Lease id, or the count of start outputs.
    id: str = ""
    requests: Sequence[NewRequest] = ()
    #: Pickled items.
    items: Sequence[bytes] = ()
    failures: Sequence[NewFailure] = ()
    #: What was counted on behalf of it.
    stats: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a site may see of the whole task, in each downloader slot."""

    #: Most concurrent downloads of one site; 0: not kept.
    most: int = 0
    #: Time between two downloads (ms), the longest that randomness may make it.
    delay_ms: int = 0
    #: Slots with limits of their own: slot -> (most, delay_ms).
    special: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def args(self) -> Iterator[str | int]:
        """As the scripts have them: most, delay, and each special slot with its own."""
        yield from (self.most, self.delay_ms)
        for slot, (most, delay_ms) in self.special.items():
            yield from (slot, f"{most}:{delay_ms}")


@dataclass(frozen=True, slots=True)
class Joined:
    """The reply to a crawl process that joins."""

    state: TaskState
    reason: str
    stop_mode: StopMode | None
    #: Run ``start()`` and skip so many of its outputs; None: another process does.
    start_from: int | None
    #: Time since the task's first crawl process joined (seconds).
    elapsed_s: float
    #: The fact ``state``: what was kept of the spider's state in an earlier run; '': nothing.
    spider_state: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The reply to one that joins before the sender has confirmed the task: nothing was done."""

    #: The last entry of the task's log.
    cursor: str


@dataclass(frozen=True, slots=True)
class Closing:
    """The reply to a crawl process that is about to close its spider."""

    state: TaskState
    stop_mode: StopMode | None
    #: Crawl processes of the task that have more to commit.
    n_others: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The reply to a commit."""

    state: TaskState
    reason: str
    stop_mode: StopMode | None
    #: Requests that wait, and that are leased, in the whole task.
    queued: int
    leased: int
    #: The task is idle, and this process is the one that is told.
    is_idle: bool
    #: Indexes of requests that were filtered as seen, over all requests of the commit.
    duplicates: Sequence[int]
    #: New leases; after a lost reply, all leases of the process.
    leases: Sequence[Lease]
    #: Version of the task's facts, and those that are new to the process.
    fact_version: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    #: Downloader slot -> the concurrency that this process may use there.
    shares: Mapping[str, int] = field(default_factory=dict)
    #: What the whole task has counted, where that was asked for.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: The process that ran ``start()`` is gone, and no other has taken it up.
    is_start_lost: bool = False
    #: Too many items wait to be fetched: there are no leases until they are.
    is_held: bool = False
    #: And this process is the one that says so.
    tells_held: bool = False
    #: The lease that runs alone: a process has died with it in hand. '': none.
    suspect: str = ""
    #: The commit had been done before, and its reply was lost; ``duplicates`` are those of then.
    is_replayed: bool = False


def _mode(value: bytes) -> StopMode | None:
    return StopMode(text(value)) if value else None


def _leases(flat: list[bytes]) -> list[Lease]:
    leases = []
    for id_, held in zip(flat[::2], flat[1::2], strict=True):
        slot, queue, payload = (*held.split(b"\n", 2), b"", b"")[:3]  # what is none of ours has no such parts
        leases.append(Lease(text(id_), text(slot), text(queue), payload))
    return leases


def _committed(status: str, reply: Sequence[Any]) -> Committed:
    return Committed(
        state=TaskState(text(reply[1])),
        reason=text(reply[2]),
        stop_mode=_mode(reply[3]),
        queued=int(reply[4]),
        leased=int(reply[5]),
        is_idle=bool(reply[6]),
        duplicates=[index for index, fate in enumerate(text(reply[7])) if fate == "1"],
        leases=_leases(reply[8] or []),
        fact_version=int(reply[9]),
        facts={text(id_): text(value) for id_, value in _pairs(reply[10])},
        shares={text(slot): int(share) for slot, share in _pairs(reply[11])},
        is_start_lost=bool(reply[12]),
        counts={text(name): int(count) for name, count in _pairs(reply[13])},
        is_held=reply[14] > 0,
        tells_held=reply[14] == 2,
        suspect=text(reply[15]),
        is_replayed=status == "replayed",
    )


class Frontier:
    """
    One crawl process's side of its task's frontier.

    Args:
        seal: Makes a signed batch of pickled items.
    """

    def __init__(self, store: Store, taskid: int, process: str, *, seal: Callable[[Sequence[bytes]], bytes]) -> None:
        self._store = store
        self._taskid = taskid
        self._process = process
        self._seal = seal
        #: What it has counted and Redis has not added up: with the last commit, and before it.
        self._changes = StatChanges()
        self._before = StatChanges()
        self._number = 0
        #: Downloader slots of its leases, by their ids.
        self._slots: dict[str, str] = {}

    def join(
        self, *, capacity: int, is_lifo: bool, is_start_lifo: bool, limits: Limits | None = None
    ) -> Joined | Unconfirmed:
        """
        Say that the process is ready, and take ``start()`` if nobody has it. Safe to call again.

        Raises:
            TaskGone: The task has expired.
            Fenced: The process was given up for dead.
        """
        limits = limits or Limits()
        args: list[Any] = [self._process, max(1, capacity), int(is_lifo), int(is_start_lifo), *limits.args()]
        reply = self._store.run(
            "join",
            [
                *(keys.task(self._taskid), keys.processes(self._taskid)),
                *(keys.limits(self._taskid), keys.facts(self._taskid), keys.log(self._taskid)),
            ],
            args,
        )
        if reply[0] == b"wait":
            return Unconfirmed(text(reply[1]))
        self._check(reply[0])
        start = int(reply[4])
        return Joined(
            TaskState(text(reply[1])),
            text(reply[2]),
            _mode(reply[3]),
            None if start < 0 else start,
            int(reply[5]) / 1000,
            text(reply[6]),
        )

    def wait_for_word(self, since: Unconfirmed, *, most_ms: int) -> None:
        """Wait until the task's log says more than it did: that it was confirmed, perhaps."""
        with translate(self._store.endpoint):
            self._store.client.xread({keys.log(self._taskid): since.cursor}, count=1, block=most_ms)

    def commit(
        self,
        number: int,
        results: Sequence[Result],
        *,
        stats: StatChanges | None = None,
        stat_values: str = "",
        facts: Mapping[str, str] | None = None,
        fact_version: int = 0,
        shares: Mapping[str, int] | None = None,
        needs: Mapping[str, int] | None = None,
        counts: Mapping[str, int] | None = None,
        restarted: Collection[str] = (),
        counts_filtered: bool = False,
        wanted: int = 0,
    ) -> Committed:
        """
        End leases with all that came of them, in one step, and claim up to *wanted* requests.

        Safe to call again with the same *number*: the commit is done once.

        Args:
            number: 1 for the process's first commit, then one more each time.
            stat_values: JSON object of the stats that were set; empty: as before.
            facts: What all processes of the task shall know; visible with the commit's requests, not after.
            fact_version: The facts that the process knows.
            shares: Downloader slot -> smaller share of its concurrency that the process has come down to.
            needs: Downloader slot -> downloads there, perhaps without a lease; 0: none any more. Until then the
                process keeps its share; one that was not given is to be asked for again.
            counts: What the task counts, not as a stat: name -> so many more; None: nothing, and nobody asks.
            restarted: Names of counts that begin anew, at the number in *counts*.
            counts_filtered: Count the duplicates as Scrapy's own filter does.
            wanted: Leases wanted, 0 to 500; where there are other processes, it gets its part of what waits at most.

        Raises:
            TaskGone: The task has expired.
            Fenced: The process was given up for dead; nothing was committed.

        Keys: moves requests between the queues and ``leases(task, process)``; appends to ``items(task)``.
        """
        task = self._taskid
        facts = facts or {}
        since = _changes_of(stats or StatChanges(), results)
        changes = self._with_those_before(number, since)
        packed = changes.packed()
        is_long = len(packed) > CHANGES_BYTES
        args: list[Any] = [keys.prefix(task), self._process, number, min(wanted, 500), stat_values]
        args.extend((fact_version, int(counts_filtered), packed, int(is_long), len(facts)))
        for fact in facts.items():
            args.extend(fact)
        args.extend(_numbers(shares or {}))
        args.extend(_numbers(needs or {}))
        args.append(-1 if counts is None else len(counts))
        for name, count in (counts or {}).items():
            args.extend((name, "=" if name in restarted else "+", count))
        args.extend(_whole(since.added.get(name, 0)) for name in _TOLD)
        args.extend(self._result_args(results))
        reply = self._store.run(
            "commit",
            [
                keys.task(task),
                keys.processes(task),
                keys.leases(task, self._process),
                keys.items(task),
                keys.commits(task),
                keys.stat_values(task),
                keys.facts(task),
                keys.fact_versions(task),
                keys.failures(task),
            ],
            args,
        )
        status = self._check(reply[0])
        self._changes = StatChanges() if is_long else changes
        for result in results:
            if result.what in ("done", "back"):
                self._slots.pop(result.id, None)
        committed = _committed(status, reply)
        self._slots.update((lease.id, lease.slot) for lease in committed.leases)
        return committed

    def _with_those_before(self, number: int, since: StatChanges) -> StatChanges:
        """All that is counted and not added up, with this commit; the same when it is repeated."""
        if number != self._number:
            self._number, self._before = number, self._changes
        return self._before.plus(since)

    def _result_args(self, results: Sequence[Result]) -> Iterable[Any]:
        failures = [failure for result in results for failure in result.failures]
        yield from (MOST_FAILURES, len(failures))
        for failure in failures:
            yield from (failure.lease, failure.signed, failure.payload)
        batches = list(_batches(item for result in results for item in result.items))
        yield len(batches)
        for batch in batches:
            yield from (self._seal(batch), len(batch))
        yield from _request_args(request for result in results for request in result.requests)
        done: dict[str, list[str]] = {}
        others = []
        for result in results:
            slot = self._slots.get(result.id) if result.what == "done" else None
            if slot is None:
                others.append(result)
            else:
                done.setdefault(slot, []).append(result.id)
        yield len(done)
        for slot, ids in done.items():
            yield from (slot, len(ids), *ids)
        yield len(others)
        for result in others:
            yield from (result.what, result.id)

    def closing(self) -> Closing:
        """
        Say that all is committed, and ask whether others still crawl. Safe to call again.

        Raises:
            TaskGone: The task has expired.
            Fenced: The process was given up for dead.
        """
        task = self._taskid
        reply = self._store.run("closing", [keys.task(task), keys.processes(task)], [self._process])
        self._check(reply[0])
        return Closing(TaskState(text(reply[1])), _mode(reply[2]), int(reply[3]))

    def share(self, *, shares: Mapping[str, int], needs: Mapping[str, int]) -> Mapping[str, int]:
        """
        Say what a commit would of shares and needs, when commits are refused; see :func:`share`.

        Keys: changes holders and waiters of downloader slots.
        """
        return share(self._store, self._taskid, self._process, shares=shares, needs=needs) or {}

    def _check(self, status: bytes) -> str:
        if status == b"gone":
            raise TaskGone(f"task {self._taskid} is not on this Redis any more (did it lose its data?)")
        if status == b"fenced":
            raise Fenced(f"process {self._process} of task {self._taskid} was given up for dead")
        return text(status)


def _changes_of(stats: StatChanges, results: Sequence[Result]) -> StatChanges:
    """What a commit counts: with what was counted on behalf of its results, and what its worker has done."""
    added = dict(stats.added)
    for result in results:
        for name, number in result.stats.items():
            added[name] = added.get(name, 0) + number
    work = {
        "done": sum(result.what == "done" for result in results),
        "failed": sum(len(result.failures) for result in results),
        "errors": _whole(added.get("log_count/ERROR", 0)),
        "items": sum(len(result.items) for result in results),
    }
    return StatChanges(added, stats.raised, stats.lowered, {what: number for what, number in work.items() if number})


def _whole(number: int | float) -> int:
    """Of a stat that is told as a whole number, which a project may have counted in floats."""
    return int(number) if is_finite(number) else 0


def _numbers(numbers: Mapping[str, int]) -> Iterable[Any]:
    yield len(numbers)
    for pair in numbers.items():
        yield from pair


def _pairs(flat: Sequence[Any] | None) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True) if flat else ()


def _request_args(requests: Iterable[NewRequest]) -> Iterable[Any]:
    """Their number of runs for the same slot and queue, and what is in these."""
    runs = [(run, list(found)) for run, found in groupby(requests, attrgetter("slot", "queue"))]
    yield len(runs)
    for (slot, queue), found in runs:
        yield from (slot, queue, len(found))
        for request in found:
            yield from ("".join(request.seen or ()), request.payload)


def _batches(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Items in batches of a bounded size, in their order."""
    batch: list[bytes] = []
    n_bytes = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or n_bytes + len(item) > BATCH_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(item)
        n_bytes += len(item)
    if batch:
        yield batch


def leave(store: Store, taskid: int, process: str, *, how: str, failure: bytes = b"") -> TaskState | None:
    """
    A crawl process is no more: its leases go back to the frontier. Safe to call again.

    Args:
        how: ``left``, ``crashed`` or ``failed``: see ``leave.lua``.
        failure: Signed; what is told of a request that has killed its processes, if this one is given up now.
            Empty: it was not the process that failed, but its whole worker, or nobody knows.

    Returns:
        The task's state after it; None when the task is gone.
    """
    reply = store.run(
        "leave",
        [keys.task(taskid), keys.processes(taskid), keys.leases(taskid, process)],
        [
            *(keys.prefix(taskid), process, how, MOST_CRASHES, keys.FINISHED_TTL_S),
            *(STARVED_PAUSE_MS, MOST_FEED_TRIES, FEED_WAIT_MS, failure, MOST_DEATHS, MOST_FAILURES),
        ],
    )
    state = text(reply[1])
    return None if state == "gone" else TaskState(state)


def share(
    store: Store,
    taskid: int,
    process: str,
    *,
    shares: Mapping[str, int],
    needs: Mapping[str, int],
    limits: Limits | None = None,
) -> Mapping[str, int] | None:
    """
    Ask for shares for downloads without leases, and say which are needed no more. Safe to call again.

    Args:
        process: ``HOME``, or a crawl process.
        shares: As with :meth:`Frontier.commit`.
        needs: As there.
        limits: Those of the task, for when no crawl process has joined it yet.

    Returns:
        Downloader slot -> the concurrency that this process may use there, 0: it must wait; None: nobody else
        downloads for this task any more.
    """
    limits = limits or Limits()
    most, delay_ms, *special = limits.args()
    status, found = store.run(
        "share",
        [keys.task(taskid), keys.processes(taskid), keys.limits(taskid)],
        [
            *(keys.prefix(taskid), process, most, delay_ms, len(limits.special), *special),
            *(*_numbers(shares), *_numbers(needs)),
        ],
    )
    return None if text(status) == "alone" else {text(slot): int(number) for slot, number in _pairs(found)}
