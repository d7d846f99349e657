"""
Crawl processes and workers without a crawl: what they say to Redis, at their true pace, and nothing else.

A crawl process here commits as one of ``vscrapy.crawl`` does: each page that is done ends its lease together with its
items, its new requests and its stats, and the same commit asks for leases when the buffer is half empty. Payloads are
as long as real ones; nobody reads them, so they are not signed anew.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import count
from typing import Final

from scrapy import Request, Spider

from benchmarks.load import N_LINKS
from vscrapy.store.base import Store
from vscrapy.store.frontier import Committed, Frontier, Lease, Limits, NewRequest, Result, leave
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.workers import HEARTBEAT_S, Workers
from vscrapy.wire import encode_items, encode_request, fingerprint_place, pickle_item
from vscrapy.worker.agent import LOOK_S
from vscrapy.worker.observer import Observer

#: Requests that a process has in flight, and leases that it keeps beside them: Scrapy's CONCURRENT_REQUESTS.
CAPACITY: Final = 16
#: A process that is late by more than this offers less instead (seconds).
MOST_LATE_S: Final = 0.5
#: What Scrapy counts on behalf of one page of the load.
PAGE_STATS: Final[Mapping[str, int]] = {
    "scheduler/dequeued/memory": 1,
    "scheduler/dequeued": 1,
    "downloader/request_count": 1,
    "downloader/request_method_count/GET": 1,
    "downloader/request_bytes": 255,
    "downloader/response_count": 1,
    "downloader/response_status_count/200": 1,
    "downloader/response_bytes": 642,
    "response_received_count": 1,
    "item_scraped_count": 1,
}
_NUMBER: Final = b"00000000"
#: The first site.
HOST: Final = b"site0000.test"
_KEY: Final = b"k" * 32


@dataclass(frozen=True, slots=True)
class Pages:
    """
    A site, or many, as in the middle of a crawl that neither grows nor shrinks.

    A page has as many links as one of ``benchmarks/load.py``: to one page that nobody knows, and to those that
    waited from the beginning, some in a row from anywhere. Its numbering would have chains of new pages meet.
    """

    #: Pages that wait from the beginning.
    known: int
    #: Downloader slots that they are spread over.
    sites: int = 1
    #: Which part of the known ones each process remembers to have seen; it does not send these.
    remembered: float = 0.0

    def links(self, number: int) -> Iterator[int]:
        """The pages that a page links to, without those that each process remembers."""
        yield number + self.known
        first = _spread(number)
        for link in range(1, N_LINKS):
            linked = (first + link) % self.known
            if _spread(linked) >= self.remembered * 2**32:
                yield linked

    def request(self, number: int) -> NewRequest:
        """The request for a page, as it is sent."""
        return _request(number, number % self.sites)


@lru_cache(maxsize=500_000)
def _request(number: int, site: int) -> NewRequest:
    host, digits = b"site%04d.test" % site, b"%08d" % number
    place = fingerprint_place(hashlib.sha1(host + digits, usedforsecurity=False).digest())
    return NewRequest(host.decode(), "0", _payload().replace(HOST, host).replace(_NUMBER, digits), place)


def _spread(number: int) -> int:
    """A number below 2**32 that is as good as random, and always the same one."""
    return number * 0x9E3779B1 % 2**32


def number_of(lease: Lease) -> int:
    """The page that a lease is for."""
    at = lease.payload.index(b".test/") + len(b".test/")
    return int(lease.payload[at : at + len(_NUMBER)])


class _Load(Spider):
    name = "load"


@cache
def _payload() -> bytes:
    """What ``wire`` makes of a request of the load; its number is put in by whoever uses it."""
    spider = _Load()
    request = Request(
        f"http://{HOST.decode()}/{_NUMBER.decode()}",
        headers={"Referer": f"http://{HOST.decode()}/{1:08d}"},
        meta={"depth": 5, "link_text": ""},
        callback=spider.parse,
    )
    return encode_request(request, spider, _KEY)


@dataclass(slots=True)
class Tally:
    """What a process, or several, have done."""

    pages: int = 0
    commits: int = 0
    #: Requests that were sent.
    sent: int = 0
    #: ... and were new.
    enqueued: int = 0
    #: Commits at the time of which there was no page in hand.
    empty: int = 0

    def numbers(self) -> tuple[int, ...]:
        """All of them, in order."""
        return (self.pages, self.commits, self.sent, self.enqueued, self.empty)


class SimulatedProcess:
    """
    One crawl process.

    Args:
        pages_a_s: Pages that are done in a second; those that are when it commits go into one commit, so commits
            become larger when the server is slow, as they do in a real crawl.
    """

    def __init__(
        self, store: Store, taskid: int, worker: str, name: str, pages: Pages, *, pages_a_s: float, tally: Tally
    ) -> None:
        self._store = store
        self._taskid = taskid
        self._worker = worker
        self._name = name
        self._pages = pages
        self._pages_a_s = pages_a_s
        #: From when on pages are done that no commit has taken (monotonic seconds).
        self._since_s = time.monotonic()
        self._tally = tally
        self._frontier = Frontier(store, taskid, name, seal=partial(encode_items, key=_KEY))
        self._number = 0
        self._buffer: deque[Lease] = deque()
        self._flight: deque[Lease] = deque()
        self._remembered: set[int] = set()
        self._shares: dict[str, int] = {}
        self._lowered: dict[str, int] = {}
        self._item = pickle_item({"url": "http://site0000.test/00000000", "title": "Page"})

    def begin(self, limits: Limits) -> None:
        """
        Take a place in the task, and join it.

        Raises:
            RuntimeError: The task takes no further process.
        """
        if Workers(self._store).claim(self._taskid, self._name, self._worker) <= 0:
            raise RuntimeError(f"task {self._taskid} takes no further process")
        self._frontier.join(capacity=CAPACITY, is_lifo=True, is_start_lifo=True, limits=limits)

    def feed(self) -> None:
        """Put in what waits from the beginning, and say that ``start()`` is exhausted."""
        for first in range(0, self._pages.known, 500):
            numbers = range(first, min(first + 500, self._pages.known))
            self._commit(Result("feed", requests=[self._pages.request(number) for number in numbers]))
        self._commit(Result("started"))

    def step(self, n_done: int | None = None) -> None:
        """One commit: the pages that are done by now, or so many, and leases if the buffer is half empty."""
        if n_done is None:
            now_s = time.monotonic()
            n_done = math.floor((now_s - self._since_s) * self._pages_a_s + 0.5)
            self._since_s = max(self._since_s + n_done / self._pages_a_s, now_s - MOST_LATE_S)
        done = [self._flight.popleft() for _ in range(min(n_done, len(self._flight)))]
        results = [self._result(lease) for lease in done]
        room = CAPACITY - len(self._buffer)
        self._tally.pages += len(done)
        self._tally.empty += not done
        reply = self._commit(*results, wanted=room if room * 2 >= CAPACITY else 0)
        self._buffer.extend(reply.leases)
        while self._buffer and len(self._flight) < CAPACITY:
            self._flight.append(self._buffer.popleft())

    def forget(self) -> None:
        """Remember nothing of what was seen, as a process that has just begun."""
        self._remembered.clear()

    def end(self) -> None:
        """Give back what is not done, and leave the task."""
        self._commit(*(Result("back", lease.id) for lease in (*self._flight, *self._buffer)))
        leave(self._store, self._taskid, self._name, how="left")
        Workers(self._store).release(self._taskid, self._name, self._worker)

    def _result(self, lease: Lease) -> Result:
        sent = [number for number in self._pages.links(number_of(lease)) if number not in self._remembered]
        self._remembered.update(sent)
        stats = dict(PAGE_STATS)
        if len(sent) < N_LINKS:
            stats["dupefilter/filtered"] = N_LINKS - len(sent)
        requests = [self._pages.request(number) for number in sent]
        return Result("done", lease.id, requests, [self._item], stats=stats)

    def _commit(self, *results: Result, wanted: int = 0) -> Committed:
        self._number += 1
        raised = {"request_depth_max": self._number} if self._number % 100 == 1 else {}
        lowered, self._lowered = self._lowered, {}
        reply = self._frontier.commit(
            self._number,
            results,
            stats=StatChanges(raised=raised),
            shares=lowered,
            counts_filtered=True,
            wanted=wanted,
        )
        for slot, share in reply.shares.items():
            if share < self._shares.get(slot, 0):
                self._lowered[slot] = share
            self._shares[slot] = share
        n_sent = sum(len(result.requests) for result in results)
        self._tally.commits += 1
        self._tally.sent += n_sent
        self._tally.enqueued += n_sent - len(reply.duplicates)
        return reply


def main_thread_s(store: Store) -> float:
    """CPU time that the server's main thread has used (seconds)."""
    info = store.client.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


class SimulatedWorker:
    """One agent: its heartbeat and its looks."""

    def __init__(self, store: Store, name: str, n_processes: int) -> None:
        self._workers = Workers(store)
        self._observer = Observer(store)
        self._name = name
        self._fields = {"slots": n_processes, "processes": n_processes, "refused": 0}

    def begin(self) -> None:
        """Register."""
        more = {"host": "simulated", "pid": 1, "version": "1", "python": "3.11", "scrapy": "2.13", "twisted": "24.3"}
        self._workers.register(self._name, self._name, {**self._fields, **more})

    def beat(self) -> None:
        """One heartbeat, which is also the search for dead workers."""
        self._workers.beat(self._name, self._name, self._fields)

    def look(self, here: frozenset[int]) -> None:
        """Look as an agent does, with crawl processes of these tasks here."""
        self._observer.look(here)

    def end(self) -> None:
        """Sign off."""
        self._workers.retire(self._name, self._name)


class Clockwork:
    """Calls what is due, one after the other; what is late by far is left out, not made up for."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], float], Callable[[], None]]] = []
        self._order = count()
        #: Time that was spent waiting for the next due time (seconds).
        self.idle_s = 0.0

    def every(self, interval_s: float | tuple[float, float], call: Callable[[], None]) -> None:
        """Call it at this interval, or at random ones between two; the first time within one."""
        low_s, high_s = interval_s if isinstance(interval_s, tuple) else (interval_s, interval_s)

        def interval() -> float:
            return random.uniform(low_s, high_s)

        first_s = time.monotonic() + random.uniform(0, high_s)
        heapq.heappush(self._due, (first_s, next(self._order), interval, call))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Call what is due until it is over."""
        while not is_over():
            due_s, _, interval, call = self._due[0]
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                time.sleep(min(wait_s, 0.05))
                self.idle_s += min(wait_s, 0.05)
                continue
            call()
            next_s = max(due_s + interval(), time.monotonic() - MOST_LATE_S)
            heapq.heapreplace(self._due, (next_s, next(self._order), interval, call))


def schedule(
    clockwork: Clockwork,
    taskid: int,
    workers: list[SimulatedWorker],
    processes: list[SimulatedProcess],
    *,
    pages_a_s: float,
    pages_a_commit: int,
) -> None:
    """Let them do what they do, at their pace."""
    here = frozenset({taskid})
    for worker in workers:
        clockwork.every(HEARTBEAT_S, worker.beat)
        clockwork.every(LOOK_S, lambda worker=worker: worker.look(here))  # type: ignore[misc]
    for process in processes:
        clockwork.every(pages_a_commit / pages_a_s, process.step)
