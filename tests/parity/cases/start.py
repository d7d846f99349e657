"""How a crawl starts: ``start_urls``, ``start()``, and what may go wrong in it."""

from __future__ import annotations

from typing import Final

from tests.parity.case import Case
from tests.parity.run import Run

#: Start requests that wait on Redis at a time, at most: 1000, and what is on its way.
_MOST_AHEAD: Final = 1500


def _is_bounded(run: Run) -> list[str]:
    if 300 < run.deepest < _MOST_AHEAD:
        return []
    return [f"{run.deepest} start requests waited on Redis at a time"]


CASES: Final = [
    Case(
        name="start-urls",
        group="start",
        is_fast=True,
        shows="`start_urls`, with equal ones among them, and links that pages share",
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n % 30}" for n in range(40)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    self.logger.info("page %d", number)
                    yield {"page": number, "depth": response.meta["depth"]}
                    if number < 100:
                        for step in (100, 101):
                            yield response.follow(f"/trouble/fine/{number + step}")
        """,
    ),
    Case(
        name="start-requests",
        group="start",
        shows="`start_requests()`, as spiders for all versions of Scrapy have it beside `start()`",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for request in self.start_requests():
                        yield request

                def start_requests(self):
                    for number in range(40):
                        yield Request(
                            f"http://demo.test/trouble/fine/{number}",
                            self.parse_page,
                            cb_kwargs={"number": number},
                            priority=number % 3,
                        )

                def parse_page(self, response, number):
                    yield {"page": number, "priority": response.request.priority}
        """,
    ),
    Case(
        name="start-requests-alone",
        group="start",
        least_processes=1,
        shows="`start_requests()` without `start()`: whatever the installed Scrapy makes of it",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/trouble/fine/1"]

                def start_requests(self):
                    yield Request("http://demo.test/trouble/fine/2")

                def parse(self, response):
                    yield {"url": response.url}
        """,
    ),
    Case(
        name="start-items",
        group="start",
        shows="`async def start()` that waits, and yields requests and items",
        source="""
            import asyncio
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    yield {"from": "start", "number": 0}
                    for number in range(40):
                        yield Request(f"http://demo.test/trouble/fine/{number}")
                        if number % 10 == 0:
                            await asyncio.sleep(0.01)
                            yield {"from": "start", "number": number}
                    yield {"from": "start", "number": "last"}

                def parse(self, response):
                    yield {"from": response.url}
        """,
    ),
    Case(
        name="start-lazy",
        group="start",
        shows="3000 lazy start requests; never more than 1500 of them wait on Redis",
        concurrency=24,
        args=("-O", "items.jsonl", "-s", "CONCURRENT_REQUESTS_PER_DOMAIN=24"),
        most_at_once=24,
        also=_is_bounded,
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                custom_settings = {"LOG_LEVEL": "INFO"}

                async def start(self):
                    for number in range(3000):
                        yield Request(f"http://demo.test/trouble/fine/{number}")

                def parse(self, response):
                    yield {"page": int(response.url.rpartition("/")[2])}
        """,
        timeout_s=90.0,
    ),
    Case(
        name="start-exception",
        group="start",
        shows="an exception in `start()`: what came before it is crawled, its traceback is logged",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(40):
                        yield Request(f"http://demo.test/trouble/fine/{number}")
                    raise RuntimeError("no more of it")

                def parse(self, response):
                    yield {"page": int(response.url.rpartition("/")[2])}
        """,
    ),
    Case(
        name="start-exception-first",
        group="start",
        least_processes=1,
        shows="an exception before the first output of `start()`",
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    raise RuntimeError("not even one")
                    yield {}
        """,
    ),
    Case(
        name="start-nothing",
        group="start",
        least_processes=1,
        shows="a `start()` that yields nothing",
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
        """,
    ),
]
