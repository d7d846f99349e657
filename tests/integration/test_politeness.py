"""What the site sees of a task on several crawl processes: no more than one ``scrapy crawl`` would send it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.machine import Machine, Site
from vscrapy import keys

pytest_plugins = ["tests.integration.machine"]

#: Downloads of a site at once, in these tests.
MOST = 4
#: A crawl on one process at a time is allowed a little jitter of clocks and loops (seconds).
JITTER_S = 0.005


def crawl(machine: Machine, project: Path, site: Site, spider: str, *settings: str) -> int:
    """Run a spider of the example project to its end; the number of crawl processes that worked on it."""
    options = [part for setting in settings for part in ("-s", setting)]
    finished = machine.run(["vscrapy", "crawl", spider, "-a", f"base={site.base}", *options], project)
    assert finished.exit_code == 0, finished.stderr
    record = machine.store.client.hgetall(keys.task(machine.last_taskid()))
    return int(record[b"process_seq"])


def gaps_s(log: list[dict[str, Any]]) -> list[float]:
    """The times between the starts of requests that follow each other."""
    starts = sorted(entry["start_monotonic_s"] for entry in log)
    return [later - earlier for earlier, later in pairwise(starts)]


@pytest.mark.parametrize("queue", ["DownloaderAwarePriorityQueue", "ScrapyPriorityQueue"])
def test_politeness_concurrency_holds_for_the_task_on_three_processes(
    machine: Machine, project: Path, slow_site: Site, queue: str
) -> None:
    """Three processes together run as many downloads of a site as CONCURRENT_REQUESTS_PER_DOMAIN says, no more."""
    machine.start_worker(slots=3)
    n_processes = crawl(
        machine,
        project,
        slow_site,
        "sitemap",
        f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}",
        f"CONCURRENT_REQUESTS={MOST}",
        f"SCHEDULER_PRIORITY_QUEUE=scrapy.pqueues.{queue}",
    )
    assert n_processes == 3
    assert slow_site.state()["peak"] == MOST


def test_politeness_delay_holds_for_the_task_on_three_processes(machine: Machine, project: Path, site: Site) -> None:
    """Two downloads of a site are never closer to each other than DOWNLOAD_DELAY, whoever starts them."""
    machine.start_worker(slots=3)
    delay_s = 0.02
    crawl(
        machine,
        project,
        site,
        "quotes",
        f"DOWNLOAD_DELAY={delay_s}",
        "RANDOMIZE_DOWNLOAD_DELAY=False",
        "CONCURRENT_REQUESTS=2",
    )
    assert min(gaps_s(site.log())) >= delay_s - JITTER_S


def test_politeness_robots_txt_is_fetched_once_on_three_processes(
    machine: Machine, project: Path, slow_site: Site
) -> None:
    """What one process learned of robots.txt, the others know; and so do they of a session's cookie."""
    machine.start_worker(slots=3)
    assert crawl(machine, project, slow_site, "account", "CONCURRENT_REQUESTS=2") > 1
    log = slow_site.log()
    assert [entry["path"] for entry in log].count("/robots.txt") == 1
    assert [entry for entry in log if entry["path"] == "/login" and entry["method"] == "GET"] == [
        next(entry for entry in log if entry["path"] == "/login")
    ]


def test_politeness_is_per_process_when_the_project_says_so(machine: Machine, project: Path, slow_site: Site) -> None:
    """With VSCRAPY_POLITENESS = "worker", each process uses the whole concurrency."""
    machine.start_worker(slots=3)
    crawl(
        machine,
        project,
        slow_site,
        "sitemap",
        "VSCRAPY_POLITENESS=worker",
        f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}",
        f"CONCURRENT_REQUESTS={MOST}",
    )
    assert slow_site.state()["peak"] > MOST


def test_politeness_refuses_another_word_for_the_setting(machine: Machine, project: Path, site: Site) -> None:
    """A wrong VSCRAPY_POLITENESS ends the crawl, and says which words there are."""
    machine.start_worker(slots=1)
    finished = machine.run(
        ["vscrapy", "crawl", "quotes", "-a", f"base={site.base}", "-s", "VSCRAPY_POLITENESS=none"], project
    )
    assert finished.exit_code == 1
    assert 'it takes "task" or "worker"' in finished.output
