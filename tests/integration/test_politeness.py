"""What the site sees of a task on several crawl processes: no more than one ``scrapy crawl`` would send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.machine import Machine, Site, wait_for
from vscrapy import keys

pytest_plugins = ["tests.integration.machine"]

#: Downloads of a site at once, in these tests.
MOST = 4
#: How late one request may be on its way to the site (seconds).
JITTER_S = 0.02


def crawl(machine: Machine, project: Path, site: Site, spider: str, *settings: str) -> int:
    """Run a spider of the example project to its end; the number of crawl processes that worked on it."""
    options = [part for setting in settings for part in ("-s", setting)]
    finished = machine.run(["vscrapy", "crawl", spider, "-a", f"base={site.base}", *options], project)
    assert finished.exit_code == 0, finished.stderr
    record = machine.store.client.hgetall(keys.task(machine.last_taskid()))
    return int(record[b"process_seq"])


def shortest_s(log: list[dict[str, Any]], n_gaps: int) -> float:
    """The shortest time in which *n_gaps* requests followed one; over several, for one may be late on its way."""
    starts: list[float] = sorted(entry["start_monotonic_s"] for entry in log)
    return min(later - earlier for earlier, later in zip(starts, starts[n_gaps:], strict=False))


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
    """Downloads of a site follow each other with DOWNLOAD_DELAY between them, whoever starts them."""
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
    assert shortest_s(site.log(), 10) >= 10 * delay_s - JITTER_S


def test_politeness_process_without_work_gives_its_slot_back(machine: Machine, project: Path, site: Site) -> None:
    """With a delay one process does it all; one that joined leaves again, for other tasks to have its slot."""
    machine.start_worker(slots=2)
    running = machine.start(
        [
            "vscrapy",
            "crawl",
            "quotes",
            "-a",
            f"base={site.base}",
            *("-s", "DOWNLOAD_DELAY=0.06", "-s", "CONCURRENT_REQUESTS=2"),
        ],
        project,
    )
    running.wait_for_output(r"crawl process 2 leaves")
    taskid = machine.last_taskid()
    wait_for(lambda: machine.tasks.record(taskid).processes == 1, what="one process has left")
    assert running.wait().exit_code == 0


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
