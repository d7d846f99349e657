"""A cluster is upgraded worker by worker: old and new side by side lose nothing, and do nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

import pytest

import vscrapy
from tests.integration.machine import SLOW_MS, Machine, Running, Site, another_version, wait_for, write_project
from vscrapy import keys
from vscrapy.model import PROTOCOL
from vscrapy.states import TaskState
from vscrapy.store.base import texts
from vscrapy.store.tasks import Tally
from vscrapy.store.work import work

pytest_plugins = ["tests.integration.machine"]
pytestmark = pytest.mark.timeout(300)

#: Time for a crawl of all pages, on a busy machine (seconds).
CRAWL_S: Final = 100.0
#: Pages of a crawl beside the list of them.
N_PAGES: Final = 400
#: Latency of each page while workers come and go: the crawl lasts longer than that (ms).
SLOWED_MS: Final = 2000
OLD_VERSION: Final = "0.0.9"

SPIDER: Final = f"""
    import scrapy


    class Pages(scrapy.Spider):
        name = "pages"
        custom_settings = {{"CONCURRENT_REQUESTS_PER_DOMAIN": 8, "ROBOTSTXT_OBEY": False}}
        base = mark = ""

        async def start(self):
            yield scrapy.Request(f"{{self.base}}/?mark={{self.mark}}")

        def parse(self, response):
            for number in range({N_PAGES}):
                yield response.follow(f"/?mark={{self.mark}}&page={{number}}", self.parse_page)

        def parse_page(self, response):
            yield {{"url": response.url}}
"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Give a project that crawls several hundred pages."""
    return write_project(tmp_path / "pages", SPIDER)


def command(site: Site, mark: str, *options: str) -> list[str]:
    """Crawl all pages; *mark* tells the crawls apart at the site."""
    return ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-a", f"mark={mark}", *options]


def requested(site: Site, mark: str) -> Counter[str]:
    """What a crawl has requested of the site, and how often."""
    return Counter(query for entry in site.log() if f"mark={mark}" in (query := entry["query"]).split("&"))


def all_pages(mark: str) -> Counter[str]:
    """Each page once, and the list of them."""
    return Counter([f"mark={mark}", *(f"mark={mark}&page={number}" for number in range(N_PAGES))])


def all_items(site: Site, mark: str) -> Counter[str]:
    """The item of each page, once."""
    return Counter(f"{site.base}/?mark={mark}&page={number}" for number in range(N_PAGES))


def items(text: str) -> Counter[str]:
    """The items of a feed, and how often each is there."""
    return Counter(json.loads(line)["url"] for line in text.splitlines())


def workers_of(machine: Machine, taskid: int) -> set[str]:
    """The workers that have crawled pages of a task."""
    return {found.worker for found in work(machine.store, taskid) if found.done}


def wait_for_pages(machine: Machine, taskid: int, number: int) -> None:
    """Wait until a task has crawled so many pages."""
    wait_for(lambda: machine.tasks.record(taskid).pages >= number, CRAWL_S, f"{number} pages of task {taskid}")


def own_record(machine: Machine, taskid: int) -> dict[str, str]:
    """A task's record as it stands there, whatever its protocol."""
    return texts(machine.store.client.hgetall(keys.task(taskid)))


def is_finished(machine: Machine, taskid: int) -> bool:
    """Has a task ended, whatever its protocol?"""
    return own_record(machine, taskid)["state"] == TaskState.FINISHED


def wait_for_own_pages(machine: Machine, taskid: int, number: int) -> None:
    """As :func:`wait_for_pages`, for a task of another protocol."""

    def count() -> int:
        return Tally.read(own_record(machine, taskid).get("tally", "")).pages

    wait_for(lambda: count() >= number, CRAWL_S, f"{number} pages of task {taskid}")


def templates(machine: Machine) -> list[int]:
    """The templates that have read all of their code."""
    return [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-template")]


def ended(worker: Running) -> str:
    """What a worker has said, which ends well."""
    done = worker.wait(CRAWL_S)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.long
def test_task_goes_on_when_its_workers_are_upgraded_one_after_the_other(
    machine: Machine, slow_site: Site, pages: Path, tmp_path: Path
) -> None:
    """An older worker is drained in the middle of a task, and a new one joins: each page and item comes once."""
    env = another_version(tmp_path / "old", OLD_VERSION)
    old = machine.start_worker(slots=2, name="old", env=env)
    machine.start_worker(slots=1, name="new")
    feed = tmp_path / "items.jsonl"
    slow_site.set_latency(SLOWED_MS)
    sender = machine.start(command(slow_site, "a", "-O", str(feed)), pages)
    taskid = int(sender.wait_for_output(r"vscrapy: task (\d+): pages").group(1))
    wait_for(lambda: {"old", "new"} <= workers_of(machine, taskid), CRAWL_S, lambda: f"{workers_of(machine, taskid)}")
    drained = machine.run(["vscrapy", "drain", "old"])
    assert drained.exit_code == 0, drained.output
    machine.start_worker(slots=2, name="newer")
    ended(old)
    wait_for(lambda: "newer" in workers_of(machine, taskid), CRAWL_S, lambda: f"{workers_of(machine, taskid)}")
    slow_site.set_latency(SLOW_MS)
    done = sender.wait(CRAWL_S)
    assert done.exit_code == 0, done.output
    assert items(feed.read_text()) == all_items(slow_site, "a")
    assert requested(slow_site, "a") == all_pages("a")
    record = machine.tasks.record(taskid)
    assert (record.state, record.reason, record.queued, record.leased) == (TaskState.FINISHED, "finished", 0, 0)
    here = vscrapy.__version__
    assert done.stderr.count("the task was sent with") == 1, done.stderr
    assert f"worker old has vscrapy {OLD_VERSION}; the task was sent with vscrapy {here} " in done.stderr


def test_workers_of_another_protocol_work_side_by_side_each_on_its_own_tasks(
    machine: Machine, slow_site: Site, pages: Path, tmp_path: Path
) -> None:
    """
    Each task is done by workers that speak its protocol, and left alone by the others, once each page and item.

    What cannot be understood is said in one line: by the older worker, once; by each command, with what to do.
    """
    machine.start_embedded()
    slow_site.set_latency(SLOWED_MS)
    env = another_version(tmp_path / "old", OLD_VERSION, protocol=PROTOCOL - 1)
    old = machine.start_worker(slots=2, name="old", env=env)
    assert machine.run(command(slow_site, "a", "--detach"), pages, env=env).exit_code == 0
    wait_for_own_pages(machine, 1, 1)
    new = machine.start_worker(slots=2, name="new")
    feed = tmp_path / "items.jsonl"
    sender = machine.start(command(slow_site, "b", "-O", str(feed)), pages)
    assert int(sender.wait_for_output(r"vscrapy: task (\d+): pages").group(1)) == 2
    wait_for_pages(machine, 2, 1)
    listed = " ".join(machine.run(["vscrapy", "-l"]).stdout.split())
    for words in (
        ["-c", "1"],
        ["stop", "1"],
        ["pause", "1"],
        ["valve", "1", "--level", "INFO"],
        ["stats", "1"],
        ["retry", "1"],
    ):
        refused = machine.run(["vscrapy", *words])
        assert refused.exit_code == 10, refused.output
        assert refused.stderr == (
            f"vscrapy: task 1 was made by vscrapy {OLD_VERSION} (protocol {PROTOCOL - 1}), and this is vscrapy "
            f"{vscrapy.__version__} (protocol {PROTOCOL}); give this command with vscrapy {OLD_VERSION}\n"
        )
    assert f"made by vscrapy {OLD_VERSION}" in listed, listed
    slow_site.set_latency(SLOW_MS)
    for task, mark in ((1, "a"), (2, "b")):
        wait_for(partial(is_finished, machine, task), CRAWL_S, f"task {task} has ended")
        assert requested(slow_site, mark) == all_pages(mark)
    assert (workers_of(machine, 1), workers_of(machine, 2)) == ({"old"}, {"new"})
    done = sender.wait(CRAWL_S)
    assert done.exit_code == 0, done.output
    assert items(feed.read_text()) == all_items(slow_site, "b")
    old_feed = tmp_path / "old.jsonl"
    assert machine.run(["vscrapy", "items", "1", "-o", str(old_feed)], env=env).exit_code == 0
    assert items(old_feed.read_text()) == all_items(slow_site, "a")
    kept = machine.run(["vscrapy", "clean", "1"])
    assert (kept.exit_code, is_finished(machine, 1)) == (1, True)
    assert "or wait: what has ended goes after a week" in kept.stdout
    assert machine.run(["vscrapy", "drain", "old"]).exit_code == 0
    said = ended(old)
    assert said.count("was made by") == 1, said
    told = (
        f"task 2 was made by vscrapy {vscrapy.__version__} (protocol {PROTOCOL}), and this is vscrapy {OLD_VERSION}"
    )
    assert told in said
    assert "Traceback" not in said + new.output


@pytest.mark.long
def test_upgrade_on_disk_does_not_mix_with_the_worker_that_runs(
    machine: Machine, site: Site, pages: Path, tmp_path: Path
) -> None:
    """
    Between the installation and the drain, tasks run with the version that the worker was started with.

    When that cannot be had any more, for its template has died, the worker says so and ends.
    """
    env = another_version(tmp_path / "old", OLD_VERSION)
    worker = machine.start_worker(name="old", env=env)
    package = tmp_path / "old" / "vscrapy"
    (template,) = wait_for(lambda: templates(machine), CRAWL_S, "the template is ready")
    for module in package.rglob("*.py"):
        module.write_text("raise ImportError('of another version')\n")
    feed = tmp_path / "items.jsonl"
    done = machine.run(command(site, "a", "-O", str(feed)), pages, CRAWL_S)
    assert done.exit_code == 0, done.output
    assert items(feed.read_text()) == all_items(site, "a")
    shutil.rmtree(package)
    another_version(tmp_path / "old", "0.2.0")
    os.kill(template, signal.SIGKILL)
    said = ended(worker)
    assert f"vscrapy 0.2.0 is installed here now, and this worker runs {OLD_VERSION}; it finishes, and ends" in said
