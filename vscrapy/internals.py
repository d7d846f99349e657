"""
Every private part of Scrapy that vscrapy leans on, and nothing else.

:func:`check` says at start what is missing. Tried with Scrapy 2.13 to 2.19.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn

import scrapy
import scrapy.cmdline
import scrapy.commands
import scrapy.core.downloader
import scrapy.crawler
import twisted
from pydispatch.dispatcher import getAllReceivers, liveReceivers
from scrapy import signals
from scrapy.commands import crawl, runspider
from scrapy.core.downloader import Downloader, Slot
from scrapy.core.engine import ExecutionEngine, _Slot
from scrapy.core.scraper import Scraper
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.extensions.closespider import CloseSpider
from scrapy.extensions.feedexport import FeedExporter
from scrapy.pipelines import ItemPipelineManager
from scrapy.spidermiddlewares.httperror import HttpError, HttpErrorMiddleware
from scrapy.utils.defer import maybe_deferred_to_future
from scrapy.utils.httpobj import urlparse_cached
from scrapy.utils.misc import build_from_crawler
from scrapy.utils.reactor import is_asyncio_reactor_installed, is_reactor_installed
from twisted.internet.defer import Deferred, succeed

from vscrapy.errors import ConfigError, IncompatibleScrapy

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from scrapy import Request, Spider
    from scrapy.commands import ScrapyCommand
    from scrapy.crawler import Crawler, CrawlerProcess
    from scrapy.http import Response
    from scrapy.settings import BaseSettings, Settings
    from scrapy.spiderloader import SpiderLoaderProtocol
    from twisted.python.failure import Failure

#: The request, or the output of ``start()``, on whose behalf the running code works. Callbacks, errbacks,
#: middlewares and pipelines see the one that they belong to, across ``await``.
ORIGIN: Final[ContextVar[Any]] = ContextVar("vscrapy_origin", default=None)

#: The logger of Scrapy's experimental download handlers.
HANDLERS_LOGGER: Final = "scrapy.core.downloader.handlers._base_streaming"
_ASYNCIO_REACTOR: Final = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"

#: Name of the engine's method that closes the spider, and that all its own closing goes through.
_CLOSE: Final = "close_spider_async" if hasattr(ExecutionEngine, "close_spider_async") else "close_spider"


def check() -> None:
    """
    See that all private parts are there.

    Raises:
        IncompatibleScrapy: Names the first one that is missing.
    """
    needed: list[tuple[object, str]] = [
        (ExecutionEngine, "_handle_downloader_output"),
        (ExecutionEngine, _CLOSE),
        (_Slot, "remove_request"),
        (Scraper, "_process_spidermw_output"),
        (runspider, "_import_file"),
        (Downloader, "_process_queue"),
        (Downloader, "_get_slot"),
        (Downloader, "_enqueue_request"),
        (RobotsTxtMiddleware, "robot_parser"),
        (RobotsTxtMiddleware, "_parse_robots"),
        (RobotsTxtMiddleware, "_robots_error"),
        (scrapy.cmdline, "_get_commands_dict"),
        (scrapy.cmdline, "_get_commands_from_module"),
        (scrapy.crawler.Crawler, "_create_spider"),
    ]
    for owner, name in needed:
        if not hasattr(owner, name):
            raise IncompatibleScrapy(
                f"Scrapy {scrapy.__version__} has no {getattr(owner, '__name__', owner)}.{name}, which vscrapy "
                "needs; install a Scrapy from 2.13 to 2.19, or a newer vscrapy"
            )


def check_downloads() -> None:
    """
    See that Scrapy downloads with the Twisted that there is: before 2.13.4 it does not say which one it needs.

    Raises:
        IncompatibleScrapy: It does not.
    """
    try:
        importlib.import_module("scrapy.core.downloader.handlers.http11")
    except ImportError as error:
        raise IncompatibleScrapy(
            f"Scrapy {scrapy.__version__} does not run with Twisted {twisted.__version__}, which is installed beside "
            f"it ({error}); with a Scrapy before 2.13.4, name twisted<=25.5.0 beside it"
        ) from error


class EngineHooks:
    """
    What one running engine tells us, and what we ask of it.

    Args:
        on_done: Called with a request when the engine is done with it: its callback is exhausted, its items
            went through the pipelines. Also called for requests that were downloaded inline.
        on_closing: Called with the reason as soon as the spider begins to close.
        knows: Is this a request that requests and items may come of?
    """

    def __init__(
        self,
        crawler: Crawler,
        *,
        on_done: Callable[[Request], None] = lambda _: None,
        on_closing: Callable[[str], None] = lambda _: None,
        knows: Callable[[Request], bool] = lambda _: False,
    ) -> None:
        self._knows = knows
        self._crawler = crawler
        self._engine: Any = crawler.engine
        self._may_close = False
        self._on_done = on_done
        self._on_closing = on_closing

    def install(self) -> None:
        """Put the hooks in; the engine must have its slot (from ``Scheduler.open`` on)."""
        engine, slot = self._engine, self._engine._slot
        remove_request = slot.remove_request
        handle_output = engine._handle_downloader_output
        close = getattr(engine, _CLOSE)

        def removed(request: Request) -> None:
            remove_request(request)
            self._on_done(request)

        def handle(result: Any, request: Request) -> Any:
            token = ORIGIN.set(request)
            try:
                return handle_output(result, request)
            finally:
                ORIGIN.reset(token)

        def closing(*args: Any, **kwargs: Any) -> Any:
            if self._engine._slot is not None and self._engine._slot.closing is None:
                self._on_closing(str(kwargs.get("reason") or (args[1] if len(args) > 1 else "cancelled")))
            return close(*args, **kwargs)

        scraper = engine.scraper
        process_output = scraper._process_spidermw_output

        def process(output: Any, response: Any, *args: Any) -> Any:
            # Outside asyncio, and before Scrapy 2.14, callbacks are iterated by Twisted, without their context.
            with self._under(response):
                return process_output(output, response, *args)

        if hasattr(scraper, "_process_spidermw_output_async"):
            process_output_async = scraper._process_spidermw_output_async

            def process_async(output: Any, response: Any) -> Any:
                # Once for each output: where the context is kept, there is nothing to do.
                request = getattr(response, "request", None)
                if request is None or request is ORIGIN.get() or not self._knows(request):
                    return process_output_async(output, response)
                return process_under(output, response)

            async def process_under(output: Any, response: Any) -> None:
                with self._under(response):
                    await process_output_async(output, response)

            scraper._process_spidermw_output_async = process_async
        scraper._process_spidermw_output = process
        slot.remove_request = removed
        engine._handle_downloader_output = handle
        setattr(engine, _CLOSE, closing)

    @contextmanager
    def _under(self, response: Any) -> Iterator[None]:
        """Work on behalf of the request that a response, or a failure, belongs to."""
        request = getattr(response, "request", None)
        before = ORIGIN.get()
        if request is not None and self._knows(request):
            ORIGIN.set(request)
        try:
            yield
        finally:
            ORIGIN.set(before)

    def keep_open(self, on_close: Callable[[str], None]) -> None:
        """Whoever closes the spider from now on only tells *on_close* the reason; :meth:`close` closes it."""
        close = getattr(self._engine, _CLOSE)

        def closing(*args: Any, **kwargs: Any) -> Any:
            if self._may_close or self.is_closing:
                return close(*args, **kwargs)
            on_close(str(kwargs.get("reason") or (args[1] if len(args) > 1 else "cancelled")))
            return _nothing() if _CLOSE == "close_spider_async" else succeed(None)

        setattr(self._engine, _CLOSE, closing)

    def replace_start(self, wrap: Callable[[AsyncIterator[Any]], AsyncIterator[Any]] | None) -> None:
        """Read ``start()`` through *wrap*; None: this process does not run it."""
        if self._engine._start is not None:
            self._engine._start = None if wrap is None else wrap(self._engine._start)

    def mark_start_failed(self) -> None:
        """``start()`` has failed on another process: this engine closes for that reason, too, where Scrapy has it."""
        if hasattr(self._engine, "_start_error"):  # not in Scrapy 2.13
            self._engine._start_error = True

    def wake(self) -> None:
        """Let the engine ask the scheduler again, soon."""
        if self._engine._slot is not None:
            self._engine._slot.nextcall.schedule()

    @property
    def is_closing(self) -> bool:
        """Does the spider close, or is it closed?"""
        slot = self._engine._slot
        return slot is None or slot.closing is not None or self._engine.spider is None

    def close(self, reason: str) -> None:
        """Begin to close the spider, as Scrapy does."""
        if self.is_closing:
            return
        self._may_close = True
        if _CLOSE == "close_spider_async":
            from scrapy.utils.defer import deferred_from_coro

            deferred_from_coro(self._engine.close_spider_async(reason=reason))
        else:
            self._engine.close_spider(self._engine.spider, reason)


def hook_robots(
    middleware: Any,
    *,
    wait: Callable[[str], Deferred[None] | None],
    on_known: Callable[[str, bytes | None], None],
) -> None:
    """
    Have a say in the fetching of robots.txt.

    Args:
        wait: Called with a site (host and port) whose robots.txt is not known; what it returns is waited for before
            it is fetched, if it is not known by then.
        on_known: Called with a site and the body that was fetched; None when there is none to obey.
    """
    find, parse, fail = middleware.robot_parser, middleware._parse_robots, middleware._robots_error

    def waits_for(request: Request) -> Deferred[None] | None:
        site = urlparse_cached(request).netloc
        return None if site in middleware._parsers else wait(site)

    async def found(request: Request, *args: Any) -> Any:  # since Scrapy 2.14
        waits = waits_for(request)
        if waits is not None:
            await maybe_deferred_to_future(waits)
        return await find(request, *args)

    def found_now(request: Request, *args: Any) -> Any:
        waits = waits_for(request)
        return find(request, *args) if waits is None else waits.addCallback(lambda _: find(request, *args))

    async def parsed(response: Any, site: str, *args: Any) -> None:  # since Scrapy 2.14
        on_known(site, response.body)
        await parse(response, site, *args)

    def parsed_now(response: Any, site: str, *args: Any) -> None:
        on_known(site, response.body)
        parse(response, site, *args)

    def failed(error: Any, site: str) -> None:
        on_known(site, None)
        fail(error, site)

    middleware.robot_parser = found if inspect.iscoroutinefunction(find) else found_now
    middleware._parse_robots = parsed if inspect.iscoroutinefunction(parse) else parsed_now
    middleware._robots_error = failed


def know_robots(middleware: Any, site: str, body: bytes | None) -> None:
    """Tell of a robots.txt that another process has fetched."""
    if site not in middleware._parsers:
        parser = None if body is None else build_from_crawler(middleware._parserimpl, middleware.crawler, body)
        middleware._parsers[site] = parser


def hook_failures(
    crawler: Crawler,
    *,
    on_download_error: Callable[[Failure, Request], None],
    on_ignored: Callable[[Response], None],
) -> None:
    """
    Be told of failures that no signal tells of; the engine must have its scraper.

    Args:
        on_download_error: Called when no errback took care of a download that failed.
        on_ignored: Called when HttpErrorMiddleware keeps a response from the spider, for good.
    """
    formatter: Any = crawler.logformatter
    download_error = formatter.download_error

    def told(failure: Failure, request: Request, *args: Any, **kwargs: Any) -> Any:
        on_download_error(failure, request)
        return download_error(failure, request, *args, **kwargs)

    formatter.download_error = told
    engine: Any = crawler.engine
    methods = engine.scraper.spidermw.methods["process_spider_exception"]
    for index, method in enumerate(methods):
        if isinstance(getattr(method, "__self__", None), HttpErrorMiddleware):
            methods[index] = _told_of_ignored(method, crawler, on_ignored)


def _told_of_ignored(method: Callable[..., Any], crawler: Crawler, on_ignored: Callable[[Response], None]) -> Any:
    spider = inspect.signature(method).parameters.get("spider")
    # Before Scrapy 2.14 it must be given, later it should not.
    wants_spider = spider is not None and spider.default is inspect.Parameter.empty

    def ignore(response: Response, exception: Exception, spider: Spider | None = None) -> Any:
        given = {"spider": crawler.spider} if wants_spider else {}
        result = method(response=response, exception=exception, **given)
        if result is not None and isinstance(exception, HttpError):
            on_ignored(response)
        return result

    return ignore


async def _nothing() -> None:
    """What there is to await of a spider that does not close."""


class DownloadSlots:
    """The downloader's slots: the limits that the project gives them, and what this process may use of them."""

    def __init__(self, crawler: Crawler) -> None:
        self._downloader: Any = crawler.engine.downloader
        self._spider = crawler.spider
        # Before Scrapy 2.14 it takes the spider first.
        self._wants_spider = "spider" in inspect.signature(self._downloader._process_queue).parameters
        #: Slot -> the most that runs there at once; None stands for all slots.
        self._limits: dict[str | None, int] = {}
        #: What limited slots had before.
        self._own: dict[str, int] = {}
        self._on_put: Callable[[str], None] = lambda _: None
        self._on_left: Callable[[str], None] = lambda _: None
        self._hook()

    @property
    def most(self) -> int:
        """Concurrent downloads of a slot; 0: no limit."""
        most = int(self._downloader.ip_concurrency or self._downloader.domain_concurrency)
        if hasattr(scrapy.core.downloader, "_get_concurrency_delay"):  # older versions of Scrapy let a spider say it
            return int(getattr(self._spider, "max_concurrent_requests", most))
        return most

    def most_of(self, slot: str) -> int:
        """As :attr:`most`, of one slot."""
        return int(self.special.get(slot, {}).get("concurrency", self.most))

    @property
    def special(self) -> dict[str, dict[str, Any]]:
        """The project's DOWNLOAD_SLOTS."""
        return dict(self._downloader.per_slot_settings)

    def active(self, slot: str | None) -> int:
        """Downloads of a slot that wait or run; None: of the slot with the most."""
        return self._count(slot, lambda found: len(found.active))

    def running(self, slot: str | None) -> int:
        """Downloads of a slot that have begun and not ended; None: of the slot with the most."""
        return self._count(slot, _running)

    def _count(self, slot: str | None, count: Callable[[Any], int]) -> int:
        slots = self._downloader.slots
        if slot is not None:
            return count(slots[slot]) if slot in slots else 0
        return max((count(found) for found in slots.values()), default=0)

    def listen(self, on_put: Callable[[str], None], on_left: Callable[[str], None]) -> None:
        """
        Be told of downloads.

        Args:
            on_put: Called with the slot that a download is about to be put into.
            on_left: Called with a slot that is, or was, limited or watched, when a download there is over.
        """
        self._on_put, self._on_left = on_put, on_left

    def watch(self, slot: str | None) -> None:
        """Tell when downloads of a slot are over; None: of any slot that there is."""
        for key, each in self._found(slot):
            self._make_active(key, each)

    def limit(self, slot: str | None, most: int | None) -> None:
        """
        Run no more downloads of a slot than *most* at once; None: of any slot.

        Args:
            most: None: as Scrapy does, which with asyncio starts some too many.
        """
        if most is None:
            self._limits.pop(slot, None)
        else:
            self._limits[slot] = most
        found = self._found(slot)
        for key, each in found:
            self._apply(key, each, most)
            self._fill(each)
        if not found and slot is not None:
            self._own.pop(slot, None)  # Scrapy has forgotten the slot

    def _found(self, slot: str | None) -> list[tuple[str, Any]]:
        slots = self._downloader.slots
        if slot is None:
            return list(slots.items())
        return [(slot, slots[slot])] if slot in slots else []

    def _apply(self, key: str, slot: Any, most: int | None) -> None:
        # The class of the object, for Scrapy's slots take no attributes; both classes have the same layout.
        if most is None:
            slot.concurrency = self._own.pop(key, slot.concurrency)
            if not slot.queue:  # else all that waits would begin at once
                slot.__class__ = Slot
            return
        self._own.setdefault(key, slot.concurrency)
        slot.concurrency = most
        slot.__class__ = _StrictSlot
        self._make_active(key, slot)

    def _make_active(self, key: str, slot: Any) -> None:
        if not isinstance(slot.active, _Active):
            slot.active = _Active(slot.active, lambda: self._leave(key, slot))

    def _leave(self, key: str, slot: Any) -> None:
        self._fill(slot)
        self._on_left(key)

    def _fill(self, slot: Any) -> None:
        """Let the slot begin as many of its waiting downloads as it may."""
        if self._wants_spider:
            self._downloader._process_queue(self._spider, slot)
        else:
            self._downloader._process_queue(slot)

    def _hook(self) -> None:
        """Tell of what is put in, and let slots that are made later have their limits, too."""
        downloader = self._downloader
        get_slot, enqueue = downloader._get_slot, downloader._enqueue_request

        def hooked(*args: Any, **kwargs: Any) -> tuple[str, Any]:
            n_slots = len(downloader.slots)
            key, slot = get_slot(*args, **kwargs)
            if len(downloader.slots) != n_slots:
                self._own.pop(key, None)
                most = self._limits.get(key, self._limits.get(None))
                if most is not None:
                    self._apply(key, slot, most)
            return key, slot

        @wraps(enqueue)
        def put(request: Request, *args: Any, **kwargs: Any) -> Any:
            self._on_put(downloader.get_slot_key(request))
            return enqueue(request, *args, **kwargs)

        downloader._get_slot = hooked
        downloader._enqueue_request = put


class _StrictSlot(Slot):
    """A downloader slot that counts a download as begun when it leaves the queue, not when its task first runs."""

    __slots__ = ()

    def free_transfer_slots(self) -> int:
        return self.concurrency - _running(self)


class _Active(set[Any]):
    """A slot's unfinished requests; Scrapy fills the slot as a download ends, we once more as it is forgotten."""

    def __init__(self, requests: Iterable[Any], on_removed: Callable[[], None]) -> None:
        super().__init__(requests)
        self._on_removed = on_removed

    def remove(self, request: Any) -> None:
        super().remove(request)
        self._on_removed()


def _running(slot: Any) -> int:
    # Not slot.transferring: with asyncio, a download is in neither it nor the queue until its task's first step.
    return len(slot.active) - len(slot.queue)


def slot_key(crawler: Crawler, request: Request) -> str:
    """The downloader slot that a request belongs to."""
    engine: Any = crawler.engine
    return str(engine.downloader.get_slot_key(request))


#: Who hears of an item, and is done with it when the call returns.
_HEAR_AT_ONCE: Final = (FeedExporter.item_scraped, CloseSpider.item_scraped)


def item_receivers(crawler: Crawler) -> list[Callable[..., Any]] | None:
    """
    Who hears of items, where :func:`tell_of_item` does: there are no pipelines, and none but Scrapy's own extensions,
    which never wait. None: an item takes :func:`start_itemproc`.

    Scrapy's way makes a task of asyncio's for each item, and one for each who hears, which takes ten times as long as
    writing the item does; and to ask again and again who hears takes longer than that as well.
    """
    engine: Any = crawler.engine
    pipelines = getattr(engine.scraper, "itemproc", None)
    if type(pipelines) is not ItemPipelineManager or pipelines.methods["process_item"]:
        return None
    heard_by = list(liveReceivers(getAllReceivers(crawler, signals.item_scraped)))
    return heard_by if all(getattr(one, "__func__", None) in _HEAR_AT_ONCE for one in heard_by) else None


def tell_of_item(crawler: Crawler, item: Any, receivers: Iterable[Callable[..., Any]]) -> None:
    """Tell of an item that came out of the pipelines; what a receiver raises is logged as Scrapy does."""
    for receiver in receivers:
        try:
            receiver(item=item, spider=crawler.spider)
        except Exception:
            logging.getLogger("scrapy.utils.signal").exception(
                "Error caught on signal handler: %(receiver)s",
                {"receiver": receiver},
                extra={"spider": crawler.spider},
            )


def start_itemproc(crawler: Crawler, item: Any) -> Any:
    """Send an item through the pipelines; an awaitable that ends when it came out."""
    engine: Any = crawler.engine
    scraper = engine.scraper
    if hasattr(scraper, "start_itemproc_async"):
        return scraper.start_itemproc_async(item, response=None)
    from scrapy.utils.defer import maybe_deferred_to_future

    return maybe_deferred_to_future(scraper.start_itemproc(item, response=None))


def flush_feeds(crawler: Crawler) -> None:
    """Write what the files of the feeds hold in memory. From any thread."""
    exporter = crawler.get_extension(FeedExporter)
    for slot in list(exporter.slots) if exporter is not None else ():
        file = slot.file
        if file is not None and not file.closed:
            with suppress(ValueError):  # it was closed in between, which has written it
                file.flush()


def thread_caller() -> Callable[..., Any]:
    """
    How another thread runs something in the loop that runs here: a reactor's, or asyncio's own.

    Must be called in that loop.
    """
    if is_reactor_installed():
        from twisted.internet import reactor

        caller: Callable[..., Any] = reactor.callFromThread
        return caller
    return asyncio.get_running_loop().call_soon_threadsafe


def call_later(delay_s: float, function: Callable[[], object]) -> Callable[[], object]:
    """
    Call a function later, in the loop that runs here: a reactor's, or asyncio's own. Must be called in that loop.

    Returns:
        What takes it back, until it was called.
    """
    if is_reactor_installed():
        from twisted.internet import reactor

        later: Callable[..., Any] = getattr(reactor, "callLater")  # noqa: B009 - a module, by its type
        cancel: Callable[[], object] = later(delay_s, function).cancel
        return cancel
    return asyncio.get_running_loop().call_later(delay_s, function).cancel


def is_asyncio() -> bool:
    """Does asyncio drive the code here?"""
    return not is_reactor_installed() or is_asyncio_reactor_installed()


def crawler_process(settings: Settings) -> CrawlerProcess:
    """Make the process object that ``scrapy crawl`` would make for these settings."""
    base = getattr(scrapy.crawler, "CrawlerProcess")  # noqa: B009 - the attribute's type differs by version
    choice = base
    if "FORCE_CRAWLER_PROCESS" in settings:  # since Scrapy 2.14
        is_reactorless = "TWISTED_REACTOR_ENABLED" in settings and not settings.getbool("TWISTED_REACTOR_ENABLED")
        is_asyncio_wanted = settings["TWISTED_REACTOR"] == _ASYNCIO_REACTOR and not settings.getbool(
            "FORCE_CRAWLER_PROCESS"
        )
        if is_reactorless or is_asyncio_wanted:
            choice = scrapy.crawler.AsyncCrawlerProcess
    process: CrawlerProcess = choice(settings)
    return process


def import_file(path: Path) -> ModuleType:
    """
    Import a file as ``scrapy runspider`` does.

    Raises:
        ImportError, ValueError: As there.
    """
    module: ModuleType = runspider._import_file(path)
    return module


def around_spider(crawler: Crawler, context: Callable[[], AbstractContextManager[None]]) -> None:
    """Have a crawler make its spider within a context."""
    create = crawler._create_spider

    def create_within(*args: Any, **kwargs: Any) -> Spider:
        with context():
            return create(*args, **kwargs)

    crawler._create_spider = create_within  # type: ignore[method-assign]


@contextmanager
def deaf(crawler: Crawler) -> Iterator[None]:
    """Who is made now hears no signals of this crawler."""
    connect = crawler.signals.connect
    crawler.signals.connect = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        crawler.signals.connect = connect  # type: ignore[method-assign]


def after_addons(crawler: Crawler, change: Callable[[BaseSettings], None]) -> None:
    """Have *change* the last word on a crawler's settings: add-ons change them when the crawl begins."""
    addons: Any = crawler.addons
    load = addons.load_settings

    def load_and_change(settings: BaseSettings) -> None:
        load(settings)
        change(settings)

    addons.load_settings = load_and_change


def crawl_settings(settings: Settings, spider_class: type[Spider]) -> Settings:
    """
    The settings of a crawl, as its spider and add-ons will have made them when it begins.

    The crawl makes its add-ons anew. So what these here say is not shown; and if one raises, or needs what is not
    there before a crawl, all of them are left out: the crawl tells of it.
    """
    updated = settings.copy()
    spider_class.update_settings(updated)
    if not updated["ADDONS"]:
        return updated
    with _hushed():
        try:
            crawler = scrapy.crawler.Crawler(spider_class, settings)
            crawler.addons.load_settings(crawler.settings)
        except Exception:  # noqa: BLE001 - a project's add-on may raise anything; it will again, where it is shown
            return updated
    return crawler.settings


@contextmanager
def _hushed() -> Iterator[None]:
    """What is said now, in whatever way, is not shown; and a reactor that is installed now is not there after it."""
    level = logging.root.manager.disable
    had_reactor = is_reactor_installed()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if not had_reactor:  # the crawler process is to install the project's own
            sys.modules.pop("twisted.internet.reactor", None)


def check_scheduler(settings: BaseSettings) -> None:
    """
    See that the project has no scheduler of its own.

    Raises:
        ConfigError: It has.
    """
    from scrapy.settings.default_settings import SCHEDULER
    from scrapy.utils.misc import load_object

    if load_object(settings["SCHEDULER"]) is not load_object(SCHEDULER):
        raise ConfigError(
            f"SCHEDULER is {settings['SCHEDULER']!r}: a project's own scheduler cannot share its queue with other "
            f"processes; remove the setting (-s SCHEDULER={SCHEDULER}) or use scrapy crawl"
        )


def decides_alone(settings: BaseSettings) -> bool:
    """Does DUPEFILTER_CLASS decide by itself, neither by Scrapy's way nor never?"""
    from scrapy.dupefilters import BaseDupeFilter, RFPDupeFilter
    from scrapy.utils.misc import load_object

    cls = load_object(settings["DUPEFILTER_CLASS"])
    is_shared = issubclass(cls, RFPDupeFilter) and cls.request_seen is RFPDupeFilter.request_seen
    return not (is_shared or cls is BaseDupeFilter)


def counts_as_scrapy(dupefilter: Any) -> bool:
    """Does it count what it filters under the name that Scrapy's own filter gives that?"""
    from scrapy.dupefilters import RFPDupeFilter

    return type(dupefilter).log is RFPDupeFilter.log


def has_own_cache(settings: BaseSettings) -> bool:
    """Is HTTPCACHE_STORAGE neither of Scrapy's nor made of them?"""
    from scrapy.extensions.httpcache import DbmCacheStorage, FilesystemCacheStorage
    from scrapy.utils.misc import load_object

    return not issubclass(load_object(settings["HTTPCACHE_STORAGE"]), (DbmCacheStorage, FilesystemCacheStorage))


def spider_loader(settings: BaseSettings) -> SpiderLoaderProtocol:
    """Make the project's spider loader."""
    from scrapy.utils.misc import load_object

    loader: SpiderLoaderProtocol = load_object(settings["SPIDER_LOADER_CLASS"]).from_settings(settings.frozencopy())
    return loader


#: Scrapy's commands that are replaced.
_OURS: Final[Mapping[str, type[ScrapyCommand]]] = {"crawl": crawl.Command, "runspider": runspider.Command}


def execute(argv: list[str], replace: Callable[[dict[str, ScrapyCommand]], None], *, is_ours: bool) -> NoReturn:
    """
    Run Scrapy's command line with some of its commands replaced.

    Args:
        replace: Gets the commands that are available here, by name, and may change them.
        is_ours: The command that will run is one of the replaced ones.

    Raises:
        SystemExit: Always, with the exit code.
    """
    original = scrapy.cmdline._get_commands_dict

    # Is this a project? As it is asked first; to name what is missing, it is asked as though it were one.
    within: list[bool] = []

    def commands(settings: BaseSettings, inproject: bool) -> dict[str, ScrapyCommand]:
        within.append(inproject)
        found = original(settings, inproject)
        replace(found)
        return found

    from_module = scrapy.cmdline._get_commands_from_module

    def few(module: str, inproject: bool) -> dict[str, ScrapyCommand]:
        if module != "scrapy.commands" or not within[0]:
            return from_module(module, inproject)
        return {name: cls() for name, cls in _OURS.items()}

    replaced: dict[str, Any] = {"_get_commands_dict": commands}
    if is_ours:
        # Each of Scrapy's other commands would be imported, and with them what only these need.
        replaced["_get_commands_from_module"] = few
    if not hasattr(scrapy.commands.ScrapyCommand, "requires_crawler_process"):
        # Before Scrapy 2.14 each command gets a CrawlerProcess, which speaks as it is made; ours make their own.
        process = getattr(scrapy.cmdline, "CrawlerProcess")  # noqa: B009 - imported there, not exported
        replaced["CrawlerProcess"] = lambda settings: None if is_ours else process(settings)
    originals = {name: getattr(scrapy.cmdline, name) for name in replaced}
    sys.argv[0] = "scrapy"  # what the option parser calls the program in its errors
    try:
        for name, value in replaced.items():
            setattr(scrapy.cmdline, name, value)
        scrapy.cmdline.execute(argv)
        raise AssertionError("Scrapy ends the process itself")
    finally:
        for name, value in originals.items():
            setattr(scrapy.cmdline, name, value)
