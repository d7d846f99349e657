"""Several tasks at once: each gets its share of the slots, none waits for another to end, and nothing mixes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, Running, Site, wait_for, write_project
from vscrapy import keys
from vscrapy.store.tasks import TaskRecord

pytest_plugins = ["tests.integration.machine"]

#: Time for the crawls of a test (seconds).
CRAWL_S: Final = 180.0
#: Time after which a short task runs, while a long one has all slots (seconds): that it waits is seen, a page is
#: finished, a process ends, and another one begins; on a busy machine.
SOON_S: Final = 15.0
#: A turn in these tests (seconds).
TURN_S: Final = 1.0

#: Kills while two tasks take turns: fewer than end a task that finishes nothing in between.
N_KILLS: Final = 4

#: Spiders over the site's pages /trouble/fine/N.
SHOP: Final = """
    import asyncio
    import os
    from pathlib import Path

    from scrapy import Request, Spider
    from scrapy.exceptions import CloseSpider

    NAME = "a task's"


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, first="1", last="300", **kwargs):
            super().__init__(**kwargs)
            self.numbers = range(int(first), int(last) + 1)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in self.numbers]
            self.seen = 0

        def parse(self, response):
            self.seen += 1
            number = int(response.url.rpartition("/")[2])
            yield {"page": number, "name": NAME, "pid": os.getpid(), "seen": self.seen}


    class Started(Pages):
        name = "started"

        async def start(self):
            for url in self.start_urls:
                yield Request(url)
                await asyncio.sleep(0.01)


    class UntilTold(Pages):
        name = "until-told"

        def __init__(self, gate, **kwargs):
            super().__init__(last="1000000", **kwargs)
            self.gate = Path(gate)

        def parse(self, response):
            if self.gate.exists():
                raise CloseSpider("enough")
            yield from super().parse(response)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with these spiders."""
    return write_project(tmp_path / "shop-project", SHOP)


class Crawl:
    """A crawl, its sender, and its feed."""

    def __init__(self, machine: Machine, shop: Path, site: Site, spider: str, *options: str, **args: Any) -> None:
        self.machine = machine
        self.numbers = range(int(args.get("first", 1)), int(args.get("last", 300)) + 1)
        self.feed = shop.parent / f"items-{spider}-{self.numbers.start}-{self.numbers.stop}.jsonl"
        spider_args = [part for name, value in args.items() for part in ("-a", f"{name}={value}")]
        command = ["vscrapy", "crawl", spider, "-a", f"base={site.base}", *spider_args, "-O", str(self.feed)]
        self.sender: Running = machine.start([*command, "-L", "INFO", *options], shop)

    @property
    def taskid(self) -> int:
        """Its task's id."""
        return int(self.sender.wait_for_output(r"vscrapy: task (\d+): ", SOON_S * 4).group(1))

    @property
    def record(self) -> TaskRecord:
        """Its task's record."""
        return self.machine.tasks.record(self.taskid)

    def places(self) -> dict[str, dict[str, Any]]:
        """Its crawl processes."""
        found: dict[bytes, bytes] = self.machine.store.client.hgetall(keys.processes(self.taskid))
        return {process.decode(): json.loads(place) for process, place in found.items()}

    def items(self) -> list[dict[str, Any]]:
        """What is in its feed now."""
        return [json.loads(line) for line in self.feed.read_text().splitlines()]

    def finish(self) -> Finished:
        """Wait for the end, and see that each page became one item."""
        finished = self.sender.wait(CRAWL_S)
        assert finished.exit_code == 0, finished.output
        assert Counter(item["page"] for item in self.items()) == Counter(self.numbers)
        return finished


def slowly(site: Site, ms: int) -> Site:
    """The site, so slow that a crawl lasts as long as a test needs it; until it is set back to 0."""
    site.set_latency(ms)
    return site


def capacity(number: int) -> tuple[str, ...]:
    """So many requests in flight a process, whatever the site sees; more processes join while more wait."""
    return "-s", f"CONCURRENT_REQUESTS={number}", "-s", "VSCRAPY_POLITENESS=worker"


def shares(*crawls: Crawl) -> list[int]:
    """How many processes each of them has."""
    return [crawl.record.processes for crawl in crawls]


# --- who has many gives ---------------------------------------------------------------------------------------------


def test_short_task_runs_soon_while_a_long_one_has_all_slots(machine: Machine, site: Site, shop: Path) -> None:
    """One of its processes leaves, and says why; it comes back when the short task has ended."""
    machine.start_worker(1, "w1")
    machine.start_worker(1, "w2")
    long = Crawl(machine, shop, slowly(site, 200), "pages", *capacity(4), last=2000)
    wait_for(lambda: shares(long) == [2], what="the long task has both slots")
    short = Crawl(machine, shop, site, "pages", *capacity(4), first=5001, last=5010)
    wait_for(lambda: short.record.processes, SOON_S + CRAWL_S / 4, what="the short task runs")
    waited_ms = machine.tasks.now_ms() - short.record.created_ms
    print(f"figure: a short task has a process {waited_ms} ms after its submission")
    assert waited_ms < SOON_S * 1000
    short.finish()
    assert long.sender.is_running
    wait_for(lambda: shares(long) == [2], what="the long task has both slots again")
    site.set_latency(0)
    leaves = [line for line in long.finish().stderr.splitlines() if " leaves: " in line]
    assert [re.sub(r"process \d+", "process N", line.partition("vscrapy: ")[2]) for line in leaves] == [
        f"crawl process N leaves: task {short.taskid} waits for a slot, and this task has 2"
    ]


@pytest.mark.long
def test_tasks_come_to_equal_shares(machine: Machine, site: Site, shop: Path) -> None:
    """A task that can use more takes from one that has two more than itself, and not more than that."""
    machine.start_worker(2, "w1")
    machine.start_worker(2, "w2")
    first = Crawl(machine, shop, slowly(site, 200), "pages", *capacity(2), last=1500)
    wait_for(lambda: shares(first) == [4], what="the first has all slots")
    second = Crawl(machine, shop, site, "pages", *capacity(2), first=5001, last=6500)
    wait_for(
        lambda: shares(first, second) == [2, 2], CRAWL_S / 3, what=lambda: f"{shares(first, second)} come to 2, 2"
    )
    third = Crawl(machine, shop, site, "pages", *capacity(2), first=9001, last=9300)
    wait_for(lambda: shares(third) == [1], CRAWL_S / 3, what="the third has one")
    wait_for(lambda: sum(shares(first, second, third)) == 4, what="all slots are taken")
    assert sorted(shares(first, second, third)) == [1, 1, 2]
    site.set_latency(0)
    for crawl in (first, second, third):
        crawl.finish()


def test_nothing_is_lost_when_a_process_is_killed_that_just_leaves(machine: Machine, site: Site, shop: Path) -> None:
    """What it had in flight goes back with the rest."""
    workers = {name: machine.start_worker(1, name) for name in ("w1", "w2")}
    long = Crawl(machine, shop, slowly(site, 1000), "pages", *capacity(4), last=300)
    wait_for(lambda: shares(long) == [2], what="the long task has both slots")
    short = Crawl(machine, shop, site, "pages", *capacity(4), first=5001, last=5004)
    leaving = wait_for(
        lambda: [place for place in long.places().values() if "leaves_until_ms" in place], SOON_S + CRAWL_S / 4
    )
    [worker] = {place["worker"] for place in leaving}
    wait_for(lambda: " leaves: " in long.sender.stderr, what="it has heard it")
    for pid in crawl_processes(machine, workers[worker].pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    site.set_latency(0)
    short.finish()
    assert "was killed by SIGKILL" in long.finish().stderr


def crawl_processes(machine: Machine, worker: int | None = None) -> list[int]:
    """The crawl processes; those of one worker are below its process."""
    pids = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl")]
    return [pid for pid in pids if worker is None or worker in ancestors(pid)]


def ancestors(pid: int) -> list[int]:
    """The parents of a process."""
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            break
        found.append(pid)
    return found


@pytest.mark.long
def test_paused_task_gives_its_slot(machine: Machine, site: Site, shop: Path) -> None:
    """It does nothing with it; after ``resume`` it goes on where it was."""
    machine.start_worker(1)
    first = Crawl(machine, shop, slowly(site, 50), "pages", *capacity(2), last=200)
    wait_for(lambda: first.record.pages > 5, what="the first task crawls")
    assert machine.run(["vscrapy", "pause", str(first.taskid)]).exit_code == 0
    second = Crawl(machine, shop, site, "pages", *capacity(2), first=5001, last=5010)
    second.finish()
    assert machine.run(["vscrapy", "resume", str(first.taskid)]).exit_code == 0
    assert f"task {second.taskid} waits for a slot, and this task is paused" in first.finish().stderr


# --- where each has one, they take turns ----------------------------------------------------------------------------


@pytest.mark.long
def test_short_task_does_not_wait_for_a_long_one_on_the_only_slot(machine: Machine, site: Site, shop: Path) -> None:
    """The long one had its turn; it goes on where it was when the short one has ended, or had its turn."""
    machine.start_worker(1, turn_s=TURN_S)
    long = Crawl(machine, shop, slowly(site, 100), "pages", *capacity(2), last=600)
    wait_for(lambda: long.record.pages > 5, what="the long task crawls")
    short = Crawl(machine, shop, site, "pages", *capacity(2), first=5001, last=5020)
    short.finish()
    assert long.sender.is_running
    site.set_latency(0)
    log = long.finish().stderr
    assert f"it has had its turn, and task {short.taskid} waits for a slot; this task goes on after it" in log
    assert len({item["pid"] for item in long.items()}) > 1


@pytest.mark.long
def test_start_is_read_on_at_each_turn(machine: Machine, site: Site, shop: Path) -> None:
    """Two tasks whose start() is the long part change places, and no output is missed or made twice."""
    machine.start_worker(1, turn_s=TURN_S)
    crawls = [
        Crawl(machine, shop, site, "started", *capacity(2), first=first, last=first + 299) for first in (1, 5001)
    ]
    for crawl in crawls:
        crawl.finish()
    turns = [len({item["pid"] for item in crawl.items()}) for crawl in crawls]
    print(f"figure: turns of two tasks of three seconds each: {turns}")
    assert max(turns) > 1


@pytest.mark.long
def test_nothing_is_lost_when_processes_are_killed_that_take_turns(machine: Machine, site: Site, shop: Path) -> None:
    """At any moment: as they begin, in the middle, as they leave."""
    machine.start_worker(1, turn_s=TURN_S / 2)
    slowly(site, 50)
    crawls = [Crawl(machine, shop, site, "pages", *capacity(2), first=first, last=first + 99) for first in (1, 5001)]
    for _ in range(N_KILLS):
        pids = wait_for(lambda: crawl_processes(machine), what="a crawl process")
        time.sleep(random.uniform(0, 2 * TURN_S))  # No event to wait for: at any moment is what is tested.
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    site.set_latency(0)
    for crawl in crawls:
        crawl.finish()


@pytest.mark.long
def test_task_with_one_worker_keeps_its_process_to_its_end(machine: Machine, site: Site, shop: Path) -> None:
    """``--workers 1``: what its spider holds in memory is the whole crawl's."""
    machine.start_worker(1, turn_s=0.1)
    only = Crawl(machine, shop, slowly(site, 50), "pages", *capacity(1), "--workers", "1", last=150)
    wait_for(lambda: only.record.pages > 5, what="it crawls")
    other = Crawl(machine, shop, site, "pages", *capacity(1), first=5001, last=5010)
    wait_for(lambda: other.record.is_waiting, what="another task waits")
    only.finish()
    assert [item["seen"] for item in only.items()] == list(range(1, 151))
    other.finish()


def test_task_that_waits_for_a_slot_is_seen_as_such(machine: Machine, site: Site, shop: Path, tmp_path: Path) -> None:
    """In ``vscrapy -l``, also for programs."""
    machine.start_worker(1)
    gate = tmp_path / "gate"
    first = Crawl(machine, shop, slowly(site, 50), "until-told", *capacity(1), "--workers", "1", gate=gate)
    wait_for(lambda: first.record.pages, what="the first task crawls")
    second = Crawl(machine, shop, site, "pages", *capacity(1), last=5)
    second.sender.wait_for_output("all 1 slots of 1 workers are taken")
    listed = machine.run(["vscrapy", "-l"], env={"COLUMNS": "200"}).stdout
    assert "queued, waits for a slot" in listed
    tasks = json.loads(machine.run(["vscrapy", "-l", "--json"]).stdout)["tasks"]
    assert {task["taskid"]: task["waiting"] for task in tasks} == {first.taskid: False, second.taskid: True}
    gate.touch()
    second.finish()
    assert first.sender.wait().exit_code == 0


@pytest.mark.long
def test_twenty_tasks_on_two_slots_all_begin_before_most_have_ended(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """Each has its own items, each exactly once; none waits until all others have ended."""
    blocker = machine.start_worker(1, "blocker", turn_s=TURN_S)
    blocker.signal(signal.SIGSTOP)  # Until all of them wait.
    slow_site.set_latency(120)
    crawls = [
        Crawl(machine, shop, slow_site, "pages", *capacity(1), first=1000 * n + 1, last=1000 * n + 20)
        for n in range(20)
    ]
    for crawl in crawls:
        assert crawl.taskid
    begun_ms = machine.tasks.now_ms()
    blocker.signal(signal.SIGCONT)
    machine.start_worker(1, "w2", turn_s=TURN_S)
    for crawl in crawls:
        crawl.finish()
        assert {item["name"] for item in crawl.items()} == {"a task's"}
    first_pages_ms = [first_page_ms(slow_site, crawl.numbers) - begun_ms for crawl in crawls]
    ends_ms = sorted(crawl.record.ended_ms - begun_ms for crawl in crawls)
    turns = [len({item["pid"] for item in crawl.items()}) for crawl in crawls]
    print(f"figure: first pages after {sorted(first_pages_ms)} ms, ends after {ends_ms} ms, processes {turns}")
    assert Counter(entry["path"] for entry in slow_site.log()).most_common(1)[0][1] == 1
    assert max(first_pages_ms) < ends_ms[len(crawls) // 2]


def first_page_ms(site: Site, numbers: range) -> int:
    """When the first of these pages was asked for (ms)."""
    paths = {f"/trouble/fine/{n}" for n in numbers}
    return int(min(entry["start_wall_s"] for entry in site.log() if entry["path"] in paths) * 1000)


# --- nothing mixes --------------------------------------------------------------------------------------------------


def test_projects_of_one_name_and_versions_of_one_project_do_not_mix(
    machine: Machine, site: Site, tmp_path: Path
) -> None:
    """Three tasks on two slots: two projects with one package name, and another version of the first."""
    machine.start_worker(2, turn_s=TURN_S)
    slowly(site, 50)
    gate, crawls = tmp_path / "gate", {}
    for directory, name in (("one", "one"), ("two", "two"), ("one", "one, changed")):
        project = tmp_path / directory / "project"
        if not project.exists():
            write_project(project, SHOP)
        with project.joinpath("shop", "spiders.py").open("a") as file:
            file.write("\nfrom shop.names import NAME\n")
        project.joinpath("shop", "names.py").write_text(f"NAME = {name!r}\n")
        feed = tmp_path / f"{name}.jsonl"
        command = ["vscrapy", "crawl", "until-told", "-a", f"base={site.base}", "-a", f"gate={gate}"]
        crawls[name] = machine.start([*command, "-O", str(feed), "-L", "INFO", *capacity(1)], project)
        crawls[name].wait_for_output(r"vscrapy: task \d+: ")
    feeds = {name: tmp_path / f"{name}.jsonl" for name in crawls}
    wait_for(
        lambda: all("it has had its turn" in crawl.stderr for crawl in crawls.values()),
        CRAWL_S / 2,
        what="each has had a turn",
    )
    wait_for(lambda: all(len(read(feed)) > 20 for feed in feeds.values()), CRAWL_S / 2, what="each has items")
    gate.touch()
    for name, crawl in crawls.items():
        finished = crawl.wait(CRAWL_S)
        assert finished.exit_code == 0, finished.output
        items = read(feeds[name])
        assert {item["name"] for item in items} == {name}
        assert Counter(Counter(item["page"] for item in items).values()).keys() == {1}


def read(feed: Path) -> list[dict[str, Any]]:
    """The items in a feed, of whole lines."""
    text = feed.read_text() if feed.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
