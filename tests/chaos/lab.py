"""
The project that is crawled while things break, and what an undisturbed ``scrapy crawl`` makes of it.

What comes of a page depends on the page alone, never on the order, on the process, or on how often it was loaded:
so whatever happens to the crawl, its result has to be the same.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.integration.machine import COMMAND_S, Machine, Site, write_project
from tests.integration.outcome import dumped_stats, fixed

#: Numbered pages of the crawl; with those that hang on them it is 1,100.
N_PAGES: Final = 1000
SPIDER: Final = "web"

_SETTINGS: Final = """
    CONCURRENT_REQUESTS = 6
    DOWNLOADER_MIDDLEWARES = {"web.spiders.Overloaded": 600}
    ITEM_PIPELINES = {"web.spiders.Half": 300}
    LOG_LEVEL = "INFO"
"""

_SPIDERS: Final = """
    import asyncio

    from scrapy import Request, Spider
    from scrapy.exceptions import DropItem

    N_STARTS = 150


    class Overloaded:
        '''Some pages are answered with 503 at the first try: that depends on the request, not on the site.'''

        def process_response(self, request, response):
            if request.meta.get("ill") and not request.meta.get("retry_times"):
                return response.replace(status=503)
            return response


    class Half:
        '''Some items are dropped.'''

        def process_item(self, item):
            if item.get("number", 0) % 97 == 13:
                raise DropItem("unlucky")
            return item


    class Web(Spider):
        name = "web"

        def __init__(self, base, n_pages, **kwargs):
            super().__init__(**kwargs)
            self.base = base
            self.n_pages = int(n_pages)

        def page(self, number, callback=None, **kwargs):
            return Request(f"{self.base}/trouble/fine/{number}", callback or self.parse, **kwargs)

        def numbered(self, number):
            meta = {"ill": True} if number % 40 == 7 else {}
            return self.page(number, cb_kwargs={"number": number}, meta=meta)

        async def start(self):
            for number in range(N_STARTS):
                if number % 10 == 0:
                    await asyncio.sleep(0.01)
                    yield {"kind": "start", "number": number}
                yield self.numbered(number)
                if number % 50 == 20:
                    yield self.page(20000 + number, lambda _, n=number: self.parse_local(_, n))
                if number % 50 == 30:
                    yield self.numbered(number)

        async def parse(self, response, number):
            self.crawler.stats.inc_value("web/pages")
            yield {"kind": "page", "number": number, "value": response.css(".value::text").get()}
            if number % 7 == 0:
                await asyncio.sleep(0.05)
            for part in range(number % 4):
                yield {"kind": "part", "number": number, "part": part}
            for child in self.children(number):
                yield self.numbered(child)
            if number % 25 == 4:
                def parse_detail(response):
                    yield {"kind": "detail", "number": number}
                    yield self.page(30000 + number, self.parse_leaf)
                yield self.page(10000 + number, parse_detail)
            if number % 60 == 5:
                for _ in range(2):
                    yield self.page(40000 + number, self.parse_leaf, dont_filter=True)
            if number % 100 == 50:
                yield Request(f"{self.base}/trouble/moved/302/{number}", self.parse_leaf)
                yield Request(f"{self.base}/trouble/missing/{number}", self.parse_leaf)
                yield Request(f"{self.base}/trouble/broken/{number}", self.parse_broken)
                yield Request(f"{self.base}/trouble/dead/{number}", self.parse_leaf, errback=self.failed)
            if number % 30 == 29:
                await asyncio.sleep(0.2)
            yield {"kind": "end", "number": number}

        def children(self, number):
            found = [N_STARTS + number * 5 + step for step in range(7)]
            if number >= N_STARTS:
                found += [number // 2, number * 7 % self.n_pages]
            return [child for child in found if child < self.n_pages]

        def parse_leaf(self, response):
            yield {"kind": "leaf", "url": response.url.removeprefix(self.base)}

        def parse_local(self, response, number):
            yield {"kind": "local", "number": number}
            yield self.page(21000 + number, self.parse_leaf)

        def parse_broken(self, response):
            yield {"kind": "broken, before", "url": response.url.removeprefix(self.base)}
            raise ValueError("no value")

        def failed(self, failure):
            yield {"kind": "failed", "url": failure.request.url.removeprefix(self.base)}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a crawl."""

    #: Method and path of the pages that were loaded.
    pages: frozenset[str]
    #: Items as JSON with sorted keys, and how often each is there.
    items: Counter[str]
    #: The stats that must be the same in two runs.
    stats: Mapping[str, Any]

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"pages": sorted(self.pages), "items": self.items, "stats": self.stats})

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what :meth:`to_json` gave."""
        data = json.loads(text)
        return cls(frozenset(data["pages"]), Counter(data["items"]), data["stats"])


def write_lab(target: Path) -> Path:
    """Write the project to the directory *target*."""
    return write_project(target, textwrap.dedent(_SPIDERS), package="web", settings=textwrap.dedent(_SETTINGS))


def arguments(site: Site, n_pages: int) -> list[str]:
    """The spider's arguments."""
    return ["-a", f"base={site.base}", "-a", f"n_pages={n_pages}"]


def pages_of(site: Site) -> frozenset[str]:
    """What the site was asked for since its last reset."""
    return frozenset(f"{entry['method']} {entry['path']}" for entry in site.log())


def items_of(feed: Path) -> Counter[str]:
    """The items of a feed of JSON lines."""
    if not feed.exists():
        return Counter()
    return Counter(json.dumps(json.loads(line), sort_keys=True) for line in feed.read_text().splitlines())


def undisturbed(directory: Path, n_pages: int = N_PAGES) -> Result:
    """What ``scrapy crawl`` gives when nothing happens."""
    machine, site = Machine(directory / "home"), Site(directory / "site")
    try:
        project, feed = write_lab(directory / "project"), directory / "items.jsonl"
        command = ["scrapy", "crawl", SPIDER, *arguments(site, n_pages), "-O", str(feed)]
        finished = machine.run(command, project, 4 * COMMAND_S)
        assert finished.exit_code == 0, finished.output
        return Result(pages_of(site), items_of(feed), fixed(dumped_stats(finished)))
    finally:
        site.stop()
