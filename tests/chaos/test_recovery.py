"""How long it takes until what an accident has cost is back: twenty times each, with the median; `make test-long`."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.stage import signal_all
from tests.integration.machine import Machine, Running, below, wait_for, write_project
from vscrapy import keys

pytest_plugins = ["tests.integration.machine"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

N: Final = 20
#: What a killed crawl process had in hand is back within this time (seconds); what a killed worker had, after its
#: last heartbeat; and all processes of a task whose sender was killed are gone.
CRAWL_PROCESS_S: Final = 1.0
WORKER_S: Final = 10.0
SENDER_S: Final = 5.0
#: What a single one may take longer on a busy machine (seconds).
BUSY_S: Final = 1.0

#: Goes on until a file is there, with more to do than several processes can take, each lane in a downloader slot of
#: its own: the limits of one would be too small for several processes.
_SPIDER: Final = """
    import asyncio
    from pathlib import Path

    from scrapy import Request, Spider


    class Slow:
        async def process_request(self, request, spider=None):
            await asyncio.sleep(0.1)


    class Lanes(Spider):
        name = "lanes"
        custom_settings = {"CONCURRENT_REQUESTS": 2, "DOWNLOADER_MIDDLEWARES": {Slow: 1}}

        def step(self, lane, number):
            return Request(
                f"data:,{lane}-{number}",
                cb_kwargs={"lane": lane, "number": number},
                meta={"download_slot": f"lane-{lane}"},
                dont_filter=True,
            )

        async def start(self):
            for lane in range(int(self.lanes)):
                yield self.step(lane, 0)

        def parse(self, response, lane, number):
            if not Path(self.until).exists():
                yield self.step(lane, number + 1)
"""


class Lanes:
    """A crawl that goes on until it is told."""

    def __init__(self, machine: Machine, directory: Path, name: str, n_lanes: int) -> None:
        self.machine = machine
        project = directory / "project"
        if not project.exists():
            write_project(project, _SPIDER)
        self.until = directory / f"{name}.until"
        command = ["vscrapy", "crawl", "lanes", "-a", f"lanes={n_lanes}", "-a", f"until={self.until}", "-L", "INFO"]
        self.sender: Running = machine.start(command, project)
        self.taskid = int(self.sender.wait_for_output(r"task (\d+): lanes").group(1))

    def places(self) -> dict[str, str]:
        """Crawl process -> worker."""
        found: dict[bytes, bytes] = self.machine.store.client.hgetall(keys.processes(self.taskid))
        return {process.decode(): json.loads(place)["worker"] for process, place in found.items()}

    def processes(self) -> list[int]:
        """Its crawl processes."""
        found = self.machine.processes().items()
        return sorted(pid for pid, title in found if f"vscrapy-crawl task {self.taskid} " in title)

    def wait_for_done(self, more: int) -> None:
        """Wait until so many more requests are done."""
        wanted = self.n_done() + more
        wait_for(lambda: self.n_done() >= wanted, 60, what=lambda: f"{wanted} done; {self.n_done()}")

    def n_done(self) -> int:
        """Requests that are done."""
        return self.machine.tasks.record(self.taskid).pages

    def end(self) -> None:
        """Let it end."""
        self.until.touch()
        assert self.sender.wait(120).exit_code == 0


def check(what: str, times_s: Sequence[float], bound_s: float) -> None:
    """See that the median is within the bound, and no single one far beyond it."""
    median_s = statistics.median(times_s)
    print(f"figure: {what}: median {median_s:.2f} s, longest {max(times_s):.2f} s, of {len(times_s)}")
    assert len(times_s) == N
    assert median_s < bound_s
    assert max(times_s) < bound_s + BUSY_S


def test_leases_of_a_killed_crawl_process_are_back_within_a_second(machine: Machine, tmp_path: Path) -> None:
    """From the kill until its place is free and its leases wait again."""
    machine.start_worker(slots=3)
    crawl = Lanes(machine, tmp_path, "crawl", 20)
    times_s = []
    for _ in range(N):
        wait_for(lambda: len(crawl.processes()) >= 2, 60)
        crawl.wait_for_done(20)
        before = set(crawl.places())
        os.kill(crawl.processes()[0], signal.SIGKILL)
        since_s = time.monotonic()
        wait_for(lambda before=before: before - set(crawl.places()))  # type: ignore[misc]
        times_s.append(time.monotonic() - since_s)
    crawl.end()
    check("what a killed crawl process had is back", times_s, CRAWL_PROCESS_S)


def test_leases_of_a_killed_worker_are_back_within_ten_seconds(machine: Machine, tmp_path: Path) -> None:
    """From its last heartbeat until others have what it had; five workers at a time."""
    machine.start_worker(slots=1, name="keeper")
    crawl = Lanes(machine, tmp_path, "crawl", 40)
    times_s: list[float] = []
    for round_ in range(N // 5):
        names = [f"w{round_}-{number}" for number in range(5)]
        workers = {name: machine.start_worker(slots=1, name=name) for name in names}
        wait_for(lambda names=names: set(names) <= set(crawl.places().values()), 60)  # type: ignore[misc]
        crawl.wait_for_done(20)
        for worker in workers.values():
            signal_all({worker.pid, *below(worker.pid)}, signal.SIGKILL)
        seen_ms = {worker.name: worker.seen_ms for worker in machine.workers.list()}
        waiting = set(names)

        def look(waiting: set[str] = waiting, seen_ms: dict[str, int] = seen_ms) -> bool:
            gone = waiting - set(crawl.places().values())
            now_ms = machine.tasks.now_ms()
            times_s.extend((now_ms - seen_ms[name]) / 1000 for name in gone)
            waiting -= gone
            return not waiting

        wait_for(look, 3 * WORKER_S)
    crawl.end()
    check("what a killed worker had is back, after its last heartbeat", times_s, WORKER_S)


def test_processes_of_a_task_whose_sender_was_killed_are_gone_within_five_seconds(
    machine: Machine, tmp_path: Path
) -> None:
    """From the kill until none is left; four tasks at a time."""
    machine.start_worker(slots=4)
    times_s: list[float] = []

    def measure(crawl: Lanes) -> None:
        since_s = time.monotonic()
        crawl.sender.kill()
        wait_for(lambda: not crawl.processes(), 3 * SENDER_S)
        times_s.append(time.monotonic() - since_s)

    for round_ in range(N // 4):
        crawls = [Lanes(machine, tmp_path, f"crawl-{round_}-{number}", 2) for number in range(4)]
        for crawl in crawls:
            wait_for(lambda crawl=crawl: crawl.n_done() > 3, 60)  # type: ignore[misc]
        threads = [threading.Thread(target=measure, args=(crawl,)) for crawl in crawls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check("all processes of a task whose sender was killed are gone", times_s, SENDER_S)
