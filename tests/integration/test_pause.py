"""A task that is paused begins nothing, keeps all it has, and goes on where it was."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Finished, Machine, Running, Site, wait_for, write_project
from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord

pytest_plugins = ["tests.integration.machine"]

#: Looks of a crawl process at its task, half a second each, after which what goes on would show.
N_LOOKS: Final = 4
#: Pages of a crawl that is paused in the middle.
N_PAGES: Final = 100
#: ... by a command, which takes its time.
N_PAGES_BY_COMMAND: Final = 300

_numbers = count(1)

#: Spiders over the site's pages /trouble/fine/N.
SHOP: Final = """
    import asyncio

    from scrapy import Request, Spider

    class Pages(Spider):
        name = "pages"

        def __init__(self, base, last="100", **kwargs):
            super().__init__(**kwargs)
            self.urls = [f"{base}/trouble/fine/{n}" for n in range(1, int(last) + 1)]
            self.start_urls = self.urls

        def parse(self, response):
            number = int(response.url.rpartition("/")[2])
            print("page", number)
            yield {"page": number}

    class Started(Pages):
        name = "started"

        async def start(self):
            for n, url in enumerate(self.urls):
                print("output", n)
                yield Request(url)
                await asyncio.sleep(0.02)

    class Local(Pages):
        name = "local"

        async def start(self):
            yield Request(self.urls[0], lambda response: self.more(response))

        def more(self, response):
            for url in self.urls[1:]:
                yield Request(url, lambda response: self.parse(response))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with these spiders."""
    return write_project(tmp_path / "shop-project", SHOP)


class Crawl:
    """A crawl, its sender, and its feed."""

    def __init__(self, machine: Machine, shop: Path, site: Site, spider: str, *options: str) -> None:
        self.machine = machine
        self.feed = shop.parent / f"items-{next(_numbers)}.jsonl"
        base = ["-a", f"base={site.base}", "-s", "CONCURRENT_REQUESTS=4", "-O", str(self.feed)]
        self.sender: Running = machine.start(["vscrapy", "crawl", spider, *base, *options], shop)
        self.taskid = int(self.sender.wait_for_output(r"vscrapy: task (\d+): ").group(1))

    @property
    def record(self) -> TaskRecord:
        """The task's record."""
        return self.machine.tasks.record(self.taskid)

    def commits(self) -> dict[str, int]:
        """The crawl processes that have a place, with the number of their last commit."""
        found: dict[bytes, bytes] = self.machine.store.client.hgetall(keys.commits(self.taskid))
        return {process.decode(): int(commit.split()[0]) for process, commit in found.items()}

    def wait_for_looks(self, number: int = N_LOOKS) -> None:
        """Wait until each crawl process has committed so often, with or without anything to say."""
        before = self.commits()
        assert before
        wait_for(
            lambda: all(
                seq >= before[process] + number if process in before else True
                for process, seq in self.commits().items()
            ),
            what="looks at the task",
        )

    def pause(self) -> None:
        """Do as ``vscrapy pause`` does, and wait until nothing is in flight."""
        self.machine.tasks.pause(self.taskid)
        wait_for(lambda: self.record.leased == 0, what=lambda: f"nothing is in flight: {self.record}")

    def resume(self) -> None:
        """Do as ``vscrapy resume`` does."""
        self.machine.tasks.resume(self.taskid)

    def finish(self, n_pages: int = N_PAGES) -> Finished:
        """Wait for the end, and see that each page became one item."""
        finished = self.sender.wait()
        assert finished.exit_code == 0, finished.output
        assert self.items() == Counter(range(1, n_pages + 1))
        return finished

    def items(self) -> Counter[int]:
        """The pages in the feed, and how often each is there."""
        return Counter(json.loads(line)["page"] for line in self.feed.read_text().splitlines())


def pages_of(site: Site) -> Counter[str]:
    """The pages that the site was asked for."""
    return Counter(entry["path"] for entry in site.log())


def test_paused_crawl_rests_and_is_whole_after_resume(machine: Machine, slow_site: Site, shop: Path) -> None:
    """Nothing is asked of the site meanwhile; its sender is told; each page is crawled once."""
    machine.start_worker(2)
    crawl = Crawl(machine, shop, slow_site, "pages", "-a", f"last={N_PAGES_BY_COMMAND}")
    crawl.sender.wait_for_output(r"page 30\b")
    paused = machine.run(["vscrapy", "pause", str(crawl.taskid)])
    assert (paused.exit_code, paused.stdout) == (0, f"task {crawl.taskid}: paused\n"), paused.output
    crawl.pause()  # which it is already
    crawl.sender.wait_for_output(rf"^vscrapy: task {crawl.taskid} is paused; 'vscrapy resume {crawl.taskid}' lets it")
    before, processes = pages_of(slow_site), set(crawl.commits())
    crawl.wait_for_looks()
    record = crawl.record
    assert (record.state, pages_of(slow_site), set(crawl.commits())) == (TaskState.PAUSED, before, processes)
    assert record.queued == N_PAGES_BY_COMMAND - before.total()
    listed = machine.run(["vscrapy", "-l"]).stdout
    assert re.search(rf"^ *{crawl.taskid} +pages +paused ", listed, re.MULTILINE)
    resumed = machine.run(["vscrapy", "resume", str(crawl.taskid)])
    assert (resumed.exit_code, resumed.stdout) == (0, f"task {crawl.taskid}: running\n"), resumed.output
    finished = crawl.finish(N_PAGES_BY_COMMAND)
    assert finished.stderr.count(f"vscrapy: task {crawl.taskid} goes on\n") == 1
    assert set(pages_of(slow_site).values()) == {1}


def test_start_is_held_still_while_its_task_is_paused(machine: Machine, slow_site: Site, shop: Path) -> None:
    """It is not read on, and goes on after what it had yielded."""
    machine.start_worker(1)
    crawl = Crawl(machine, shop, slow_site, "started")
    crawl.sender.wait_for_output(r"output 20\b")
    crawl.pause()
    crawl.wait_for_looks(2)
    before = crawl.sender.stdout.count("output ")
    crawl.wait_for_looks()
    assert crawl.sender.stdout.count("output ") == before < N_PAGES
    crawl.resume()
    assert re.findall(r"output (\d+)", crawl.finish().stdout) == [str(n) for n in range(N_PAGES)]


@pytest.mark.long
def test_requests_that_cannot_travel_rest_too(machine: Machine, slow_site: Site, shop: Path) -> None:
    """They stay on the process that made them, and are not begun either."""
    machine.start_worker(1)
    crawl = Crawl(machine, shop, slow_site, "local")
    crawl.sender.wait_for_output(r"page \d+$")
    machine.tasks.pause(crawl.taskid)
    crawl.wait_for_looks(2)
    before = pages_of(slow_site)
    crawl.wait_for_looks()
    assert pages_of(slow_site) == before
    assert before.total() < N_PAGES
    crawl.resume()
    finished = crawl.sender.wait()
    assert (finished.exit_code, crawl.items()) == (0, Counter(range(2, N_PAGES + 1)))


def test_queued_task_that_is_paused_gets_a_process_after_resume_only(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """A worker that comes meanwhile starts nothing for it, though it has room."""
    machine.start_worker(1)
    first = Crawl(machine, shop, slow_site, "pages", "-a", "last=100000")
    first.sender.wait_for_output(r"page 9\b")
    crawl = Crawl(machine, shop, slow_site, "pages")
    crawl.pause()
    assert machine.run(["vscrapy", "stop", str(first.taskid)]).exit_code == 0
    assert first.sender.wait().exit_code == 0
    third = Crawl(machine, shop, slow_site, "pages", "--workers", "1")
    third.finish()  # the slot was free, and went to the younger one
    assert (crawl.record.state, crawl.commits()) == (TaskState.PAUSED, {})
    finished = machine.run(["vscrapy", "resume", str(crawl.taskid)])
    assert finished.stdout == f"task {crawl.taskid}: queued\n"
    crawl.finish()


def test_process_that_is_killed_while_its_task_is_paused_is_replaced_after_resume(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """``start()`` goes on elsewhere, too."""
    machine.start_worker(2)
    crawl = Crawl(machine, shop, slow_site, "started", "--workers", "1")
    crawl.sender.wait_for_output(r"output 20\b")
    crawl.pause()
    [pid] = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl")]
    os.kill(pid, signal.SIGKILL)
    crawl.sender.wait_for_output(r"was killed by SIGKILL")
    wait_for(lambda: not crawl.commits(), what="its place is free")
    assert crawl.record.state is TaskState.PAUSED
    crawl.resume()
    crawl.finish()


@pytest.mark.long
def test_process_that_leaves_while_its_task_is_paused_hands_start_on(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """Without asyncio, too, where an end is an ordinary exception in ``start()``."""
    shop.joinpath("shop", "settings.py").open("a").write(
        'TWISTED_REACTOR = "twisted.internet.selectreactor.SelectReactor"\n'
    )
    spiders = shop / "shop" / "spiders.py"
    nap = "from twisted.internet import reactor, task; await task.deferLater(reactor, 0.02)"
    spiders.write_text(spiders.read_text().replace("await asyncio.sleep(0.02)", nap))
    first = machine.start_worker(1, "w1")
    crawl = Crawl(machine, shop, slow_site, "started", "--workers", "1")
    crawl.sender.wait_for_output(r"output 20\b")
    crawl.pause()
    first.signal(signal.SIGTERM)
    first.wait()
    assert (crawl.record.state, crawl.commits()) == (TaskState.PAUSED, {})
    machine.start_worker(1, "w2")
    crawl.resume()
    crawl.finish()


@pytest.mark.parametrize(
    "way",
    ["stop", pytest.param("Ctrl-C", marks=pytest.mark.long), pytest.param("sender killed", marks=pytest.mark.long)],
)
def test_paused_task_ends_as_a_running_one(machine: Machine, slow_site: Site, shop: Path, way: str) -> None:
    """Whoever ends it, and however, it need not be resumed for that."""
    machine.start_worker(1)
    crawl = Crawl(machine, shop, slow_site, "started")
    crawl.sender.wait_for_output(r"page 9\b")
    crawl.pause()
    if way == "stop":
        assert machine.run(["vscrapy", "stop", str(crawl.taskid)]).exit_code == 0
    elif way == "Ctrl-C":
        crawl.sender.signal(signal.SIGINT)
    else:
        crawl.sender.kill()
    wait_for(lambda: crawl.record.state is TaskState.FINISHED, what=lambda: f"its end: {crawl.record}")
    assert crawl.record.reason == ("sender_lost" if way == "sender killed" else "shutdown")
    if way != "sender killed":
        assert crawl.sender.wait().exit_code == 0
        assert crawl.items().total() == crawl.record.items
    again = machine.run(["vscrapy", "pause", str(crawl.taskid)])
    assert again.stdout == f"task {crawl.taskid} had ended already ({crawl.record.reason})\n"


def test_embedded_pair_does_not_end_as_idle_while_a_task_is_paused(machine: Machine, site: Site, shop: Path) -> None:
    """A paused task without a sender is not nothing to do."""
    base = ["-a", f"base={site.base}", "-s", "DOWNLOAD_DELAY=0.1", "--workers", "1"]
    sent = machine.run(["vscrapy", "crawl", "pages", *base, "--detach"], shop, env={"VSCRAPY_IDLE_EXIT": "1"})
    assert sent.exit_code == 0, sent.output
    taskid = machine.last_taskid()
    wait_for(lambda: machine.tasks.record(taskid).items > 3, what="items")
    assert machine.run(["vscrapy", "pause", str(taskid)]).exit_code == 0
    since_ms = machine.tasks.now_ms()
    machine.store.close()
    wait_for(lambda: machine.tasks.now_ms() - since_ms > 4000, what="four times what it waits for a task")
    assert machine.tasks.record(taskid).state is TaskState.PAUSED
    assert [worker.is_alive for worker in machine.workers.list()] == [True]
    assert machine.run(["vscrapy", "stop", str(taskid)]).exit_code == 0
