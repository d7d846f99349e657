"""
What is killed, suspended or sent away in the middle of a crawl costs time, and never a request or an item.

The measure is ``scrapy crawl`` itself: the same items, each as often.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Running, Site, below, copy_project, is_alive, wait_for
from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord

pytest_plugins = ["tests.integration.machine"]

#: A crawl process that was killed has given back what it had within this time (seconds).
BACK_S: Final = 1.0
#: The template and the crawl processes of an agent that was killed end by themselves within this time (seconds).
ORPHANS_S: Final = 3.0
#: After the last heartbeat of a worker, others have what it had within this time: its time to live, and one more
#: heartbeat of another worker (ms); and what a busy machine adds to it.
TAKEN_OVER_MS: Final = 10_000
BUSY_MS: Final = 1000
#: Time for a crawl that had an accident (seconds).
CRAWL_S: Final = 60.0
#: Kills in the chaos test.
N_KILLS: Final = 10

#: A project in one module.
LAB: Final = """
import asyncio
import os
import signal

import scrapy

SPIDER_MODULES = ["lab"]
TELNETCONSOLE_ENABLED = False


class Suicide(scrapy.Spider):
    name = "suicide"

    async def start(self):
        os.kill(os.getpid(), signal.SIGKILL)
        yield scrapy.Request("data:,", dont_filter=True)


class SlowStart(scrapy.Spider):
    name = "slow_start"

    async def start(self):
        for number in range(500):
            await asyncio.sleep(0.005)
            yield scrapy.Request(f"data:,{number}", cb_kwargs={"number": number}, dont_filter=True)
            if number % 10 == 0:
                yield {"from start": number}

    def parse(self, response, number):
        yield {"from parse": number}
"""


class Crawl:
    """A crawl, its sender, and its feed."""

    def __init__(
        self, machine: Machine, project: Path, spider: str, *options: str, feed: Path, n_processes: int = 1
    ) -> None:
        self.machine = machine
        self.feed = feed
        self.sender: Running = machine.start(["vscrapy", "crawl", spider, "-O", str(feed), *options], project)
        self.taskid = int(self.sender.wait_for_output(rf"vscrapy: task (\d+): {spider}").group(1))
        # A place is taken a moment before its process runs.
        wait_for(lambda: len(crawling(machine)) >= n_processes, what=lambda: f"{n_processes}; {self.places()}")

    @property
    def record(self) -> TaskRecord:
        """The task's record."""
        return self.machine.tasks.record(self.taskid)

    def places(self) -> dict[str, str]:
        """The places that are taken in the task: crawl process -> worker."""
        found: dict[bytes, bytes] = self.machine.store.client.hgetall(keys.processes(self.taskid))
        return {process.decode(): json.loads(place)["worker"] for process, place in found.items()}

    def wait_for_pages(self, number: int) -> None:
        """Wait until so many pages have been crawled."""
        wait_for(lambda: self.record.pages >= number, what=lambda: f"page {number}; {self.record}")

    def finish(self, exit_code: int = 0, reason: str = "finished") -> str:
        """Wait for the end, and see that it is this one; what the sender has said."""
        finished = self.sender.wait(CRAWL_S)
        assert finished.exit_code == exit_code, finished.output
        assert f"'finish_reason': '{reason}'" in finished.stderr
        record = self.record
        assert (record.state, record.reason) == (TaskState.FINISHED, reason)
        assert (record.queued, record.leased, record.processes) == (0, 0, 0)
        return finished.output

    def items(self) -> Counter[str]:
        """The items of the feed, and how often each is there."""
        return read(self.feed)


def read(feed: Path) -> Counter[str]:
    """Read a feed of JSON lines; the order of an item's fields does not count."""
    return Counter(json.dumps(json.loads(line), sort_keys=True) for line in feed.read_text().splitlines())


def crawling(machine: Machine, pids: Iterable[int] | None = None) -> list[int]:
    """The crawl processes (among *pids*), the oldest first."""
    titles = machine.processes()
    among = set(titles) if pids is None else set(pids)
    return sorted(pid for pid, title in titles.items() if pid in among and title.startswith("vscrapy-crawl"))


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(scope="module")
def expected(shared_machine: Machine, _fast_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """The items of ``scrapy crawl books``."""
    directory = tmp_path_factory.mktemp("expected")
    project, feed = copy_project(directory / "project"), directory / "books.jsonl"
    command = ["scrapy", "crawl", "books", "-a", f"base={_fast_site.base}", "-O", str(feed), "-L", "INFO"]
    assert shared_machine.run(command, project).exit_code == 0
    items = read(feed)
    assert items.total() == len(items) == 894
    return items


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The project in one module."""
    directory = tmp_path / "lab"
    directory.mkdir()
    directory.joinpath("lab.py").write_text(LAB)
    directory.joinpath("scrapy.cfg").write_text("[settings]\ndefault = lab\n")
    return directory


def crawl_books(machine: Machine, project: Path, site: Site, *, n_processes: int, at_a_time: int = 8) -> Crawl:
    """Crawl the shop with several crawl processes, and be in the middle of it."""
    options = ["-a", f"base={site.base}", "-L", "INFO", "-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={at_a_time}"]
    crawl = Crawl(machine, project, "books", *options, feed=project.parent / "books.jsonl", n_processes=n_processes)
    crawl.wait_for_pages(100)
    return crawl


# --- a crawl process


def test_items_are_exact_when_a_crawl_process_is_killed(
    machine: Machine, slow_site: Site, project: Path, expected: Counter[str]
) -> None:
    """What a killed crawl process had in hand goes back within a second, and is done by others, once."""
    machine.start_worker(slots=3)
    crawl = crawl_books(machine, project, slow_site, n_processes=3, at_a_time=12)
    before = set(crawl.places())
    os.kill(random.choice(crawling(machine)), signal.SIGKILL)
    since_s = time.monotonic()
    wait_for(lambda: before - set(crawl.places()))
    took_s = time.monotonic() - since_s
    print(f"figure: the leases of a killed crawl process are back after {took_s:.2f} s")
    assert took_s < BACK_S
    output = crawl.finish()
    assert "was killed by SIGKILL" in output
    assert crawl.items() == expected


@pytest.mark.long
def test_items_are_exact_when_processes_are_killed_at_random(
    machine: Machine, slow_site: Site, project: Path, expected: Counter[str]
) -> None:
    """Ten kills of crawl processes and their templates on two workers change nothing in the result."""
    seed = int(os.environ.get("VSCRAPY_TEST_SEED") or random.randrange(10**6))
    print(f"seed: {seed}; VSCRAPY_TEST_SEED={seed} does the same again")
    chance = random.Random(seed)
    workers = [machine.start_worker(slots=2, name="w1"), machine.start_worker(slots=1, name="w2")]
    crawl = crawl_books(machine, project, slow_site, n_processes=2)
    for _ in range(N_KILLS):
        # In between, requests are finished: five crashes without any would end the task.
        crawl.wait_for_pages(crawl.record.pages + chance.randint(5, 25))
        victims = sorted(wait_for(lambda: [pid for worker in workers for pid in below(worker.pid)]))
        os.kill(chance.choice(victims), signal.SIGKILL)
    assert crawl.record.state is TaskState.RUNNING, "the last kill came too late"
    crawl.finish()
    assert crawl.items() == expected


def test_task_ends_when_its_start_kills_each_process(machine: Machine, lab: Path, tmp_path: Path) -> None:
    """A spider that kills its process before anything is done ends the task in bounded time, with exit code 1."""
    machine.start_worker(slots=2)
    since_s = time.monotonic()
    crawl = Crawl(machine, lab, "suicide", feed=tmp_path / "items.jsonl")
    output = crawl.finish(exit_code=1, reason="crashed")
    print(f"figure: a spider that kills its process: ended after {time.monotonic() - since_s:.2f} s")
    assert time.monotonic() - since_s < 20
    assert output.count("was killed by SIGKILL") >= 5


def test_start_is_resumed_when_its_process_is_killed(machine: Machine, lab: Path, tmp_path: Path) -> None:
    """Of 500 slow outputs of start(), whose process is killed twice, each is done exactly once."""
    machine.start_worker(slots=2)
    crawl = Crawl(machine, lab, "slow_start", feed=tmp_path / "items.jsonl")
    for number in (100, 250):
        crawl.wait_for_pages(number)
        signal_all(crawling(machine), signal.SIGKILL)
    crawl.finish()
    wanted = [{"from parse": number} for number in range(500)] + [{"from start": n} for n in range(0, 500, 10)]
    assert crawl.items() == Counter(map(json.dumps, wanted))


# --- a worker


@pytest.mark.long
def test_items_are_exact_when_an_agent_is_killed(
    machine: Machine, slow_site: Site, project: Path, expected: Counter[str]
) -> None:
    """The processes of a killed agent end by themselves, and another worker takes over what they had."""
    agent = machine.start_worker(slots=2, name="w1")
    machine.start_worker(slots=1, name="w2")
    crawl = crawl_books(machine, project, slow_site, n_processes=3)
    orphans = below(agent.pid)
    assert len(orphans) >= 2, "a template and its crawl processes"
    agent.kill()
    killed_s = time.monotonic()
    wait_for(lambda: not any(is_alive(pid) for pid in orphans))
    took_s = time.monotonic() - killed_s
    print(f"figure: the processes of a killed agent have ended after {took_s:.2f} s")
    assert took_s < ORPHANS_S
    seen_ms = next(worker.seen_ms for worker in machine.workers.list() if worker.name == "w1")
    wait_for(lambda: "w1" not in crawl.places().values())
    took_ms = machine.tasks.now_ms() - seen_ms
    print(f"figure: what a killed agent had is back {took_ms} ms after its last heartbeat")
    assert took_ms < TAKEN_OVER_MS + BUSY_MS
    output = crawl.finish()
    assert "worker w1 is dead" in output
    assert crawl.items() == expected


def test_commits_are_refused_when_a_worker_was_suspended(
    machine: Machine, slow_site: Site, project: Path, expected: Counter[str]
) -> None:
    """A worker that slept past its deadline cannot commit what others do now; it begins anew."""
    agent = machine.start_worker(slots=2, name="w1")
    machine.start_worker(slots=1, name="w2")
    crawl = crawl_books(machine, project, slow_site, n_processes=3)
    since_ms = next(worker.since_ms for worker in machine.workers.list() if worker.name == "w1")
    everyone = {agent.pid, *below(agent.pid)}
    late = crawling(machine, everyone)
    assert late
    signal_all(everyone, signal.SIGSTOP)
    wait_for(lambda: "w1" not in crawl.places().values())
    # The crawl processes first: nobody but Redis tells them that they are late.
    signal_all(late, signal.SIGCONT)
    wait_for(lambda: not any(is_alive(pid) for pid in late), what="the late ones end")
    signal_all(everyone, signal.SIGCONT)
    agent.wait_for_output("given up for dead.*registers again")
    wait_for(lambda: any(w.name == "w1" and w.is_alive and w.since_ms > since_ms for w in machine.workers.list()))
    output = crawl.finish()
    assert re.search(r"process \S+ of task \d+ was given up for dead", output)
    assert crawl.items() == expected


@pytest.mark.parametrize("others", [0, pytest.param(1, marks=pytest.mark.long)])
def test_items_are_exact_when_a_worker_is_sent_away(
    machine: Machine, slow_site: Site, project: Path, expected: Counter[str], others: int
) -> None:
    """A worker that ends gracefully finishes what is in flight; the rest is done elsewhere, now or later."""
    leaving = machine.start_worker(slots=2, name="w1")
    for number in range(others):
        machine.start_worker(slots=1, name=f"other-{number}")
    crawl = crawl_books(machine, project, slow_site, n_processes=2 + others, at_a_time=12)
    since_s = time.monotonic()
    leaving.signal(signal.SIGTERM)
    assert leaving.wait().exit_code == 0
    print(f"figure: a worker that was sent away ended after {time.monotonic() - since_s:.2f} s")
    assert "w1" not in crawl.places().values()
    if not others:
        assert (crawl.record.state, crawl.record.leased) == (TaskState.RUNNING, 0)
        machine.start_worker(slots=2, name="w2")
    output = crawl.finish()
    assert crawl.items() == expected
    assert output.count("Closing spider (") == output.count("Closing spider (finished)") == 1
