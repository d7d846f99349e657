"""
What a crawl costs beyond Scrapy's own work, in counts that do not depend on the machine: no speed is lost unseen.

How many pages share a commit does; so the bounds are told by the commit and by the page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

import pytest
from scrapy import Request, Spider

from vscrapy.crawl.session import GATHER_S, LOOK_S
from vscrapy.model import Endpoint
from vscrapy.wire import encode_request

#: Pages of the crawl, each with 20 links, of which nearly all lead to pages that are known.
N_PAGES: Final = 400
#: Requests in flight, and leases that wait beside them.
CONCURRENT: Final = 16
#: Crawls them, and prints what that took. Commands and bytes are those that the server has seen.
CRAWL: Final = """
import asyncio
import json
import os
import sys

from redis import Redis
from scrapy import Spider
from scrapy.core.downloader.handlers.base import BaseDownloadHandler
from scrapy.crawler import CrawlerRunner
from scrapy.http import HtmlResponse
from scrapy.utils.reactor import install_reactor

install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
from twisted.internet import reactor

from vscrapy import testing
from vscrapy.crawl import scheduler, session
from vscrapy.model import Endpoint
from vscrapy.store.base import Store

ENDPOINT = Endpoint(os.environ["URL"], "test", os.environ["SECRET"])
N_PAGES, CONCURRENT = map(int, sys.argv[1:])
counts = {"calls": 0, "waits": 0}
scripts = {}


class Handler(BaseDownloadHandler):
    async def download_request(self, request):
        await asyncio.sleep(0.02)
        number = int(request.url.rpartition("/")[2])
        links = ((number * 20 + link) % (N_PAGES - 1) + 1 for link in range(20))
        body = "".join(f'<p><a href="/{link}">page</a></p>' for link in links)
        return HtmlResponse(request.url, body=body.encode(), encoding="utf-8", request=request)


class Pages(Spider):
    name = "pages"
    start_urls = ["http://pages.test/0"]

    def parse(self, response):
        yield {"url": response.url}
        for link in response.css("a::attr(href)").getall():
            yield response.follow(link)


def counted(call):
    def count(*args, **kwargs):
        counts["calls"] += 1
        return call(*args, **kwargs)

    return count


real_caller = scheduler.thread_caller
scheduler.thread_caller = lambda: counted(real_caller())
real_next = session.Session._next


def next_(self):
    counts["waits"] += 1
    return real_next(self)


session.Session._next = next_
real_run = Store.run


def run(self, script, *args):
    scripts[script] = scripts.get(script, 0) + 1
    return real_run(self, script, *args)


Store.run = run
client = Redis.from_url(ENDPOINT.url)
settings = {
    "CONCURRENT_REQUESTS": CONCURRENT, "CONCURRENT_REQUESTS_PER_DOMAIN": CONCURRENT, "DOWNLOAD_DELAY": 0,
    "LOG_LEVEL": "WARNING", "DOWNLOAD_HANDLERS": {"http": Handler}, "TELNETCONSOLE_ENABLED": False,
}
with testing.task(ENDPOINT) as task:
    crawler = CrawlerRunner(task.settings(settings)).create_crawler(Pages)
    before = client.info("stats")
    scripts.clear()
    crawler.crawl().addBoth(lambda _: reactor.stop())
    reactor.run()
    after = client.info("stats")
    print(json.dumps({
        "pages": crawler.stats.get_value("response_received_count"),
        "seconds": crawler.stats.get_value("elapsed_time_seconds"),
        "commands": after["total_commands_processed"] - before["total_commands_processed"],
        "bytes in": after["total_net_input_bytes"] - before["total_net_input_bytes"],
        "bytes out": after["total_net_output_bytes"] - before["total_net_output_bytes"],
        "scripts": scripts, **counts,
    }))
"""


@pytest.fixture(scope="session")
def cost(server: Endpoint) -> Mapping[str, Any]:
    """What the crawl took."""
    env = {**os.environ, "URL": server.url, "SECRET": server.secret}
    done = subprocess.run(
        [sys.executable, "-c", CRAWL, str(N_PAGES), str(CONCURRENT)],
        capture_output=True,
        text=True,
        timeout=100,
        env=env,
        check=True,
    )
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"figure: {found}")
    return {**found, "commits": found["scripts"]["commit"]}


def test_redis_is_asked_once_for_a_page_at_most(cost: Mapping[str, Any]) -> None:
    """One script ends a lease, brings what came of it, and gets the next; nothing else is asked meanwhile."""
    assert cost["pages"] == N_PAGES
    looks = cost["seconds"] / LOOK_S
    assert cost["commits"] <= N_PAGES + looks + 20, "begin and end, and leases for an empty hand"
    assert cost["scripts"] == {"commit": cost["commits"], "join": 1, "stop": 1}


def test_pages_share_a_commit(cost: Mapping[str, Any]) -> None:
    """A commit is for half a buffer of leases, or for what was done in a while; fewer pages only at begin and end."""
    wishes = N_PAGES / (CONCURRENT / 2)
    assert cost["commits"] <= wishes + cost["seconds"] / GATHER_S + 40


def test_each_commit_wakes_each_thread_once(cost: Mapping[str, Any]) -> None:
    """The reactor with the reply; the session's thread with what there is to commit, or nothing, and at the end."""
    commits = cost["commits"]
    assert cost["calls"] <= commits + 2, "joined and closed"
    assert cost["waits"] <= commits + 2, "the task is to end, and the spider closes"


def test_server_does_little_for_a_page(cost: Mapping[str, Any]) -> None:
    """Commands, those of the scripts among them: a part for each commit, and a part for each page."""
    assert cost["commands"] <= 28 * cost["commits"] + 1.2 * N_PAGES


def test_little_travels_for_a_page(cost: Mapping[str, Any]) -> None:
    """Its item, its new requests and its acknowledgement; not its links that are known."""
    assert cost["bytes in"] <= 1100 * cost["commits"] + 420 * N_PAGES
    assert cost["bytes out"] <= 150 * cost["commits"] + 200 * N_PAGES


def test_plain_request_is_little_more_than_its_url() -> None:
    """As it travels, and as it waits on Redis, signature included."""

    class Shop(Spider):
        name = "shop"

        def parse_page(self, response: Any) -> None:
            """Do nothing."""

    spider, url = Shop(), "http://shop.test/page/1"
    assert len(encode_request(Request(url), spider, b"k" * 32)) <= len(url) + 40
    assert len(encode_request(Request(url, spider.parse_page), spider, b"k" * 32)) <= len(url) + 65
