"""Whose request it is: what a callback yields is credited to its own page, whatever drives it."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: A crawl in one process: 40 pages that yield five requests each, and a count of those that know their page.
CRAWL = """
import sys
from collections import Counter

import scrapy
from scrapy.core.scheduler import BaseScheduler
from scrapy.crawler import CrawlerProcess

from vscrapy.internals import ORIGIN, EngineHooks

counts = Counter()


class Scheduler(BaseScheduler):
    def __init__(self, crawler):
        self.crawler = crawler
        self.queue = []
        self.running = set()

    @classmethod
    def from_crawler(cls, crawler):
        return cls(crawler)

    def open(self, spider):
        hooks = EngineHooks(self.crawler, on_done=self.running.discard, knows=self.running.__contains__)
        hooks.install()

    def has_pending_requests(self):
        return bool(self.queue)

    def enqueue_request(self, request):
        page = request.meta.get("page")
        if page is not None:
            origin = ORIGIN.get()
            counts["right" if origin is not None and origin.url == page else "wrong"] += 1
        self.queue.append(request)
        return True

    def next_request(self):
        request = self.queue.pop(0) if self.queue else None
        ORIGIN.set(request)
        if request is not None:
            self.running.add(request)
        return request


class Pages(scrapy.Spider):
    name = "pages"

    async def start(self):
        for number in range(40):
            yield scrapy.Request(f"data:,{number}", dont_filter=True)

    def parse(self, response):
        if "page" not in response.meta:
            for number in range(5):
                url = f"{response.url}-{number}"
                yield scrapy.Request(url, meta={"page": response.url}, dont_filter=True)


settings = {
    "TWISTED_REACTOR": sys.argv[1],
    "SCHEDULER": Scheduler,
    "LOG_LEVEL": "ERROR",
    "CONCURRENT_REQUESTS": 8,
    "TELNETCONSOLE_ENABLED": False,
}
process = CrawlerProcess(settings)
process.crawl(Pages)
process.start()
print(counts["right"], counts["wrong"])
"""


@pytest.mark.parametrize(
    "reactor",
    ["twisted.internet.asyncioreactor.AsyncioSelectorReactor", "twisted.internet.selectreactor.SelectReactor"],
)
def test_origin_of_a_request_is_the_page_whose_callback_yielded_it(reactor: str) -> None:
    """All 200 requests are credited to their own page, under asyncio and without it."""
    done = subprocess.run([sys.executable, "-c", CRAWL, reactor], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["200", "0"], done.stderr
