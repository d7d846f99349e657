"""
Home of a detached task: when all is crawled, one process on a worker writes the feeds that are no local files.

It reads all items from Redis, where they stay, through Scrapy's own feed exporter. That the feeds are stored is
noted on Redis; until then another process takes over when this one dies.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy.crawl.log import Channel
from vscrapy.crawl.main import FAILED, connect, log_to, make_place, project_settings, run, spider_class
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.stats import encode_values, merge
from vscrapy.store.frontier import MOST_FEED_TRIES
from vscrapy.store.streams import BEGINNING, Cursors, Streams
from vscrapy.store.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings, Settings
    from twisted.internet.defer import Deferred

    from vscrapy.crawl.place import Place
    from vscrapy.home import Home
    from vscrapy.store.base import Store

logger = logging.getLogger("vscrapy")

#: Exit code: not all feeds are written.
NOT_STORED: Final = 73
#: Priority of the settings that make this process home; above Scrapy's "cmdline" (40).
PRIORITY: Final = 1000
#: Time between two tries when Redis is away (seconds).
RETRY_S: Final = 0.5
#: Redis may be away for so long when the feeds are stored already (seconds).
NOTE_S: Final = 60.0


def main(spec: dict[str, Any], channel_fd: int) -> int:
    """
    Write the feeds of one task.

    Args:
        spec: What the agent says of it: see ``vscrapy.worker``.
        channel_fd: The socket to the agent.

    Returns:
        The exit code: 0, ``NOT_STORED``, or ``vscrapy.crawl.main.FAILED``.
    """
    return run(spec, channel_fd, _write)


def _write(spec: dict[str, Any], job: dict[str, Any], channel: Channel) -> int:
    from scrapy.utils.misc import load_object

    from vscrapy import internals
    from vscrapy.home import Home, silence

    internals.check()
    store = connect(spec)
    place = make_place(store, spec, job, channel)
    place.handler.is_banner = False
    settings = project_settings(job)
    log_to(place, settings)
    loader = load_object(settings["SPIDER_LOADER_CLASS"]).from_settings(settings.frozencopy())
    spider = spider_class(loader, job, Path(spec["directory"]))
    take_over = _take_over(settings, job)
    silence(has_pipelines=False)
    reader = _Reader(store, place)
    home = Home(settings, has_pipelines=False, on_open=reader.begin, on_stop=lambda _: None)
    reader.home = home
    process: Any = internals.crawler_process(settings)
    crawler: Crawler = process.create_crawler(spider)

    def adapt(changed: BaseSettings) -> None:
        take_over(changed)
        home.adapt(changed, counts_items=False)

    internals.after_addons(crawler, adapt)
    internals.around_spider(crawler, lambda: internals.deaf(crawler))
    log_to(place, crawler.settings)
    process.crawl(crawler, **job["spider_args"])
    process.start(install_signal_handlers=False)
    if process.bootstrap_failed:
        return FAILED
    if not reader.has_all or not _is_stored(crawler):
        logger.error(
            "vscrapy: not all feeds of task %d are stored; they are tried %d times in all. Its items stay on Redis: "
            "vscrapy items %d -o FILE",
            place.taskid,
            MOST_FEED_TRIES,
            place.taskid,
        )
        return NOT_STORED
    tasks, stats = Tasks(store), crawler.stats
    assert stats is not None
    noted = _insist(lambda: tasks.stored(place.taskid, place.process), most_s=NOTE_S)
    if noted:
        _insist(lambda: tasks.keep_stats(place.taskid, encode_values(stats.get_stats())), most_s=NOTE_S)
    return 0


def _take_over(settings: Settings, job: dict[str, Any]) -> Callable[[BaseSettings], None]:
    """Switch off what is not for home; gives what does it again, after add-ons, and leaves of all feeds home's."""
    from vscrapy.home import remote_feeds

    if job["feeds"] is not None:
        own = settings.getdict("FEEDS")
        given = {uri: own[uri] if options is None else options for uri, options in job["feeds"].items()}
        settings.set("FEEDS", given, priority="cmdline")
    ours: dict[str, Any] = {
        "LOG_FILE": None,
        "LOG_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
    }
    if "REMOTE_CONTROL_ENABLED" in settings:  # since Scrapy 2.19
        ours["REMOTE_CONTROL_ENABLED"] = False
    settings.setdict(ours, priority=PRIORITY)

    def take_over(changed: BaseSettings) -> None:
        changed.setdict({**ours, "FEEDS": remote_feeds(changed)}, priority=PRIORITY)
        if "FEED_URI" in changed:
            changed.set("FEED_URI", None, priority=PRIORITY)

    return take_over


def _is_stored(crawler: Crawler) -> bool:
    """Did the feed exporter work, and did no storage refuse?"""
    from scrapy.extensions.feedexport import FeedExporter

    assert crawler.extensions is not None
    assert crawler.stats is not None
    is_there = any(isinstance(extension, FeedExporter) for extension in crawler.extensions.middlewares)
    return is_there and not any(name.startswith("feedexport/failed_count/") for name in crawler.stats.get_stats())


def _insist(ask: Callable[[], Any], *, most_s: float | None = None) -> Any:
    """Ask until Redis answers; None: it did not for *most_s*."""
    deadline_s = None if most_s is None else time.monotonic() + most_s
    while True:
        try:
            return ask()
        except (StoreUnavailable, StoreRefused) as error:
            if deadline_s is not None and time.monotonic() > deadline_s:
                logger.error("vscrapy: %s", error)
                return None
            time.sleep(RETRY_S)


class _Reader:
    """Hands the items of a task to home, in a thread."""

    home: Home

    def __init__(self, store: Store, place: Place) -> None:
        self._streams = Streams(store)
        self._tasks = Tasks(store)
        self._place = place
        #: All items were read, and this process was still home then.
        self.has_all = False

    def begin(self) -> Deferred[None]:
        """The spider is about to open; called by home."""
        from twisted.internet.defer import succeed

        self.home.use_key(self._place.key)
        threading.Thread(target=self._read, name="vscrapy-items", daemon=True).start()
        return succeed(None)

    def _read(self) -> None:
        taskid = self._place.taskid
        try:
            reason = _insist(lambda: self._tasks.record(taskid)).reason
            self._take_items()
            counted, values = _insist(lambda: self._tasks.stats(taskid))
            # Whoever is not home any more must not store: the feeds are another's.
            self.has_all = _insist(lambda: self._tasks.is_home(taskid, self._place.process))
        except Exception:
            logger.exception("vscrapy: home cannot read the items of task %d", taskid)
        if self.has_all:
            self.home.end(reason, merge(counted, values, reason=reason))
            return
        # Before a feed is stored.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(NOT_STORED)

    def _take_items(self) -> None:
        cursor = BEGINNING
        while True:
            cursors = Cursors(log="$", items=cursor)
            _, entries = _insist(
                lambda cursors=cursors: self._streams.read(  # type: ignore[misc]
                    self._place.taskid, cursors, with_items=True
                )
            )
            for entry in entries:
                self.home.take(entry)
                cursor = entry.cursor
            if not entries:
                return
