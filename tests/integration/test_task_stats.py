"""``vscrapy stats``: a task's stats and its workers' parts, while it runs and after its end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import BIN, Machine, Site, wait_for, write_project

pytest_plugins = ["tests.integration.machine"]

#: A spider over the site's pages /trouble/fine/N; a pipeline drops every other item.
SHOP: Final = """
    from scrapy import Spider
    from scrapy.exceptions import DropItem

    class Pages(Spider):
        name = "pages"
        custom_settings = {"ITEM_PIPELINES": {"shop.spiders.Half": 1}}

        def __init__(self, base, last="20", **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(1, int(last) + 1)]

        def parse(self, response):
            yield {"page": int(response.url.rpartition("/")[2])}

    class Half:
        def process_item(self, item, spider=None):
            if item["page"] % 2:
                raise DropItem("odd")
            return item
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with the spider ``pages``."""
    return write_project(tmp_path / "shop-project", SHOP)


def stats_of(machine: Machine, taskid: int) -> dict[str, Any]:
    """What ``vscrapy stats --json`` gives."""
    finished = machine.run(["vscrapy", "stats", str(taskid), "--json"])
    assert finished.exit_code == 0, finished.output
    assert finished.stderr == ""
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def without_log_count(text: str) -> str:
    """A dump of stats without the number of INFO records."""
    return re.sub(r"^ 'log_count/INFO': \d+,\n", "", text, flags=re.MULTILINE)


def test_stats_are_those_that_the_sender_dumped(machine: Machine, site: Site, shop: Path) -> None:
    """After an attached crawl: all of them, those of feeds and pipelines at home among them."""
    machine.start_worker(2, "w1")
    crawl = machine.run(["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-O", "pages.jsonl"], shop)
    assert crawl.exit_code == 0, crawl.output
    dumped = crawl.stderr.split("Dumping Scrapy stats:\n")[1].split("}\n")[0] + "}"
    shown = machine.run(["vscrapy", "stats", "1"])
    assert shown.exit_code == 0, shown.output
    # Before Scrapy 2.14 the line with the dump is itself counted after it.
    assert without_log_count(shown.stdout).endswith(f"\n{without_log_count(dumped)}\n")
    assert re.search(r"^task 1: pages, finished$", shown.stdout, re.MULTILINE)
    assert re.search(r"^w1 +0 +20 +0 +0 +0 +20$", shown.stdout, re.MULTILINE)
    found = stats_of(machine, 1)
    assert (found["taskid"], found["spider"], found["state"], found["reason"]) == (1, "pages", "finished", "finished")
    assert found["stats"]["item_dropped_count"] == found["stats"]["item_scraped_count"] == 10
    assert found["stats"]["feedexport/success_count/FileFeedStorage"] == 1
    assert found["stats"]["start_time"].startswith("20")


def test_stats_are_live(machine: Machine, slow_site: Site, shop: Path) -> None:
    """A running task shows what there is so far, and what its workers have in flight; later, how it ended."""
    for name in ("w1", "w2"):
        machine.start_worker(1, name)
    command = ["vscrapy", "crawl", "pages", "-a", f"base={slow_site.base}", "-a", "last=100000", "--detach"]
    assert machine.run(command, shop).exit_code == 0
    wait_for(lambda: machine.tasks.record(1).items > 20 and machine.tasks.record(1).processes == 2)

    def found_both() -> dict[str, Any]:
        found = stats_of(machine, 1)
        workers = found["workers"]
        return found if len(workers) == 2 and all(part["in_flight"] and part["done"] for part in workers) else {}

    found = wait_for(found_both, what="both workers have requests in flight")
    assert [part["worker"] for part in found["workers"]] == ["w1", "w2"]
    assert found["state"] == "running"
    assert "finish_reason" not in found["stats"]
    assert found["stats"]["item_scraped_count"] > 10
    machine.run(["vscrapy", "stop", "1"])
    wait_for(lambda: not machine.tasks.record(1).processes, what="the task has ended")
    ended = stats_of(machine, 1)
    assert (ended["state"], ended["stats"]["finish_reason"]) == ("finished", "shutdown")
    assert [part["in_flight"] for part in ended["workers"]] == [0, 0]
    assert sum(part["items"] for part in ended["workers"]) == ended["stats"]["item_scraped_count"]


def test_stats_of_no_task_or_several_is_refused_in_one_line(machine: Machine) -> None:
    """It takes one taskid, of a task that is there."""
    machine.start_embedded()
    for word, exit_code in (("7", 1), ("7,8", 2), ("x", 2)):
        finished = machine.run(["vscrapy", "stats", word])
        assert (finished.exit_code, finished.stdout) == (exit_code, "")
        assert re.fullmatch(r"vscrapy: [^\n]+\n", finished.stderr), finished.stderr


def test_output_that_nobody_reads_to_its_end_is_no_error(machine: Machine) -> None:
    """As in ``vscrapy -l --json | head``."""
    machine.start_embedded()
    command = f"PATH={BIN}:$PATH; vscrapy -l --json | head -c 0; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):
        finished = machine.run(["bash", "-c", command])
        assert (finished.stdout, finished.stderr) == ("0\n", "")
