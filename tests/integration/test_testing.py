"""``vscrapy.testing``: a crawler in a test's own process does what Scrapy does, on a task that ends with the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

from vscrapy import testing
from vscrapy.errors import ConfigError
from vscrapy.model import Endpoint
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.tasks import Tasks

#: Crawls the same spider several times, with Scrapy's scheduler and with ours; a line of JSON for each crawl.
CRAWLS: Final = """
import json
import os
import time

from scrapy import Request, Spider, signals
from scrapy.crawler import CrawlerRunner
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.utils.reactor import install_reactor

install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from vscrapy import testing
from vscrapy.model import Endpoint

ENDPOINT = Endpoint(os.environ["URL"], "test", os.environ["SECRET"])
SETTINGS = {"CONCURRENT_REQUESTS": 1, "TELNETCONSOLE_ENABLED": False, "LOG_ENABLED": False}


class Pages(Spider):
    name = "pages"

    async def start(self):
        yield Request("data:,first")
        yield {"item": "of start"}

    def parse(self, response):
        yield {"item": response.text}
        if response.text == "first":
            yield Request("data:,second", priority=1)
            yield Request("data:,second")
            yield Request("data:,third")


class Kept(Pages):
    name = "kept"
    left = 2

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.keep, signals.spider_idle)
        return spider

    def keep(self):
        self.left -= 1
        if self.left < 0:
            raise CloseSpider("enough")
        self.crawler.engine.crawl(Request(f"data:,kept-{self.left}"))
        raise DontCloseSpider


class Nothing(Spider):
    name = "nothing"

    async def start(self):
        return
        yield


def crawler(spider, settings, heard):
    made = CrawlerRunner(settings).create_crawler(spider)
    for name in ("engine_started", "spider_opened", "request_scheduled", "request_dropped", "response_received",
                 "request_reached_downloader", "request_left_downloader", "item_scraped", "spider_idle",
                 "spider_closed", "engine_stopped"):
        def hear(request=None, item=None, reason="", name=name, **_):
            heard.append(f"{name} {request.url if request else item or reason}")
        made.signals.connect(hear, getattr(signals, name), weak=False)
    return made


@inlineCallbacks
def crawls():
    for spider in (Pages, Kept, Nothing):
        for is_ours in (False, True) * 3:
            heard = []
            with testing.task(ENDPOINT) as task:
                made = crawler(spider, task.settings(SETTINGS) if is_ours else SETTINGS, heard)
                begin = time.perf_counter()
                yield made.crawl()
                seconds = time.perf_counter() - begin
                stats = made.stats.get_stats()
                told = task.stats() if is_ours else stats
            print(json.dumps({"spider": spider.name, "is_ours": is_ours, "heard": heard, "seconds": seconds,
                              "stats": {k: str(v) for k, v in stats.items()},
                              "told": {k: str(v) for k, v in told.items()}}))


crawls().addErrback(lambda failure: failure.printTraceback()).addBoth(lambda _: reactor.stop())
reactor.run()
"""
#: Stats that differ from run to run.
RUN: Final = (
    *("start_time", "finish_time", "elapsed_time_seconds", "memusage/max", "memusage/startup"),
    *("items_per_minute", "responses_per_minute"),  # None below a second, which a busy machine makes longer
)
#: A crawl with vscrapy may take so much longer than one without, on a busy machine (seconds); a look takes 0.5.
LONGER_S: Final = 0.4


@pytest.fixture(scope="module")
def crawls(server: Endpoint) -> list[dict[str, Any]]:
    """What the crawls have left behind."""
    env = {**os.environ, "URL": server.url, "SECRET": server.secret}
    done = subprocess.run(
        [sys.executable, "-c", CRAWLS], capture_output=True, text=True, timeout=100, env=env, check=True
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(crawls: list[dict[str, Any]], spider: str, *, is_ours: bool) -> list[dict[str, Any]]:
    """The three crawls of one spider."""
    found = [crawl for crawl in crawls if crawl["spider"] == spider and crawl["is_ours"] == is_ours]
    assert len(found) == 3
    return found


def fixed(stats: dict[str, str]) -> dict[str, str]:
    """Stats without those that differ from run to run."""
    return {name: value for name, value in stats.items() if name not in RUN}


def without_items(heard: list[str]) -> list[str]:
    """The signals but those of items."""
    return [signal for signal in heard if not signal.startswith("item_scraped")]


@pytest.mark.parametrize("spider", ["pages", "kept", "nothing"])
def test_stats_and_signals_are_scrapys(crawls: list[dict[str, Any]], spider: str) -> None:
    """
    The same stats, in the crawler and on the server; the same signals, in the same order, but for items: pipelines
    and the next request go on at the same time.
    """
    expected = of(crawls, spider, is_ours=False)[0]
    for crawl in of(crawls, spider, is_ours=True):
        assert fixed(crawl["stats"]) == fixed(expected["stats"])
        assert fixed(crawl["told"]) == fixed(expected["stats"])
        assert sorted(crawl["heard"]) == sorted(expected["heard"])
        assert without_items(crawl["heard"]) == without_items(expected["heard"])


@pytest.mark.parametrize("spider", ["pages", "kept", "nothing"])
def test_crawl_ends_without_a_visible_delay(crawls: list[dict[str, Any]], spider: str) -> None:
    """The end is counted: no pause before it."""
    ours, scrapys = (min(c["seconds"] for c in of(crawls, spider, is_ours=flag)) for flag in (True, False))
    assert ours < scrapys + LONGER_S


def test_task_ends_with_the_context(server: Endpoint, store: Store) -> None:
    """Even if nothing was crawled; nothing is left that has no lifetime."""
    with testing.task(server) as task:
        assert Tasks(store).record(task.taskid).state is TaskState.RUNNING
    assert Tasks(store).record(task.taskid).state is TaskState.FINISHED
    task.end()


def test_settings_with_a_scheduler_of_their_own_are_refused(server: Endpoint, store: Store) -> None:
    """As a crawl is."""
    with testing.task(server) as task, pytest.raises(ConfigError, match="SCHEDULER is"):
        task.settings({"SCHEDULER": "scrapy.core.scheduler.BaseScheduler"})
