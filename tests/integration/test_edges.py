"""Ends that are easily missed: start() that fails or is orphaned, items and pipelines that stop home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration import support
from tests.integration.machine import Machine, write_project
from vscrapy.store.base import Store
from vscrapy.store.frontier import Result
from vscrapy.store.tasks import Tasks

pytest_plugins = ["tests.integration.machine"]

SPIDERS = """
    import scrapy


    class FailingStart(scrapy.Spider):
        name = "failing_start"

        async def start(self):
            yield scrapy.Request("data:,1")
            raise RuntimeError("no more")

        def parse(self, response):
            yield {"url": response.url}


    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(one)


    class Unreadable(scrapy.Spider):
        name = "unreadable"
        start_urls = ["data:,1"]

        def parse(self, response):
            yield {"n": 1}
            yield {"n": 2, "odd": Odd(1, 2)}
            yield {"n": 3}


    class Enough:
        @classmethod
        def from_crawler(cls, crawler):
            pipeline = cls()
            pipeline.crawler = crawler
            return pipeline

        async def process_item(self, item):
            await self.crawler.engine.close_spider_async(reason="enough")
            return item


    class Talking(scrapy.Spider):
        name = "talking"
        start_urls = [f"data:,{number}" for number in range(3)]
        n_pages = 0

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            print("said in __init__")
            self.logger.info("logged in __init__")

        @classmethod
        def from_crawler(cls, crawler, *args, **kwargs):
            spider = super().from_crawler(crawler, *args, **kwargs)
            crawler.signals.connect(spider.opened, scrapy.signals.spider_opened)
            return spider

        def opened(self):
            print("opened")

        def parse(self, response):
            self.n_pages += 1
            yield {"url": response.url}

        def closed(self, reason):
            print(f"closed after {self.n_pages} pages")
            self.logger.info("closed")


    print("said in the module")


    class Closing(scrapy.Spider):
        name = "closing"
        custom_settings = {"ITEM_PIPELINES": {Enough: 1}, "CONCURRENT_REQUESTS": 1}

        async def start(self):
            for number in range(200):
                yield scrapy.Request(f"data:,{number}", dont_filter=True)

        def parse(self, response):
            yield {"url": response.url}
"""


@pytest.fixture
def spiders(machine: Machine, tmp_path: Path) -> Path:
    """A project with the spiders above, and a worker for it."""
    machine.start_worker(slots=1)
    return write_project(tmp_path / "project", SPIDERS)


def items(path: Path) -> list[dict[str, object]]:
    """The items of a JSON lines feed."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_start_that_raises_ends_with_what_it_gave(machine: Machine, spiders: Path) -> None:
    """As with scrapy crawl: the error is told, the requests before it are done, and the crawl ends."""
    finished = machine.run(["vscrapy", "crawl", "failing_start", "-O", "out.jsonl"], spiders)
    assert finished.exit_code == 0
    assert "RuntimeError: no more" in finished.stderr
    assert items(spiders / "out.jsonl") == [{"url": "data:,1"}]


def test_item_that_cannot_be_read_at_home_costs_itself_only(machine: Machine, spiders: Path) -> None:
    """An error names it; the other items of its page arrive, and the sender ends."""
    finished = machine.run(["vscrapy", "crawl", "unreadable", "-O", "out.jsonl"], spiders)
    assert finished.exit_code == 0
    assert "an item is lost, it cannot be read here" in finished.stderr
    assert items(spiders / "out.jsonl") == [{"n": 1}, {"n": 3}]
    assert "'item_scraped_count': 2" in finished.stderr


def test_pipeline_at_home_that_closes_the_spider_ends_the_task(machine: Machine, spiders: Path) -> None:
    """The reason is the pipeline's, long before all requests are done, and the exit code is that of a good end."""
    finished = machine.run(["vscrapy", "crawl", "closing", "-O", "out.jsonl"], spiders)
    assert finished.exit_code == 0
    assert "'finish_reason': 'enough'" in finished.stderr
    assert 0 < len(items(spiders / "out.jsonl")) < 200


def test_start_that_lost_its_process_is_offered_to_the_others(store: Store) -> None:
    """The rest are told, and the task takes one more process although nothing waits."""
    taskid = support.submit(store)
    owner = support.running(store, taskid)
    other = support.Process(store, taskid)
    owner.feed(*[support.request(str(number)) for number in range(17)])
    assert other.claim() > 0
    other.join()
    for lease in other.commit(wanted=17).leases:
        other.commit(Result("done", lease.id))
    owner.leave("crashed")
    assert other.commit().is_start_lost
    assert Tasks(store).record(taskid).is_growing
    heir = support.Process(store, taskid)
    assert heir.claim() > 0
    assert heir.join().start_from == 0
    assert not other.commit().is_start_lost


def test_what_a_spider_says_as_it_is_made_and_closed_is_there_once(machine: Machine, spiders: Path) -> None:
    """There is a spider at home, too; nobody sees it."""
    finished = machine.run(["vscrapy", "crawl", "talking"], spiders)
    assert finished.exit_code == 0, finished.output
    said = [line for line in finished.stdout.splitlines() if line != "[]"]
    assert said == ["said in the module", "said in __init__", "opened", "closed after 3 pages"]
    for words in ("logged in __init__", "INFO: closed"):
        assert finished.stderr.count(words) == 1
