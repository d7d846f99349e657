"""
The SCHEDULER of a crawl process: the engine asks it as it asks Scrapy's own, and it never waits for Redis.

A request's life here: ``next_request`` turns a lease into a request; its callback's requests and items are
collected under it (:mod:`vscrapy.crawl.origin`); when the engine is done with it, they leave in one commit
with the acknowledgement. The task's end is counted on Redis; only the process that is told shows itself idle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from scrapy import Request, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.utils.misc import load_object
from twisted.internet.defer import Deferred

from vscrapy.crawl.buffer import Buffer
from vscrapy.crawl.closespider import TaskCloseSpider
from vscrapy.crawl.facts import SharedFacts
from vscrapy.crawl.failures import Failures
from vscrapy.crawl.origin import Local, Origin, StartOutputs, add_stats
from vscrapy.crawl.originals import Originals
from vscrapy.crawl.seen import Seen
from vscrapy.crawl.session import Callbacks, Outbox, Session
from vscrapy.crawl.spiderstate import SpiderState
from vscrapy.crawl.startreader import StartReader
from vscrapy.errors import NotVerified
from vscrapy.internals import ORIGIN, EngineHooks, slot_key, thread_caller
from vscrapy.politeness import Politeness, is_by_slot
from vscrapy.states import Reason, TaskState
from vscrapy.store.frontier import Committed, Joined, Lease, NewRequest, Result
from vscrapy.wire import decode_request, encode_request, pickle_item

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler

    from vscrapy.crawl.place import Place

logger = logging.getLogger("vscrapy")

#: Requests in flight at once where CONCURRENT_REQUESTS is 0: no limit.
UNLIMITED: Final = 200
#: Outputs of one callback that are held back until it is exhausted; beyond, they leave early.
MOST_HELD: Final = 1000
#: ``start()`` is read on only while fewer requests than this wait in the frontier.
START_AHEAD: Final = 1000
#: ... and fewer results than this wait for the reply to their commit.
START_BACKLOG: Final = 200
#: The reason with which Scrapy's MemoryUsage extension closes the spider.
_MEMORY_EXCEEDED: Final = "memusage_exceeded"
#: A machine's clock may be off by this much (seconds).
CLOCK_S: Final = 1.0
#: A process that gets no lease for so long, although requests wait, gives its slot back (seconds): others have
#: the whole of what the sites may see.
STARVED_S: Final = 3.0


#: Whose request an entry of a result is; None for the end of a claim.
Source: TypeAlias = "Request | Local | None"


class Scheduler(BaseScheduler):
    """Made for one crawl process by :func:`bound`, which gives it its *place*."""

    place: ClassVar[Place]

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        self._crawler = crawler
        self._capacity = settings.getint("CONCURRENT_REQUESTS") or UNLIMITED
        self._is_by_slot = is_by_slot(settings)
        self._is_lifo = _is_lifo(settings["SCHEDULER_MEMORY_QUEUE"])
        start_queue = settings.get("SCHEDULER_START_MEMORY_QUEUE")
        self._has_start_queue = bool(start_queue)
        self._is_start_lifo = _is_lifo(start_queue) if start_queue else self._is_lifo
        self._buffer = Buffer(is_lifo=self._is_lifo, active=lambda slot: self._politeness.active(slot))
        self._origins: dict[Request, Origin] = {}
        self._originals = Originals() if self.place.is_alone else None
        self._start_outputs = StartOutputs(self._commit_start, self._start_exhausted)
        self._sent: list[tuple[Result, Sequence[Source]]] = []
        #: Origins that requests hang on which stay on this process; and the claims of these.
        self._roots: set[Origin] = set()
        self._claimed: set[str] = set()
        self._n_claims = 0
        #: In Scrapy's very order: nothing is leased before the engine asks for it.
        self._is_strict = self.place.is_alone and self._capacity == 1
        self._is_engine_waiting = True
        #: Results without a reply when the engine began to wait.
        self._n_awaited = 0
        self._queued = 0
        self._n_open_results = 0
        self._is_task_idle = False
        self._is_paused = False
        #: Too many items wait to be fetched.
        self._is_held = False
        self._has_told_held = False
        self._is_asking = False
        self._starved_from_s: float | None = None
        self._is_leaving = False
        self._is_stopped_by_task = False
        self._is_local_told = False
        self._reads_start = False
        #: Nothing can wait on Redis: this is the task's first process, and has put nothing there.
        self._is_first = False
        self._opened: Deferred[None] | None = None
        self._closed: Deferred[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Scheduler:
        """Make it for a crawler, as the engine does."""
        return cls(crawler)

    # What the engine calls.

    def open(self, spider: Spider) -> Deferred[None]:
        """Join the task; fires when it is known who runs ``start()``."""
        self._spider = spider
        self._seen = Seen(self._crawler, has_others=not self.place.is_alone)
        self._seen.filter.open()
        self._hooks = EngineHooks(
            self._crawler,
            on_done=self._on_done,
            on_closing=self._on_closing,
            knows=self._origins.__contains__,
        )
        self._hooks.install()
        self._call = call = thread_caller()
        self._politeness = Politeness.of(self._crawler, is_alone=self.place.is_alone)
        self._session = Session(
            self.place.frontier,
            self.place.tasks,
            self.place.taskid,
            capacity=self._capacity,
            is_lifo=self._is_lifo,
            is_start_lifo=self._is_start_lifo,
            limits=self._politeness.limits,
            counts_filtered=self._seen.is_counted_on_redis,
            gathers=not self._is_strict,
            callbacks=Callbacks(
                self._on_joined, self._on_committed, self._politeness.answer, self._on_session_closed
            ),
            call=call,
            end_process=self.place.end_process,
        )
        self._politeness.begin(self._session)
        self._stats.note_with(self._notes)
        self._shared = SharedFacts(
            self._crawler, self._session, self.place.key, on_start_failed=self._hooks.mark_start_failed
        )
        self._shared.install()
        self._start = StartReader(
            self._start_outputs,
            is_wanted=self._is_start_wanted,
            is_closing=lambda: self._hooks.is_closing,
            on_failed=self._shared.start_failed,
        )
        self._close_spider = TaskCloseSpider(self._crawler, self._session)
        self._spider_state = SpiderState(self._crawler, self.place, self._session)
        Failures(self._crawler, self.place, self._find).install()
        for signal, handler in (
            (signals.item_scraped, self._on_item),
            (signals.item_dropped, self._on_item_gone),
            (signals.item_error, self._on_item_gone),
        ):
            self._crawler.signals.connect(handler, signal)
        self.place.attach(self, call)
        self._opened = Deferred()
        self._session.start()
        return self._opened

    def close(self, reason: str) -> Deferred[None]:
        """Commit what is left, and give back what was not run."""
        self._seen.filter.close(reason)
        self._spider_state.end()
        if not (self._is_leaving or self.place.has_job_dir):  # else these pages are done anew, elsewhere or later
            for root in self._roots:
                self._commit_part(root)
        back = [Result("back", lease.id) for lease in self._buffer.clear()]
        self._put(back)
        self._politeness.end()
        self._closed = Deferred()
        # What the only process that there ever was has counted is all of it.
        is_all = self.place.is_alone and self.place.number == 1
        self._session.close(is_with_others=not (self._is_leaving or is_all))
        return self._closed

    def has_pending_requests(self) -> bool:
        """True as long as anything is to do in the whole task, or another process is to see to its end."""
        if self._buffer or self._origins or self._n_open_results or not self._is_task_idle:
            return True
        return self._session.waiting > 0

    def enqueue_request(self, request: Request) -> bool:
        """Put a request under the one that it came of; False when it is known to be a duplicate."""
        fingerprint = self._seen.fingerprint(request)
        if self._seen.is_duplicate(request, fingerprint):
            self._seen.log(request)
            return False
        self._is_task_idle = False
        origin = self._origin()
        try:
            payload = encode_request(request, self._spider, self.place.key)
        except ValueError as error:
            return self._keep_local(request, origin, fingerprint, error)
        if self._originals is not None:
            self._originals.keep(payload, request)
        new = NewRequest(self._slot(request), self._queue(request), payload, self._seen.place(fingerprint))
        if origin is None:
            self._put([Result("feed", requests=[new])], [[request]])
            return True
        origin.requests.append(new)
        origin.sources.append(request)
        self._flush_early(origin)
        return True

    def next_request(self) -> Request | None:
        """The next request in Scrapy's order, from the leases at hand."""
        self.place.handler.is_banner = False
        if self._is_strict and not self._is_engine_waiting:
            self._n_awaited = self._n_open_results
        # In Scrapy's very order, what came of the last pages is put in before the next one is chosen.
        is_held = self._is_paused or self._n_awaited > 0 or self._close_spider.is_waiting
        while not is_held and (found := self._buffer.pop()) is not None:
            if isinstance(found, Lease):
                request = self._decode(found)
                if request is None:
                    continue
                self._origins[request] = Origin(found)
            else:
                request = found.request
                self._origins[request] = Origin(local=found)
            self._is_engine_waiting = False
            if self._is_strict:
                self._call(self._start.turn)
            with self._stats.noted_in(self._origins[request].stats):
                self._count("scheduler/dequeued/memory")
                self._count("scheduler/dequeued")
            self._ask()
            ORIGIN.set(request)
            return request
        ORIGIN.set(None)
        self._is_engine_waiting = True
        self._ask()
        return None

    @property
    def is_closed(self) -> bool:
        """Was :meth:`close` called?"""
        return self._closed is not None

    # What the place calls, in the reactor's thread.

    def leave(self, why: str = "") -> None:
        """Close this process's spider; the task goes on elsewhere."""
        if self._opened is not None and not self._opened.called:
            self.place.end_process(0)  # it has nothing in hand, and Scrapy closes no spider that has not opened
        if why and not self._hooks.is_closing:
            logger.info("vscrapy: crawl process %d leaves: %s", self.place.number, why)
        self._is_leaving = self.place.handler.is_leaving = True
        self._hooks.close("shutdown")

    def look(self) -> None:
        """See at once how the task is. From any thread."""
        self._session.look()

    def finish(self, *, timeout_s: float) -> None:
        """After the crawl: commit the stats that came last."""
        self._session.finish(*self._take_stats(), timeout_s=timeout_s)

    # What the session calls, in the reactor's thread.

    def _on_joined(self, joined: Joined, ahead_s: float) -> None:
        if abs(ahead_s) > CLOCK_S:
            self._stats.shift(ahead_s)
        skip = joined.start_from
        self._reads_start = skip is not None
        self._is_first = skip == 0 and self.place.number == 1
        self._is_paused = joined.state is TaskState.PAUSED
        self._close_spider.begin(joined.elapsed_s)
        self._spider_state.begin(joined.spider_state)
        self._hooks.replace_start(None if skip is None else lambda start: self._start.read(start, skip))
        assert self._opened is not None
        self._opened.callback(None)
        self._ask()
        if joined.state is TaskState.STOPPING:
            self._stop(joined.reason)

    def _on_committed(self, reply: Committed, outbox: Outbox, wanted: int) -> None:
        try:
            self._take_reply(reply, outbox, wanted)
        except Exception:
            # Leases could be forgotten that count as held: only the end of the process gives them back.
            logger.exception("vscrapy: a reply could not be taken; this crawl process ends")
            self.place.end_process(1)

    def _take_reply(self, reply: Committed, outbox: Outbox, wanted: int) -> None:
        if reply.queued > self._capacity >= self._queued:
            self.place.channel.tell(grows=True)  # else its agent sees it with the next look
        self._queued = reply.queued
        if wanted:
            self._is_asking = False
        self._n_open_results -= len(outbox.results)
        self._n_awaited = max(0, self._n_awaited - len(outbox.results))
        self._shared.learn(reply.facts)
        self._politeness.add_leases(reply.leases)
        self._politeness.use(reply.shares, outbox.shares, outbox.needs)
        self._settle_requests(outbox.results, set(reply.duplicates))
        if reply.leases:
            if self._hooks.is_closing:
                self._put([Result("back", lease.id) for lease in reply.leases])
            else:
                self._tell_suspect(reply)
                self._buffer.add(reply.leases)
        was_paused, self._is_paused = self._is_paused, reply.state is TaskState.PAUSED
        if self._is_paused:
            self._put([Result("back", lease.id) for lease in self._buffer.take_leases()])
        elif self._is_strict and self._is_engine_waiting and not self._n_awaited:
            self._buffer.choose()
        self._hold(reply)
        was_idle, self._is_task_idle = self._is_task_idle, reply.is_idle
        self._start.turn()
        was_near_limit = self._close_spider.is_waiting
        reason_to_close = self._close_spider.learn(reply.counts, outbox.counts, reply.leased)
        if reply.state in (TaskState.STOPPING, TaskState.FINISHED):
            self._stop(reply.reason)
        elif reason_to_close is not None:
            self._hooks.close(reason_to_close)
        has_nothing = not (reply.leases or self._origins or self._buffer or self._n_open_results)
        if wanted:
            # Others work, and this process gets nothing: not the pause of a site whose last process has died.
            is_kept_still = self._is_paused or self._is_held
            self._watch_hunger(is_starved=has_nothing and reply.queued > 0 and reply.leased > 0 and not is_kept_still)
        if reply.is_start_lost and has_nothing and reply.queued == 0 and not self._is_paused:
            self.leave()  # the process that takes this one's place runs start() on
        is_choice_there = (self._is_strict or was_near_limit) and bool(self._buffer)
        has_gone_on = was_paused and not self._is_paused
        if reply.leases or (reply.is_idle and not was_idle) or has_gone_on or is_choice_there:
            self._hooks.wake()
        else:
            self._ask()

    def _on_session_closed(self, stats: dict[str, Any] | None) -> None:
        assert self._closed is not None
        try:
            if stats is not None:  # what runs at the end, on each process, sees those of the whole task
                self._stats.show(stats)
        except Exception:  # noqa: BLE001 - a project's own collector; the engine logs what it was, and closes the spider
            self._closed.errback()
        else:
            self._closed.callback(None)

    # What the engine hooks and signals call.

    def _on_done(self, request: Request) -> None:
        origin = self._origins.pop(request, None)
        if origin is None:
            return
        origin.is_finished = True
        with self._session.together:
            self._settle(origin)
            self._politeness.settle()
            self._ask()

    def _on_closing(self, reason: str) -> None:
        if reason == _MEMORY_EXCEEDED and not self._is_stopped_by_task:
            # Scrapy's MEMUSAGE_LIMIT_MB ends this process; the task goes on in another.
            logger.warning("vscrapy: crawl process %d leaves: %s", self.place.number, reason)
            self._is_leaving = self.place.handler.is_leaving = True
        if not (self._is_leaving or self._is_stopped_by_task):
            # Requests may have been put back since this process was told of the end: it leaves, and others go on.
            self._session.stop_task(reason, if_idle=reason == Reason.FINISHED and self._is_task_idle)
        back = [Result("back", lease.id) for lease in self._buffer.clear()]
        self._put(back)

    def _on_item(self, item: Any, response: Any) -> None:
        # The response tells more surely than the context: pipelines may be driven by Deferreds.
        origin = self._origins.get(getattr(response, "request", None) or response) or self._origin()
        try:
            pickled = pickle_item(item)
        except ValueError as error:
            logger.error("vscrapy: an item cannot travel to the sender and is lost: %s: %r", error, item)
            self._count("vscrapy/items_not_sent")
        else:
            if origin is None:
                self._put([Result("feed", items=[pickled])])
            else:
                origin.items.append(pickled)
                self._flush_early(origin)
        self._on_item_gone()

    def _on_item_gone(self) -> None:
        origin = ORIGIN.get()
        if isinstance(origin, Origin):  # an item of start(): nothing else says that it is done
            origin.is_finished = True
            self._start_outputs.settle()

    # Inside.

    @property
    def _stats(self) -> Any:
        return self._crawler.stats  # the class of vscrapy.crawl.stats

    def _notes(self) -> dict[str, int | float] | None:
        # For each count: not by way of _origin().
        found = ORIGIN.get()
        if found is None:
            return None
        origin = self._origins.get(found) if isinstance(found, Request) else found
        return None if origin is None else origin.stats

    def _origin(self) -> Origin | None:
        found = ORIGIN.get()
        if isinstance(found, Origin):
            return found
        return self._origins.get(found) if found is not None else None

    def _queue(self, request: Request) -> str:
        is_start = self._has_start_queue and bool(request.meta.get("is_start_request"))
        return f"{int(request.priority)}{'s' if is_start else ''}"

    def _slot(self, request: Request) -> str:
        """The frontier's name for the downloader slot of a request."""
        return slot_key(self._crawler, request).replace("\n", " ") if self._is_by_slot else ""

    def _find(self, source: Any) -> tuple[Request | None, Origin | None]:
        """The request of ours that a response, a failure or a request belongs to, and its origin."""
        for request in (getattr(source, "request", None), source, ORIGIN.get()):
            if isinstance(request, Request) and request in self._origins:
                return request, self._origins[request]
        return None, None

    def _decode(self, lease: Lease) -> Request | None:
        original = self._originals.take(lease.payload) if self._originals is not None else None
        if original is not None and original not in self._origins:  # a spider may yield one request twice
            return original
        try:
            return decode_request(lease.payload, self._spider, self.place.key)
        except (NotVerified, ValueError) as error:
            logger.error("vscrapy: a request was dropped: %s", error)
            self._count("vscrapy/requests_refused")
            self._put([Result("done", lease.id)])
            return None

    def _keep_local(
        self, request: Request, origin: Origin | None, fingerprint: str | None, error: ValueError
    ) -> bool:
        """Do a request on this process, if no other has it or had it; False: this one has, or had."""
        if not self._is_local_told:
            self._is_local_told = True
            logger.warning(
                "vscrapy: %s cannot travel (%s): it is done on this crawl process, and so are its like; no more of "
                "them will be told",
                request,
                error,
            )
        self._seen.forget(fingerprint)
        place = self._seen.place(fingerprint)
        if place is None:
            self._n_claims += 1
            name = f"{self.place.process} {self._n_claims}"
        else:
            name = f"{place[0]}:{place[1]}"
        if name in self._claimed:
            self._seen.log(request)
            return False
        root = origin.root if origin is not None else Origin(is_finished=True)
        root.n_local += 1
        self._claimed.add(name)
        self._roots.add(root)
        local = Local(request, self._slot(request), self._queue(request), root, NewRequest.claim(name, place))
        self._put([self._part(root, [local.claim])], [[local]])
        return True

    def _on_claimed(self, local: Local, *, is_granted: bool) -> None:
        if is_granted:
            self._buffer.add_local(local)
            self._hooks.wake()
            return
        self._claimed.discard(local.claim.slot)
        local.root.n_local -= 1
        if local.root.is_complete:
            self._settle_root(local.root)

    def _settle(self, origin: Origin) -> None:
        """The engine is done with a request; commit what came of it, or keep it until all of its root is done."""
        root = origin.root
        if origin.local is not None:
            root.n_local -= 1
            root.settled.append(origin.local.claim.settled)
            root.take_over(origin)
        if root.is_complete:
            self._settle_root(root)
            return
        requests, sources = root.take_filtered()
        if requests:
            self._put([self._part(root, requests)], [sources])
        self._flush_early(root)

    def _settle_root(self, root: Origin) -> None:
        self._roots.discard(root)
        if root.is_start:
            self._start_outputs.settle()
            return
        what, id_ = ("done", root.lease.id) if root.lease is not None else ("feed", "")
        result = Result(what, id_, self._all_requests(root), root.items)
        stats = root.take_stats(is_last=True)
        self._put([replace(result, failures=list(root.failures.values()), stats=stats)], [self._all_sources(root)])

    def _all_requests(self, root: Origin) -> list[NewRequest]:
        self._claimed.difference_update(claim.slot for claim in root.settled)
        return [*root.requests, *root.settled]

    @staticmethod
    def _all_sources(root: Origin) -> list[Source]:
        return [*root.sources, *(None for _ in root.settled)]

    def _part(self, root: Origin, requests: Sequence[NewRequest], items: Sequence[bytes] = ()) -> Result:
        what, id_ = ("part", root.lease.id) if root.lease is not None else ("feed", "")
        return Result(what, id_, requests, items)

    def _commit_part(self, origin: Origin) -> None:
        if origin.size:
            part = self._part(origin.root, origin.requests, origin.items)
            self._put([replace(part, stats=origin.take_stats(is_last=False))], [origin.sources])
            origin.requests, origin.sources, origin.items = [], [], []

    def _flush_early(self, origin: Origin) -> None:
        if origin.size >= MOST_HELD and not origin.is_start:
            self._commit_part(origin)

    def _put(self, results: Sequence[Result], sources: Sequence[Sequence[Source]] = ()) -> None:
        if not results:
            return
        self._is_first = False
        self._n_open_results += len(results)
        for index, result in enumerate(results):
            if result.requests:
                self._sent.append((result, sources[index]))
        self._politeness.end_leases(results)
        self._session.put(results, *self._take_stats())

    def _settle_requests(self, results: Sequence[Result], duplicates: set[int]) -> None:
        """
        Report what was filtered, of the commit that was answered, and go on with what stays here.

        Redis has counted what it got; of what stays here it cannot know whether it will be done.
        """
        index = 0
        for result in results:
            if not result.requests:
                continue
            sent, sources = self._sent.pop(0)
            assert sent is result, "replies come in the order of the results"
            for new, source in zip(result.requests, sources, strict=True):
                request = source.request if isinstance(source, Local) else source
                if index in duplicates:
                    assert source is not None, "the end of a claim is never a duplicate"
                    assert request is not None
                    if self._originals is not None:
                        self._originals.forget(new.payload, request)
                    self._log_filtered(request, source)
                    self._crawler.signals.send_catch_log(
                        signals.request_dropped, request=request, spider=self._spider
                    )
                elif source is not None:
                    self._count_enqueued(source)
                if isinstance(source, Local):
                    self._on_claimed(source, is_granted=index not in duplicates)
                index += 1

    def _log_filtered(self, request: Request, source: Request | Local) -> None:
        # Where Redis has counted it, only this process's own stats lack it.
        elsewhere: dict[str, int | float] | None = {} if self._seen.is_counted_on_redis else None
        with self._stats.noted_in(source.root.stats if isinstance(source, Local) else elsewhere):
            self._seen.log(request)

    def _count_enqueued(self, source: Request | Local) -> None:
        with self._stats.noted_in(source.root.stats if isinstance(source, Local) else {}):
            self._count("scheduler/enqueued/memory")
            self._count("scheduler/enqueued")

    def _count(self, stat: str, count: int = 1) -> None:
        assert self._crawler.stats is not None
        self._crawler.stats.inc_value(stat, count)

    def _take_stats(self) -> Any:
        return self._stats.take()

    def _ask(self) -> None:
        """Ask for leases when the buffer is half empty: with the next results; at once, when it is nearly empty."""
        if self._is_first or (self._is_strict and not self._is_engine_waiting):
            return
        self._session.feed(self._buffer.n_leases)
        room = self._capacity - self._buffer.n_leases
        if room * 2 >= self._capacity and not self._is_asking and not self._hooks.is_closing:
            self._is_asking = True
            self._session.want(room, is_strict=self._is_strict)

    def _watch_hunger(self, *, is_starved: bool) -> None:
        if not is_starved or self._reads_start:
            self._starved_from_s = None
        elif self._starved_from_s is None:
            self._starved_from_s = time.monotonic()
        elif time.monotonic() - self._starved_from_s > STARVED_S:
            self.leave("the others do all that the sites may see of this task")

    def _tell_suspect(self, reply: Committed) -> None:
        """Say which request runs here alone: if the process dies now, its agent can say of what."""
        if not reply.suspect:
            return
        lease = next((lease for lease in reply.leases if lease.id == reply.suspect), None)
        if lease is None:  # it was told before
            return
        try:
            request = decode_request(lease.payload, self._spider, self.place.key)
        except (NotVerified, ValueError):
            return  # next_request() drops it, and says so
        self.place.channel.tell(
            suspect={
                "url": request.url,
                "method": request.method,
                "callback": getattr(request.callback, "__name__", ""),
                "errback": getattr(request.errback, "__name__", ""),
            }
        )

    def _hold(self, reply: Committed) -> None:
        """Tell, on one process of the task, that the crawl is held, and that it goes on."""
        was_held, self._is_held = self._is_held, reply.is_held
        if self._hooks.is_closing:
            return
        if reply.tells_held and not self._has_told_held:
            self._has_told_held = True
            logger.warning(
                "vscrapy: the crawl is held: as many items wait to be fetched as may (VSCRAPY_ITEMS_LIMIT); "
                "'vscrapy items %d -o FILE --take' takes them, and lets it go on",
                self.place.taskid,
            )
        elif was_held and not reply.is_held and self._has_told_held:
            self._has_told_held = False
            logger.info("vscrapy: the crawl goes on: items have been fetched")

    def _stop(self, reason: str) -> None:
        if not self._hooks.is_closing:
            self._is_stopped_by_task = True
            self._hooks.close(reason)

    # start()

    def _is_start_wanted(self) -> bool:
        if self._is_paused or self._is_held:
            return False
        if self._is_strict and self._is_engine_waiting and (self._n_open_results or self._buffer):
            return False  # as in Scrapy, the engine takes what there is before it reads on
        # Not what waits for a commit, which the session takes while start() is read: without a pause, no reply
        # would be heard, and no page either.
        n_open = self._n_open_results + self._start_outputs.n_open
        return self._queued < START_AHEAD and n_open < START_BACKLOG

    def _commit_start(self, origins: list[Origin]) -> None:
        requests = [request for origin in origins for request in self._all_requests(origin)]
        sources = [source for origin in origins for source in self._all_sources(origin)]
        items = [item for origin in origins for item in origin.items]
        failures = [failure for origin in origins for failure in origin.failures.values()]
        start = Result("start", str(len(origins)), requests, items)
        stats: dict[str, int | float] = {}
        for origin in origins:
            add_stats(stats, origin.take_stats(is_last=True))
        with self._session.together:
            self._put([replace(start, failures=failures, stats=stats)], [sources])
            self._ask()

    def _start_exhausted(self) -> None:
        self._reads_start = False
        self._put([Result("started")])


def _is_lifo(queue: Any) -> bool:
    """Is this SCHEDULER_..._QUEUE popped at its new end?"""
    from queuelib import queue as queuelib

    fifo = (queuelib.FifoMemoryQueue, queuelib.FifoDiskQueue, queuelib.FifoSQLiteQueue)
    # queuelib derives some of its LIFO queues from the FIFO ones.
    lifo = (queuelib.LifoMemoryQueue, queuelib.LifoDiskQueue, queuelib.LifoSQLiteQueue)
    cls = load_object(queue)
    return issubclass(cls, lifo) or not issubclass(cls, fifo)


def bound(place: Place) -> type[Scheduler]:
    """Make the class for SCHEDULER: bound to the place of one crawl process."""
    return type("Scheduler", (Scheduler,), {"place": place, "__module__": Scheduler.__module__})
