"""The robots.txt of a site is fetched once by all processes of a task, and a dead one keeps nobody away."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from vscrapy import keys

pytest_plugins = ["tests.integration.machine"]

#: Start requests, all to one site: each process gets some before one of them knows its robots.txt.
PAGES = 30
#: The site's latency until all processes want its robots.txt (ms): longer than they take to join.
HANGS_MS = 5_000
SPIDER = f"""
    import scrapy


    class Case(scrapy.Spider):
        name = "case"

        async def start(self):
            for number in range({PAGES}):
                yield scrapy.Request(f"{{self.base}}/trouble/fine/{{number}}")

        def parse(self, response):
            yield {{"url": response.url}}
"""
SETTINGS = """
    ROBOTSTXT_OBEY = True
    CONCURRENT_REQUESTS = 3
    {more}
"""


def crawl(machine: Machine, directory: Path, site: Site, *, more: str = "") -> Running:
    """Start a crawl of a site that hangs at first."""
    site.set_latency(HANGS_MS)
    project = write_project(directory, SPIDER, settings=SETTINGS.format(more=more))
    return machine.start(["vscrapy", "crawl", "case", "-a", f"base={site.base}", "-O", "items.jl"], project)


def wait_until_all_want_it(machine: Machine, n_processes: int) -> int:
    """Wait until so many processes have start requests in hand; the task's id."""
    taskid = wait_for(lambda: machine.last_taskid(), what="the task")
    client, leases = machine.store.client, f"{keys.prefix(taskid)}leases:*"
    wait_for(lambda: len(client.keys(leases)) == n_processes, what=f"{n_processes} processes have leases")
    return taskid


def count_fetches(site: Site) -> int:
    """How often the site was asked for its robots.txt."""
    return Counter(entry["path"] for entry in site.log())["/robots.txt"]


def n_items(directory: Path) -> int:
    """Different items of the feed; none is there twice."""
    lines = (directory / "items.jl").read_text().splitlines()
    assert len(set(lines)) == len(lines)
    return len(lines)


@pytest.mark.parametrize("more", ["", "TWISTED_REACTOR_ENABLED = False"])
def test_robots_are_fetched_once_by_processes_that_begin_at_the_same_time(
    machine: Machine, tmp_path: Path, site: Site, more: str
) -> None:
    """All have requests to the site before the first of them knows what it forbids."""
    machine.start_worker(slots=3)
    running = crawl(machine, tmp_path / "shop", site, more=more)
    wait_until_all_want_it(machine, 3)
    site.set_latency(0)
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    assert count_fetches(site) == 1
    assert "'robotstxt/request_count': 1" in finished.stderr
    assert n_items(tmp_path / "shop") == PAGES


def test_robots_of_a_process_that_was_killed_are_fetched_by_another(
    machine: Machine, tmp_path: Path, site: Site
) -> None:
    """It had said that it fetches; the others wait for a while, then one of them does, and no page is lost."""
    machine.start_worker(slots=2)
    running = crawl(machine, tmp_path / "shop", site)
    taskid = wait_until_all_want_it(machine, 2)
    wait_for(lambda: site.state()["active"] >= 1, what="one process fetches")
    site.set_latency(0)
    facts = machine.store.client.hkeys(keys.facts(taskid))
    assert [fact for fact in facts if fact.startswith(b"first:robots:")] != []
    crawling = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl")]
    os.kill(min(crawling), signal.SIGKILL)  # the one that joined first
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    assert "was killed by SIGKILL" in finished.output
    assert count_fetches(site) == 2
    assert n_items(tmp_path / "shop") == PAGES
