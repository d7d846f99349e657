"""``vscrapy items``: a task's items as this project would export them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.integration.machine import Machine, Site, wait_for, write_project

pytest_plugins = ["tests.integration.machine"]

SPIDER = """
    import scrapy


    class Product(scrapy.Item):
        number = scrapy.Field()
        name = scrapy.Field(serializer=str.upper)
        price = scrapy.Field()


    class Products(scrapy.Spider):
        name = "products"
        custom_settings = {"FEED_EXPORT_FIELDS": {"name": "Name", "number": "Number"}}

        async def start(self):
            yield scrapy.Request(f"{self.base}/quotes/page/1/")

        async def parse(self, response):
            for number in range(3):
                yield Product(number=number, name="\\u00e9", price=1)


    class Endless(scrapy.Spider):
        name = "endless"

        async def start(self):
            number = 0
            while True:
                number += 1
                yield scrapy.Request(f"{self.base}/quotes/page/1/?n={number}")

        def parse(self, response):
            yield {"url": response.url}
"""

SETTINGS = """
    FEED_EXPORT_ENCODING = "latin-1"
    FEED_EXPORT_INDENT = 1
    FEEDS = {
        "packed.jl.gz": {
            "format": "jsonlines",
            "fields": ["price"],
            "postprocessing": ["scrapy.extensions.postprocessing.GzipPlugin"],
        },
    }
"""


@pytest.fixture(scope="module")
def shop(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project."""
    return write_project(tmp_path_factory.mktemp("items") / "project", SPIDER, settings=SETTINGS)


@pytest.fixture
def taskid(shared_machine: Machine, shop: Path, site: Site) -> str:
    """A detached task that has ended."""
    command = ["vscrapy", "crawl", "products", "-a", f"base={site.base}", "--detach"]
    assert shared_machine.run(command, shop).exit_code == 0
    made = shared_machine.last_taskid()
    wait_for(lambda: shared_machine.tasks.record(made).ended_ms, what="the task has ended")
    return str(made)


def test_items_are_exported_with_the_spider_s_settings(shared_machine: Machine, shop: Path, taskid: str) -> None:
    """Fields and their names, serializers, indent and encoding; -O writes anew, -o adds."""
    for _ in range(2):
        done = shared_machine.run(["vscrapy", "items", taskid, "-O", "out/items.json"], shop)
        assert (done.exit_code, done.stdout) == (0, f"3 items of task {taskid} in out/items.json\n"), done.stderr
    written = (shop / "out" / "items.json").read_bytes()
    assert written.startswith(b'[\n{\n "Name": "\xc9",\n "Number": ')
    assert sorted(item["Number"] for item in json.loads(written.decode("latin-1"))) == [0, 1, 2]
    for _ in range(2):
        shared_machine.run(["vscrapy", "items", taskid, "-o", "items.csv"], shop)
    lines = (shop / "items.csv").read_text("latin-1").splitlines()
    assert lines[0] == lines[4] == "Name,Number"
    assert len(lines) == 8


def test_items_go_to_stdout_in_any_format(shared_machine: Machine, shop: Path, taskid: str) -> None:
    """A dash is stdout, with a format."""
    done = shared_machine.run(["vscrapy", "items", taskid, "-o", "-:xml"], shop)
    assert done.stdout.count("<Number>") == 3
    plain = shared_machine.run(["vscrapy", "items", taskid], shop.parent).stdout
    # Outside the project, the item's class is not to be had.
    assert plain == ""


def test_items_take_the_options_of_the_feed_of_their_name(shared_machine: Machine, shop: Path, taskid: str) -> None:
    """Also its post-processing."""
    shared_machine.run(["vscrapy", "items", taskid, "-O", "packed.jl.gz:jsonlines"], shop)
    lines = gzip.decompress((shop / "packed.jl.gz").read_bytes()).splitlines()
    assert [json.loads(line) for line in lines] == [{"price": 1}] * 3


def test_items_in_no_known_format_are_refused(shared_machine: Machine, shop: Path, taskid: str) -> None:
    """The error names the formats, and no file is made."""
    done = shared_machine.run(["vscrapy", "items", taskid, "-o", "items.txt"], shop)
    assert done.exit_code == 2
    assert "'txt' is not a format; there are csv, " in done.stderr
    assert not (shop / "items.txt").exists()


def test_items_of_an_attached_task_went_home(shared_machine: Machine, shop: Path, site: Site) -> None:
    """What is not there any more is told."""
    crawled = shared_machine.run(["vscrapy", "crawl", "products", "-a", f"base={site.base}", "-O", "-:json"], shop)
    assert crawled.exit_code == 0
    done = shared_machine.run(["vscrapy", "items", str(shared_machine.last_taskid())], shop)
    assert done.exit_code == 0
    assert "has a sender" in done.stderr


def test_items_can_be_fetched_while_the_task_runs(shared_machine: Machine, shop: Path, slow_site: Site) -> None:
    """It ends with what is there, and says that more may come."""
    shared_machine.run(["vscrapy", "crawl", "endless", "-a", f"base={slow_site.base}", "--detach"], shop)
    taskid = shared_machine.last_taskid()
    wait_for(lambda: shared_machine.tasks.record(taskid).items > 10)
    done = shared_machine.run(["vscrapy", "items", str(taskid)], shop)
    assert len(done.stdout.splitlines()) > 10
    assert "is running; these are its items until now" in done.stderr
    shared_machine.run(["vscrapy", "stop", "--force", str(taskid)])
