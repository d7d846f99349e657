"""
Home: the one Scrapy crawler that does what must happen once: in the sender's process, or in one of a worker's.

It is a real crawler of the project with its pipelines and its feed exporter, and without requests: its
scheduler is empty, and the items come from the task. At the end it gets the merged stats and closes as Scrapy
does: feeds are stored, stats are dumped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlparse

from scrapy import Request, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.extensions.closespider import CloseSpider
from scrapy.extensions.corestats import CoreStats
from scrapy.extensions.feedexport import FeedExporter, FileFeedStorage, StdoutFeedStorage
from scrapy.extensions.throttle import AutoThrottle
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.misc import load_object
from twisted.internet.defer import Deferred

from vscrapy.errors import NotVerified
from vscrapy.internals import (
    HANDLERS_LOGGER,
    EngineHooks,
    flush_feeds,
    item_receivers,
    start_itemproc,
    tell_of_item,
    thread_caller,
)
from vscrapy.politeness import Channel, Politeness
from vscrapy.stats import put_all, take_rates
from vscrapy.store.entries import ItemsEntry
from vscrapy.wire import decode_items

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings, Settings

logger = logging.getLogger("vscrapy")

#: Priority of home's own settings; above Scrapy's "cmdline" (40).
PRIORITY: Final = 1000
#: Batches of items that wait here at most; then the follower waits, and items stay on Redis.
MOST_WAITING: Final = 64
#: Scrapy's extension (since 2.14) that counts log lines into the stats; home's own lines count, too.
_LOG_COUNT: Final = "LogCount"
#: What the crawl processes count; with pipelines here, they do not count the items that come through.
_CLOSED_ELSEWHERE: Final = (
    "CLOSESPIDER_TIMEOUT",
    "CLOSESPIDER_PAGECOUNT",
    "CLOSESPIDER_ERRORCOUNT",
    "CLOSESPIDER_TIMEOUT_NO_ITEM",
    "CLOSESPIDER_PAGECOUNT_NO_ITEM",
)
#: Extensions of Scrapy's that home never keeps, and does not even import: one of them brings aiohttp with it.
_NEVER_HERE: Final = frozenset(
    f"scrapy.extensions.{name}"
    for name in (
        "logstats.LogStats",
        "memdebug.MemoryDebugger",
        "memusage.MemoryUsage",
        "remote_control.RemoteControl",
        "spiderstate.SpiderState",
        "telnet.TelnetConsole",
    )
)
#: Settings that are for downloads only.
_OF_DOWNLOADS: Final = (
    "DOWNLOADER_MIDDLEWARES_BASE",
    "DOWNLOADER_MIDDLEWARES",
    "DOWNLOAD_HANDLERS_BASE",
    "DOWNLOAD_HANDLERS",
)
#: Loggers whose lines below WARNING the crawl processes show: here they would be there twice.
_SILENT: Final = (
    "asyncio",
    "scrapy.addons",
    "scrapy.core.engine",
    "scrapy.crawler",
    "scrapy.middleware",
    "scrapy.utils.log",
)


def silence(*, has_pipelines: bool, hold: Callable[[logging.LogRecord], bool] = lambda _: False) -> None:
    """
    Keep from this process's log what the crawl processes say; to be called before Scrapy says it.

    Args:
        hold: Gets the record of the pipelines here, which has its place among theirs; does it come later?
    """

    def is_said_here(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or record.msg == "Spider closed (%(reason)s)":
            return True
        args = record.args
        is_of_pipelines = isinstance(args, dict) and args.get("componentname") == "item pipeline"
        return has_pipelines and is_of_pipelines and not hold(record)

    for name in _SILENT:
        logging.getLogger(name).addFilter(is_said_here)
    # It warns of what the settings name, here as in the crawl processes.
    logging.getLogger(HANDLERS_LOGGER).addFilter(lambda record: record.levelno > logging.WARNING)


def remote_feeds(settings: BaseSettings) -> dict[str, Any]:
    """The feeds that are neither local files nor stdout, as FEEDS: a detached task's home writes these."""
    feeds = settings.getdict("FEEDS")
    if settings.get("FEED_URI"):  # deprecated in Scrapy, and still there
        feeds = {settings["FEED_URI"]: {"format": settings["FEED_FORMAT"]}, **feeds}
    storages = settings.getwithbase("FEED_STORAGES")
    remote = {}
    for uri, options in feeds.items():
        path = None if isinstance(uri, Path) else storages.get(urlparse(str(uri)).scheme)
        if path is not None and load_object(path) not in (FileFeedStorage, StdoutFeedStorage):
            remote[str(uri)] = options
    return remote


@dataclass(slots=True)
class _Batch:
    """Items that came together, on their way through the pipelines."""

    cursor: str
    n_open: int


class Home:
    """
    The crawler of the sender, or of a detached task that has been crawled.

    Args:
        has_pipelines: The project's pipelines run here.
        on_open: Called, in the crawler's thread, when the spider is about to open; a Deferred.
        on_stop: Called with the reason when a pipeline closes the spider.
        channel: How pipelines that download get their shares of the task's limits: made, when the spider is about to
            open, from what gets the answers and what runs a function in the crawler's thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        has_pipelines: bool,
        on_open: Callable[[], Deferred[None]],
        on_stop: Callable[[str], None],
        channel: Callable[[Politeness, Callable[..., Any]], Channel] | None = None,
    ) -> None:
        self._on_open = on_open
        self._on_stop = on_stop
        self._channel = channel
        self._has_pipelines = has_pipelines
        self._counts_items = False
        self._key = b""
        self._entries: deque[ItemsEntry] = deque()
        self._room = threading.Semaphore(MOST_WAITING)
        self._done_cursor = ""
        self._batches: deque[_Batch] = deque()
        self._n_running = 0
        self._is_starting = False
        self._most_running = settings.getint("CONCURRENT_ITEMS") or 1
        self._is_open = False
        self._call: Callable[..., Any] | None = None
        self._ending: Callable[[], None] | None = None
        self._hooks: EngineHooks | None = None
        self.crawler: Crawler | None = None

    def adapt(self, settings: BaseSettings, *, counts_items: bool) -> None:
        """
        Leave of a crawler's settings, when its add-ons have changed them, what happens once.

        Args:
            counts_items: CLOSESPIDER_ITEMCOUNT counts the items that come through the pipelines.
        """
        self._counts_items = counts_items
        self._downloads = self._has_pipelines and bool(settings.getwithbase("ITEM_PIPELINES"))
        extensions = {
            path: (load_object(path), order)
            for path, order in settings.getwithbase("EXTENSIONS").items()
            if path not in _NEVER_HERE
        }
        keep = {path: order for path, (extension, order) in extensions.items() if self._is_kept(extension)}
        self._counts_responses = any(
            order is not None and issubclass(extension, CoreStats) for extension, order in extensions.values()
        )
        formatter = load_object(settings["LOG_FORMATTER"])
        ours: dict[str, Any] = {
            "SCHEDULER": type("HomeScheduler", (HomeScheduler,), {"home": self}),
            "EXTENSIONS_BASE": {},
            "EXTENSIONS": keep,
            # Scrapy's redirect middlewares look for it; pipelines that download use them.
            "SPIDER_MIDDLEWARES_BASE": {"scrapy.spidermiddlewares.referer.RefererMiddleware": 700},
            "SPIDER_MIDDLEWARES": {},
            "LOG_FORMATTER": type("HomeLogFormatter", (formatter,), {"scraped": lambda *_: None}),
            "JOBDIR": None,
            **dict.fromkeys(_CLOSED_ELSEWHERE, 0),
        }
        if not self._has_pipelines:
            ours["ITEM_PIPELINES"] = {}
        if not self._downloads:
            # Nobody here downloads: a browser need not be opened twice, and Scrapy's own part need not be imported.
            ours |= {name: {} for name in _OF_DOWNLOADS}
        settings.setdict(ours, priority=PRIORITY)

    def _is_kept(self, extension: type) -> bool:
        if issubclass(extension, CloseSpider):
            return self._counts_items
        if issubclass(extension, AutoThrottle):
            return self._downloads
        return issubclass(extension, FeedExporter) or extension.__name__ == _LOG_COUNT

    # Called in the crawler's thread.

    def opened(self, crawler: Crawler) -> Deferred[None]:
        """The spider is about to open: from here on the task can be submitted."""
        self.crawler = crawler
        self._call = thread_caller()
        self._hooks = EngineHooks(crawler)
        self._hooks.replace_start(None)
        crawler.signals.connect(self._on_item_gone, signals.item_dropped)
        crawler.signals.connect(self._on_item_error, signals.item_error)
        crawler.signals.connect(self._on_spider_opened, signals.spider_opened)
        if self._counts_responses:
            crawler.signals.connect(self._on_response, signals.response_received)
        opened = self._on_open()
        if self._downloads and self._channel is not None:
            opened.addCallback(lambda _: self._share())
        return opened

    def _share(self) -> None:
        """What pipelines download from now on is part of what the sites may see of the task."""
        assert self.crawler is not None
        assert self._call is not None
        assert self._channel is not None
        politeness = Politeness.of(self.crawler)
        if politeness.limits.most:
            politeness.begin(self._channel(politeness, self._call))

    def _on_spider_opened(self) -> None:
        assert self._hooks is not None
        # A pipeline that closes the spider means the crawl: the task ends, and what is on its way still comes home.
        self._hooks.keep_open(self._on_stop)
        self._is_open = True
        assert self._call is not None
        self._call(self._work)  # when the feeds are open, too: at the end of a task, it closes

    def _on_item_gone(self, exception: BaseException) -> None:
        self._count("item_dropped_count")
        self._count(f"item_dropped_reasons_count/{type(exception).__name__}")
        self._count("item_scraped_count", -1)

    def _on_response(self) -> None:
        """A pipeline has downloaded something."""
        self._count("response_received_count")

    def _on_item_error(self) -> None:
        self._count("item_scraped_count", -1)

    def _count(self, stat: str, count: int = 1) -> None:
        assert self.crawler is not None
        assert self.crawler.stats is not None
        self.crawler.stats.inc_value(stat, count)

    def _work(self) -> None:
        """Send waiting items through pipelines and exporters, in order, as many at a time as Scrapy would."""
        if self._is_starting:
            return  # an item that went through at once; the loop below goes on
        assert self.crawler is not None
        self._is_starting = True
        try:
            while self._is_open and self._entries and self._n_running < self._most_running:
                entry = self._entries.popleft()
                try:
                    items = decode_items(entry.signed, self._key, self._on_unreadable)
                except (NotVerified, ValueError) as error:
                    logger.error("vscrapy: a batch of items was refused: %s", error)
                    self._count("vscrapy/items_refused")
                    items = []
                receivers = item_receivers(self.crawler)
                if receivers is not None:
                    for item in items:
                        tell_of_item(self.crawler, item, receivers)
                    items = []
                batch = _Batch(entry.cursor, len(items))
                self._batches.append(batch)
                self._n_running += len(items)
                for item in items:
                    done = deferred_from_coro(start_itemproc(self.crawler, item))
                    done.addErrback(
                        lambda failure: logger.error("vscrapy: an item could not be taken", exc_info=failure.value)
                    )
                    done.addCallback(partial(self._on_item_through, batch))
                if not batch.n_open and self._entries:
                    assert self._call is not None
                    self._call(self._work)  # the rest, when what else waits here had its turn
                    break
        finally:
            self._is_starting = False
        self._settle()

    def _on_unreadable(self, error: Exception) -> None:
        logger.error("vscrapy: an item is lost, it cannot be read here: %r", error)
        self._count("vscrapy/items_not_read")
        self._count("item_scraped_count", -1)

    def _on_item_through(self, batch: _Batch, _: object) -> None:
        self._n_running -= 1
        batch.n_open -= 1
        self._work()

    def _settle(self) -> None:
        """Note what is through; after the last one, end."""
        while self._batches and not self._batches[0].n_open:
            self._done_cursor = self._batches.popleft().cursor
            self._room.release()
        if self._ending is not None and self._is_open and not (self._batches or self._entries):
            ending, self._ending = self._ending, None
            ending()

    # Called from other threads.

    def use_key(self, key: bytes) -> None:
        """The key that signs the task's items."""
        self._key = key

    def take(self, entry: ItemsEntry) -> None:
        """Take one batch of items; blocks while too many wait."""
        self._room.acquire()
        self._entries.append(entry)
        assert self._call is not None
        self._call(self._work)

    def done(self) -> str:
        """The cursor of the last batch that is through."""
        return self._done_cursor

    def flush(self) -> None:
        """Write what the feeds' files hold in memory: a sender that is killed then loses nothing that is through."""
        assert self.crawler is not None
        flush_feeds(self.crawler)

    def end(self, reason: str, stats: dict[str, Any]) -> None:
        """The task has ended: when all items are through, take its stats and close."""

        def close() -> None:
            assert self._hooks is not None
            try:
                self._take_stats(stats)
            except Exception:  # a project's own collector; the crawl ends all the same
                logger.exception("vscrapy: the task's stats could not be taken")
            self._hooks.close(reason)

        def begin() -> None:
            self._ending = close
            self._work()

        assert self._call is not None
        self._call(begin)

    def _take_stats(self, merged: dict[str, Any]) -> None:
        """Put the task's stats under home's own: what both counted is added."""
        assert self.crawler is not None
        collector = self.crawler.stats
        assert collector is not None
        here = dict(collector.get_stats())
        for name, value in here.items():
            other = merged.get(name)
            if isinstance(other, (int, float)) and isinstance(value, (int, float)):
                merged[name] = other + value
            else:
                merged.setdefault(name, value)
        if merged.get("item_scraped_count") == 0:
            del merged["item_scraped_count"]
        take_rates(merged)  # pipelines here drop items, and download
        put_all(collector, merged)


class HomeScheduler(BaseScheduler):
    """The SCHEDULER at home: nothing to do, and never idle; the task's end closes the spider."""

    home: ClassVar[Home]

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> HomeScheduler:
        """Make it for a crawler, as the engine does."""
        return cls(crawler)

    def open(self, spider: Spider) -> Deferred[None]:
        """Tell home."""
        return self.home.opened(self._crawler)

    def has_pending_requests(self) -> bool:
        """Always: only the task's end closes this spider."""
        return True

    def enqueue_request(self, request: Request) -> bool:
        """A pipeline at home has no way to schedule requests."""
        logger.error(
            "vscrapy: %s is not crawled: a pipeline that schedules requests must run in the crawl processes "
            '(VSCRAPY_PIPELINES = "worker")',
            request,
        )
        return False

    def next_request(self) -> Request | None:
        """None, ever."""
        return None
