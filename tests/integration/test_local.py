"""Requests that cannot be serialised: done on their own process, each once in the whole task; their pages, too."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from tests.integration.support import Process, request, running, submit
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import NewRequest, Result

pytest_plugins = ["tests.integration.machine"]

SEEN: Final = ("0007", "1234")
CLAIM: Final = NewRequest.claim("0007:1234", SEEN)

#: Spiders whose callbacks are closures; the site's pages /trouble/fine/N have any number.
CLOSURES: Final = textwrap.dedent("""
    from scrapy import Request, Spider


    class Closures(Spider):
        name = "closures"
        n_lists = 30

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.base = base

        def page(self, number, callback, **kwargs):
            return Request(f"{self.base}/trouble/fine/{number}", callback, **kwargs)

        async def start(self):
            for number in range(self.n_lists):
                yield self.page(number, self.parse_list, cb_kwargs={"number": number}, dont_filter=True)

        def parse_list(self, response, number):
            yield {"list": number}
            for detail in range(1000 + 2 * number, 1000 + 2 * number + 4):  # half of them on the next list, too
                def parse_detail(response, detail=detail):
                    yield {"detail": detail}
                    yield self.page(5000 + detail, self.parse_last)
                yield self.page(detail, parse_detail)
            yield {"list, again": number}

        def parse_last(self, response):
            yield {"last": int(response.url.rpartition("/")[2])}


    class StartClosures(Closures):
        name = "start-closures"

        async def start(self):
            for number in range(self.n_lists):
                yield self.page(number, lambda _, n=number: self.parse_list(_, n), dont_filter=True)


    class OneByOne(Closures):
        name = "one-by-one"

        async def start(self):
            for number in range(3):
                yield self.page(number, lambda _, n=number: self.parse_tree(_, n))

        def parse_tree(self, response, number):
            yield {"page": number}
            if number < 100:
                for child in range(number * 10 + 30, number * 10 + 33):
                    yield self.page(child, lambda _, n=child: self.parse_tree(_, n))
""")

N_LISTS: Final = 30
DETAILS: Final = range(1000, 1000 + 2 * N_LISTS + 2)
EXPECTED: Final = Counter(
    json.dumps(item)
    for item in (
        *({kind: number} for number in range(N_LISTS) for kind in ("list", "list, again")),
        *({"detail": detail} for detail in DETAILS),
        *({"last": 5000 + detail} for detail in DETAILS),
    )
)


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.fixture
def taskid(store: Store) -> int:
    """Give a task that is queued."""
    return submit(store)


def two(store: Store, taskid: int) -> tuple[Process, Process]:
    """Two processes of a task, with a lease each."""
    first = running(store, taskid)
    first.feed(*(request(f"{n}") for n in range(20)))
    return first, running(store, taskid)


def test_claim_is_refused_while_another_process_has_it(store: Store, taskid: int) -> None:
    """Of two processes with the same request, the first does it."""
    first, second = two(store, taskid)
    assert not first.commit(Result("feed", requests=[CLAIM])).duplicates
    assert second.commit(Result("feed", requests=[CLAIM])).duplicates == [0]


def test_claim_is_free_again_when_its_process_has_left(store: Store, taskid: int) -> None:
    """Its page will be done anew, and claims it again: a claim alone does not count as seen."""
    first, second = two(store, taskid)
    first.commit(Result("feed", requests=[CLAIM]))
    first.leave("crashed")
    assert not second.commit(Result("feed", requests=[CLAIM])).duplicates


def test_claim_is_refused_after_it_was_settled(store: Store, taskid: int) -> None:
    """What is done counts as seen, for requests that stay on a process and for those that travel."""
    first, second = two(store, taskid)
    first.commit(Result("feed", requests=[CLAIM]))
    first.commit(Result("feed", requests=[CLAIM.settled]))
    assert second.commit(Result("feed", requests=[CLAIM])).duplicates == [0]
    assert second.feed(request("the same", seen=SEEN)).duplicates == [0]


def test_claim_is_refused_when_the_request_has_travelled(store: Store, taskid: int) -> None:
    """A request in the frontier, or done, is seen."""
    first, second = two(store, taskid)
    first.feed(request("the same", seen=SEEN))
    assert second.commit(Result("feed", requests=[CLAIM])).duplicates == [0]


def test_claim_is_told_the_same_when_its_commit_is_repeated(store: Store, taskid: int) -> None:
    """A lost reply is no answer: the repeated call tells the duplicates of the first one."""
    first, second = two(store, taskid)
    first.commit(Result("feed", requests=[CLAIM]))
    for _ in range(2):
        results = [Result("feed", requests=[request("other"), CLAIM])]
        assert (second.commit(*results) if not second.n_commits else second.repeat(*results)).duplicates == [1]


def test_task_is_not_idle_while_a_claim_stands(store: Store, taskid: int) -> None:
    """Nothing waits and nothing is leased, but a process still has a request of its own."""
    process = running(store, taskid)
    claim = NewRequest.claim("process-1 1", None)
    assert not process.commit(Result("feed", requests=[claim]), Result("started")).is_idle
    assert process.commit(Result("feed", requests=[claim.settled])).is_idle


# --- crawls -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Machine]:
    """A machine with one worker of three slots."""
    machine.start_worker(3, "w1")
    yield machine
    machine.end_tasks()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the spiders of ``CLOSURES``."""
    return write_project(tmp_path / "closures-project", CLOSURES)


def start(cluster: Machine, site: Site, project: Path, spider: str) -> Running:
    """Run a spider; its items go to ``items.jsonl``, and several processes take part."""
    options = ["-a", f"base={site.base}", "-O", "items.jsonl", "-s", "CONCURRENT_REQUESTS=2"]
    return cluster.start(["vscrapy", "crawl", spider, *options], project)


def items(project: Path) -> Counter[str]:
    """The items of the feed, and how often each is there."""
    return Counter((project / "items.jsonl").read_text().splitlines())


def crawl_processes(cluster: Machine) -> list[int]:
    """The pids of the crawl processes, the oldest first."""
    return sorted(pid for pid, title in cluster.processes().items() if title.startswith("vscrapy-crawl"))


def n_processes(cluster: Machine) -> int:
    """How many crawl processes the newest task has now."""
    records = cluster.tasks.records(cluster.tasks.live_ids())
    return max((record.processes for record in records.values()), default=0)


@pytest.mark.parametrize("spider", ["closures", "start-closures"])
def test_closures_are_done_once_in_the_whole_task(
    cluster: Machine, slow_site: Site, project: Path, spider: str
) -> None:
    """Each page is loaded once, whichever process saw it first, and each item comes once."""
    slow_site.reset()
    finished = start(cluster, slow_site, project, spider).wait()
    assert finished.exit_code == 0, finished.output
    assert items(project) == EXPECTED
    loaded = Counter(str(entry["path"]) for entry in slow_site.log())
    assert set(loaded.values()) == {1}, loaded.most_common(3)
    assert finished.stderr.count("cannot travel") <= 3, "once for each process"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_items_of_pages_with_closures_are_exact_when_their_process_goes(
    cluster: Machine, slow_site: Site, project: Path, number: signal.Signals
) -> None:
    """Killed or sent away: its open pages are done anew elsewhere, and no item is missing or there twice."""
    running_ = start(cluster, slow_site, project, "closures")
    for n_pages in (15, 40, 65):
        wait_for(partial(has_come_to, cluster, n_pages), what=f"{n_pages} pages on several processes")
        os.kill(crawl_processes(cluster)[0], number)
    finished = running_.wait()
    assert finished.exit_code == 0, finished.output
    assert items(project) == EXPECTED


def has_come_to(cluster: Machine, n_pages: int) -> bool:
    """Has the newest task loaded so many pages, and several processes?"""
    return n_processes(cluster) > 1 and pages(cluster) >= n_pages


def pages(cluster: Machine) -> int:
    """How many pages the newest task has loaded."""
    return cluster.tasks.record(cluster.last_taskid()).pages


def test_items_of_open_pages_come_when_the_task_is_stopped(cluster: Machine, slow_site: Site, project: Path) -> None:
    """After Ctrl-C nobody does a page anew: what it has yielded by then is kept, as Scrapy keeps it."""
    running_ = start(cluster, slow_site, project, "closures")
    wait_for(lambda: n_processes(cluster) and pages(cluster) >= 15, what="15 pages")
    os.kill(running_.process.pid, signal.SIGINT)
    finished = running_.wait()
    record = cluster.tasks.record(cluster.last_taskid())
    assert record.state is TaskState.FINISHED
    found = items(project)
    assert found
    assert set(found.values()) == {1}
    assert f"'item_scraped_count': {found.total()}" in finished.stderr


def test_order_is_scrapys_with_one_request_at_a_time(cluster: Machine, slow_site: Site, project: Path) -> None:
    """
    One process that does one request at a time does closures, too, in Scrapy's very order.

    On a slow site, where the callback of a page is through before the next page is there: in Scrapy, too.
    """
    order = {}
    for program, alone in (("scrapy", []), ("vscrapy", ["--workers", "1"])):
        slow_site.reset()
        options = ["-a", f"base={slow_site.base}", "-s", "CONCURRENT_REQUESTS=1", *alone]
        assert cluster.run([program, "crawl", "one-by-one", *options], project).exit_code == 0
        order[program] = [int(str(entry["path"]).rpartition("/")[2]) for entry in slow_site.log()]
    assert order["vscrapy"] == order["scrapy"]
