"""CLOSESPIDER_* holds for the whole task: what all crawl processes have counted together closes it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Finished, Machine, Site, write_project
from tests.integration.support import request, running, submit
from vscrapy import keys
from vscrapy.store.base import Store

pytest_plugins = ["tests.integration.machine"]

#: Requests in flight of one process, and processes.
CONCURRENCY: Final = 2
PROCESSES: Final = 3
IN_FLIGHT: Final = CONCURRENCY * PROCESSES
#: What a limit may be exceeded by: what is in flight, and what Scrapy itself has in flight.
BEYOND: Final = IN_FLIGHT + CONCURRENCY

SPIDERS: Final = textwrap.dedent("""
    from scrapy import Request, Spider
    from scrapy.exceptions import DropItem


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.base = base

        async def start(self):
            for number in range(10_000):
                yield Request(f"{self.base}/trouble/fine/{number}", cb_kwargs={"number": number})

        def parse(self, response, number):
            yield {"number": number}


    class Barren(Pages):
        name = "barren"

        def parse(self, response, number):
            if number < 10:
                yield {"number": number}


    class Raises(Pages):
        name = "raises"

        def parse(self, response, number):
            raise ValueError(number)


    class DropsOdd:
        def process_item(self, item):
            if item["number"] % 2:
                raise DropItem("odd")
            return item


    class Dropping(Pages):
        name = "dropping"
        custom_settings = {"ITEM_PIPELINES": {DropsOdd: 100}}
""")


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Machine]:
    """A machine with one worker of three slots."""
    machine.start_worker(PROCESSES, "w1")
    yield machine
    machine.end_tasks()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the spiders of ``SPIDERS``."""
    return write_project(tmp_path / "closing-project", SPIDERS)


def crawl(cluster: Machine, site: Site, project: Path, spider: str, *limits: str) -> Finished:
    """Run a spider until it closes."""
    site.reset()
    options = ["-a", f"base={site.base}", "-O", "items.jsonl", "-s", f"CONCURRENT_REQUESTS={CONCURRENCY}"]
    finished = cluster.run(
        ["vscrapy", "crawl", spider, *options, *(part for limit in limits for part in ("-s", limit))], project
    )
    assert finished.exit_code == 0, finished.output
    taken_part = int(cluster.store.client.hget(keys.task(cluster.last_taskid()), "process_seq"))
    assert taken_part == PROCESSES, "this is about several processes"
    return finished


def reason(finished: Finished) -> str:
    """The reason in the stats."""
    found = re.search(r"'finish_reason': '(\w+)'", finished.stderr)
    assert found is not None, finished.stderr
    return found.group(1)


def n_items(project: Path) -> int:
    """Items in the feed."""
    return len([json.loads(line) for line in (project / "items.jsonl").read_text().splitlines()])


def test_itemcount_counts_the_items_of_all_processes(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Beyond the limit comes only what is in flight."""
    assert reason(crawl(cluster, slow_site, project, "pages", "CLOSESPIDER_ITEMCOUNT=90")) == "closespider_itemcount"
    assert 90 <= n_items(project) <= 90 + BEYOND


def test_itemcount_counts_what_comes_through_pipelines_at_home(
    cluster: Machine, slow_site: Site, project: Path
) -> None:
    """Dropped items do not count, as with Scrapy."""
    finished = crawl(cluster, slow_site, project, "dropping", "CLOSESPIDER_ITEMCOUNT=60")
    assert reason(finished) == "closespider_itemcount"
    assert 60 <= n_items(project) <= 60 + 3 * IN_FLIGHT


def test_pagecount_counts_the_pages_of_all_processes(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Beyond the limit, the site sees only what is in flight."""
    assert reason(crawl(cluster, slow_site, project, "pages", "CLOSESPIDER_PAGECOUNT=90")) == "closespider_pagecount"
    assert 90 <= len(slow_site.log()) <= 90 + BEYOND


def test_errorcount_counts_the_errors_of_all_processes(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Errors of callbacks, wherever they are raised."""
    finished = crawl(cluster, slow_site, project, "raises", "CLOSESPIDER_ERRORCOUNT=60")
    assert reason(finished) == "closespider_errorcount"
    assert 60 <= finished.stderr.count("Spider error processing") <= 60 + BEYOND


def test_pagecount_no_item_counts_since_the_last_item_of_any_process(
    cluster: Machine, slow_site: Site, project: Path
) -> None:
    """The first ten pages have items; then there are none."""
    finished = crawl(cluster, slow_site, project, "barren", "CLOSESPIDER_PAGECOUNT_NO_ITEM=80")
    assert reason(finished) == "closespider_pagecount_no_item"
    log = sorted(slow_site.log(), key=lambda entry: float(entry["end_monotonic_s"]))
    numbers = [int(str(entry["path"]).rpartition("/")[2]) for entry in log]
    since_last = len(numbers) - 1 - max(place for place, number in enumerate(numbers) if number < 10)
    assert 80 - IN_FLIGHT <= since_last <= 80 + BEYOND


@pytest.mark.long
@pytest.mark.parametrize("spider", ["pages", "barren"])
def test_timeout_no_item_looks_at_the_items_of_all_processes(
    cluster: Machine, slow_site: Site, project: Path, spider: str
) -> None:
    """It closes a task without items; items of one process are enough for all."""
    most = 500 if spider == "pages" else 9000  # 500 pages are more than two seconds
    finished = crawl(
        cluster, slow_site, project, spider, "CLOSESPIDER_TIMEOUT_NO_ITEM=2", f"CLOSESPIDER_PAGECOUNT={most}"
    )
    expected = "closespider_pagecount" if spider == "pages" else "closespider_timeout_no_item"
    assert reason(finished) == expected


def test_timeout_counts_from_the_first_process(cluster: Machine, slow_site: Site, project: Path) -> None:
    """A process that joins later does not begin anew."""
    finished = crawl(cluster, slow_site, project, "pages", "CLOSESPIDER_TIMEOUT=4")
    assert reason(finished) == "closespider_timeout"
    elapsed = re.search(r"'elapsed_time_seconds': ([\d.]+)", finished.stderr)
    assert elapsed is not None
    assert 3.9 <= float(elapsed.group(1)) < 6


def test_counts_of_the_task_stand_in_the_reply_of_who_asks(store: Store) -> None:
    """Counts of all processes add up; who does not count does not get them."""
    first = running(store, submit(store))
    first.feed(*(request(f"{n}") for n in range(20)))
    second = running(store, first.taskid)
    assert dict(first.commit(counts={"items": 2, "pages": 1}).counts) == {"items": 2, "pages": 1}
    assert dict(second.commit(counts={"items": 3}).counts) == {"items": 5, "pages": 1}
    assert not first.commit().counts


def test_counts_begin_anew_when_a_process_says_so(store: Store) -> None:
    """In the order of the commits, whoever makes them; once, however often the commit is sent."""
    first = running(store, submit(store))
    first.feed(*(request(f"{n}") for n in range(20)))
    first.commit(counts={"pages": 7})
    second = running(store, first.taskid)
    assert second.commit(counts={"pages": 2}, restarted=["pages"]).counts["pages"] == 2
    assert first.commit(counts={"pages": 1}).counts["pages"] == 3
    assert second.repeat(counts={"pages": 2}, restarted=["pages"]).counts.get("pages", 3) == 3
    assert first.commit(counts={}).counts["pages"] == 3
