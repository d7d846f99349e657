"""
A request that kills its process is tried a bounded number of times and then given up, told with what is known; all
others are done. What takes too long, or too much memory, ends the process and not the task.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, Site, wait_for, write_project
from tests.integration.support import Process, request, running, submit, view
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.failures import Failures
from vscrapy.store.frontier import MOST_CRASHES, MOST_DEATHS, Result, leave

pytest_plugins = ["tests.integration.machine"]

N_PAGES: Final = 60
SHOP: Final = """
    import ctypes
    import os
    import re
    import signal
    import time

    from scrapy import Request, Spider

    class Pages(Spider):
        name = "pages"
        n_pages = 60

        def __init__(self, base, poison="17", how="segfault", **kwargs):
            super().__init__(**kwargs)
            self.poison = set(poison.split(","))
            self.how = how
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(self.n_pages)]

        def parse(self, response):
            number = response.url.rpartition("/")[2]
            if number in self.poison:
                getattr(self, self.how)()
            yield {"page": int(number)}

        def segfault(self):
            ctypes.string_at(0)

        def exits(self):
            os._exit(3)

        def loops(self):
            re.match(r"(a+)+$", "a" * 64 + "b")

        def hoards(self):
            self.hoard = [bytearray(64 << 20) for _ in range(8)]
            for part in self.hoard:
                part[::4096] = b"x" * (len(part) // 4096)
            time.sleep(30)

    class Leaking(Pages):
        name = "leaking"
        n_pages = 200
        hoard = []

        def parse(self, response):
            self.hoard.append(os.urandom(1 << 20))
            yield {"page": int(response.url.rpartition("/")[2])}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with pages of which some are poison."""
    return write_project(tmp_path / "project", SHOP)


def crawl(machine: Machine, shop: Path, site: Site, spider: str, *options: str, timeout: float = 60) -> Finished:
    """Crawl attached, to the end."""
    command = ["vscrapy", "crawl", spider, "-a", f"base={site.base}", "-O", "items.jsonl", "-L", "INFO", *options]
    return machine.run([*command, "-s", "CONCURRENT_REQUESTS=8"], shop, timeout)


def pages(shop: Path) -> Counter[int]:
    """The pages of the feed, and how often each is there."""
    return Counter(json.loads(line)["page"] for line in (shop / "items.jsonl").read_text().splitlines())


def errors(machine: Machine, shop: Path) -> list[dict[str, Any]]:
    """As ``vscrapy errors --json`` has them."""
    shown = machine.run(["vscrapy", "errors", str(machine.last_taskid()), "--json"], shop)
    assert shown.exit_code == 0, shown.stderr
    found: list[dict[str, Any]] = json.loads(shown.stdout)["errors"]
    return found


# --- on Redis


def test_requests_in_hand_of_a_process_that_died_run_alone(store: Store) -> None:
    """One at a time in the whole task, while other processes do the rest; those that are done are cleared."""
    first = running(store, submit(store))
    first.feed(*(request(f"{n}") for n in range(40)), request("bad", queue="9"))
    assert first.lease(2) == ["bad", "39"]
    leave(store, first.taskid, first.name, how="crashed", failure=b"told")
    assert sorted(payload for _, _, payload in view(store, first.taskid).suspects) == [b"39", b"bad"]
    alone, other = running(store, first.taskid), running(store, first.taskid)
    reply = alone.commit(wanted=5)
    [lease] = reply.leases
    assert reply.suspect == lease.id
    assert alone.commit(wanted=5).leases == []
    assert len(other.lease(5)) == 5
    reply = alone.commit(Result("done", lease.id), wanted=5)
    [lease] = reply.leases
    assert reply.suspect == lease.id
    reply = alone.commit(Result("done", lease.id), wanted=5)
    assert (len(reply.leases), reply.suspect) == (5, "")
    found = view(store, first.taskid)
    assert (found.suspects, "deaths" in found.ttls) == ([], False)


def test_request_that_kills_each_process_is_given_up_and_can_be_put_back(store: Store) -> None:
    """It joins those that failed for good; the task does not end by its crashes, and all others are done."""
    process = running(store, submit(store))
    process.feed(request("good"), request("bad"))
    process.commit(wanted=2)
    done: list[bytes] = []
    n_deaths = 0
    while view(store, process.taskid).payloads() or n_deaths == 0:
        if n_deaths:
            process = running(store, process.taskid)
            leases = process.commit(wanted=2).leases
            if leases and leases[0].payload == b"good":
                process.commit(Result("done", leases[0].id))
                done.append(leases[0].payload)
                leave(store, process.taskid, process.name, how="left")
                continue
        leave(store, process.taskid, process.name, how="crashed", failure=b"told")
        n_deaths += 1
        assert n_deaths <= MOST_DEATHS
    assert (done, n_deaths) == ([b"good"], MOST_DEATHS)
    assert n_deaths < MOST_CRASHES
    [entry], _ = Failures(store).list(process.taskid)
    assert (entry.signed, entry.is_retryable) == (b"told", True)
    assert Failures(store).requests(process.taskid, [1])[1].payload == b"bad"
    assert Failures(store).retry(process.taskid, [1]) is not None
    assert view(store, process.taskid).payloads() == Counter([b"bad"])


def test_death_of_a_whole_worker_accuses_no_request(store: Store) -> None:
    """Machines may die at any moment: what they had in hand goes to the queues; what ran alone, runs alone again."""
    first = running(store, submit(store))
    first.feed(request("a"), wanted=1)
    for _ in range(MOST_DEATHS):
        leave(store, first.taskid, first.name, how="crashed")
        assert view(store, first.taskid).suspects == []
        first = running(store, first.taskid)
        assert first.lease(1) == ["a"]
        first.commit(Result("feed"))
        store.client.hset(f"{{vs:{first.taskid}}}:task", "crashes", 0)
    leave(store, first.taskid, first.name, how="crashed", failure=b"told")
    second = running(store, first.taskid)
    assert second.commit(wanted=1).suspect
    leave(store, first.taskid, second.name, how="crashed")
    third = running(store, first.taskid)
    reply = third.commit(wanted=1)
    assert reply.suspect
    third.commit(Result("back", reply.suspect))
    assert [payload for _, _, payload in view(store, first.taskid).suspects] == [b"a"]


def test_another_process_takes_over_when_the_one_that_runs_them_has_left(store: Store) -> None:
    """Nobody waits for a runner that is gone."""
    first = running(store, submit(store))
    first.feed(request("a"), request("b"), wanted=2)
    leave(store, first.taskid, first.name, how="crashed", failure=b"told")
    runner = running(store, first.taskid)
    assert runner.commit(wanted=1).suspect
    leave(store, first.taskid, runner.name, how="left")
    assert running(store, first.taskid).commit(wanted=1).suspect
    assert Process(store, first.taskid).claim() == 0


# --- as a user sees it


@pytest.mark.parametrize(
    ("how", "options", "words"),
    [
        ("segfault", (), "was killed by SIGSEGV"),
        pytest.param("exits", (), "exited with code 3", marks=pytest.mark.long),
        pytest.param(
            *("loops", ("-s", "VSCRAPY_REQUEST_TIMEOUT=2"), "was killed: it was stuck in one place for 2 s"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_poison_is_given_up_and_all_other_pages_are_there_once(
    machine: Machine, site: Site, shop: Path, how: str, options: tuple[str, ...], words: str
) -> None:
    """It is told with its URL and how its process died, and where; the crawl comes to its end."""
    machine.start_worker(slots=2, stuck_s=1.0)
    done = crawl(machine, shop, site, "pages", "-a", f"how={how}", *options)
    assert done.exit_code == 0, done.output
    assert "'finish_reason': 'finished'" in done.stderr
    assert "'vscrapy/requests_given_up': 1" in done.stderr
    assert pages(shop) == Counter(set(range(N_PAGES)) - {17})
    [error] = errors(machine, shop)
    assert (error["url"], error["what"], error["tries"]) == (
        f"{site.base}/trouble/fine/17",
        "crawl process died",
        MOST_DEATHS,
    )
    assert words in error["error"]
    assert done.output.count(words) == MOST_DEATHS
    if how == "segfault":
        assert re.search(r"Fatal Python error: Segmentation fault[^§]*spiders\.py", done.output)
    if how == "loops":  # in C code, which lets no other thread run
        assert re.search(r"crawl process \d+ on worker \S+ is stuck: .*killed after 2 s; it is here:", done.output)
        assert re.search(r'spiders\.py", line \d+ in loops', done.output)


@pytest.mark.long
def test_poison_that_was_mended_is_done_after_retry(machine: Machine, site: Site, shop: Path) -> None:
    """What was given up is put back like any failure."""
    machine.start_worker(slots=2)
    assert crawl(machine, shop, site, "pages", "-a", "how=exits", "-a", "poison=3,44").exit_code == 0
    assert pages(shop) == Counter(set(range(N_PAGES)) - {3, 44})
    assert {error["url"].rpartition("/")[2] for error in errors(machine, shop)} == {"3", "44"}
    source = shop / "shop" / "spiders.py"
    source.write_text(source.read_text().replace("os._exit(3)", "pass"))
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-a", "how=exits", "-a", "poison=none"]
    assert machine.run([*command, "-O", "items.jsonl"], shop).exit_code == 0
    assert pages(shop) == Counter(range(N_PAGES))


@pytest.mark.long
@pytest.mark.parametrize("spider", ["leaking", "pages"])
def test_process_with_too_much_memory_leaves_or_is_killed_and_the_task_goes_on(
    machine: Machine, site: Site, shop: Path, spider: str
) -> None:
    """One that grows slowly gives back what it has; one page that takes it all at once is given up."""
    machine.start_worker(slots=1, options=["--memory", "192M"])
    # The agent looks once a second: what grows slowly must take longer than that.
    done = crawl(machine, shop, site, spider, "-a", "how=hoards", "-s", "DOWNLOAD_DELAY=0.04", timeout=90)
    assert done.exit_code == 0, done.output
    assert "of 192 MiB that it may (--memory)" in done.output
    if spider == "leaking":
        assert pages(shop) == Counter(range(200))
        assert errors(machine, shop) == []
    else:
        assert pages(shop) == Counter(set(range(N_PAGES)) - {17})
        assert "--memory" in errors(machine, shop)[0]["error"]


@pytest.mark.long
def test_memory_usage_of_scrapy_ends_the_process_and_not_the_task(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """MEMUSAGE_LIMIT_MB is about a process; another takes its place."""
    machine.start_worker(slots=1)
    options = ["-s", "MEMUSAGE_LIMIT_MB=200", "-s", "MEMUSAGE_CHECK_INTERVAL_SECONDS=0.2"]
    done = crawl(machine, shop, slow_site, "leaking", *options, timeout=90)
    assert done.exit_code == 0, done.output
    assert "leaves: memusage_exceeded" in done.output
    assert "'finish_reason': 'finished'" in done.stderr
    assert pages(shop) == Counter(range(200))
    wait_for(lambda: machine.tasks.record(machine.last_taskid()).state is TaskState.FINISHED)
