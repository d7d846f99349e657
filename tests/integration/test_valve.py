"""The valve with real crawls: what reaches Redis of a task's log, by whoever listens and as it is turned."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from vscrapy import keys
from vscrapy.store.looks import Looks
from vscrapy.store.streams import Cursors, Streams
from vscrapy.valve import UNATTENDED, weight
from vscrapy.wire import LogLine

pytest_plugins = ["tests.integration.machine"]

#: Time from ``vscrapy -c`` to the first line that only it lets through (seconds), as promised; and on a busy machine.
FLOW_S: Final = 1.0
BUSY_S: Final = 3.0

#: A spider that says something of each weight at each page.
LOUD: Final = """
    import os
    import sys

    from scrapy import Spider

    class Loud(Spider):
        name = "loud"

        def __init__(self, base, last="100000", **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(1, int(last) + 1)]

        def parse(self, response):
            number = response.url.rpartition("/")[2]
            print("out", number)
            print("err", number, file=sys.stderr)
            os.write(1, f"raw out {number}\\n".encode())
            self.logger.info("info %s", number)
            self.logger.warning("warning %s", number)
            self.logger.error("error %s", number)
            yield {"page": int(number)}
            if int(number) == 3:
                raise ZeroDivisionError("on page 3")
"""


@pytest.fixture(scope="module")
def _cluster(shared_machine: Machine) -> Machine:
    shared_machine.start_worker(3, "w1")
    return shared_machine


@pytest.fixture
def cluster(_cluster: Machine) -> Iterator[Machine]:
    """The module's machine with one worker with three slots; the tasks of a test end with it."""
    yield _cluster
    _cluster.end_tasks()


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """A project with the spider ``loud``."""
    return write_project(tmp_path / "loud-project", LOUD)


class Task:
    """A task of the loud spider, and its log on Redis."""

    def __init__(self, machine: Machine, project: Path, site: Site, *options: str) -> None:
        self.machine = machine
        base = ["-a", f"base={site.base}", "-s", "CONCURRENT_REQUESTS=2", "--workers", "1"]
        command = ["vscrapy", "crawl", "loud", *base, *options]
        self.sender: Running = machine.start(command, project)
        if "--detach" in options:
            assert self.sender.wait().exit_code == 0
            self.taskid = machine.last_taskid()
        else:
            self.taskid = int(self.sender.wait_for_output(r"vscrapy: task (\d+): ").group(1))
        self._cursors = Cursors()

    @property
    def pages(self) -> int:
        """The pages that were crawled."""
        return self.machine.tasks.record(self.taskid).pages

    def wait_for_pages(self, more: int) -> None:
        """Wait until so many more pages have been crawled."""
        wanted = self.pages + more
        wait_for(lambda: self.pages >= wanted, what=f"{wanted} pages")

    def news(self) -> list[LogLine]:
        """What has come to the log since the last call."""
        found: list[LogLine] = []
        while True:
            entries, _ = Streams(self.machine.store).read(self.taskid, self._cursors, with_items=False, block_ms=1)
            if not entries:
                return found
            self._cursors = Cursors(log=entries[-1].cursor)
            found += [line for entry in entries for line in entry.lines]

    def settle(self) -> None:
        """Wait until the valve, as it was turned, has been heard of everywhere, and begin to read after that."""
        self.wait_for_pages(60)
        self.news()

    def turn(self, level: str) -> None:
        """``vscrapy valve``."""
        finished = self.machine.run(["vscrapy", "valve", str(self.taskid), "--level", level])
        assert finished.exit_code == 0, finished.output


def kinds(lines: list[LogLine]) -> set[str]:
    """The first word of each line of the spider's own: what it said, and how."""
    found = [re.match(r"(raw out|out|err|info|warning|error) \d+$", line.text.rstrip("\n")) for line in lines]
    return {match.group(1) for match in found if match}


def test_log_of_a_detached_task_that_nobody_follows_is_what_is_wrong(
    cluster: Machine, slow_site: Site, loud: Path
) -> None:
    """From the first line to the last: warnings and worse, stderr, tracebacks; all is counted; no gap shows."""
    task = Task(cluster, loud, slow_site, "--detach", "-a", "last=30")
    wait_for(lambda: cluster.tasks.record(task.taskid).ended_ms, what="its end")
    lines = task.news()
    assert kinds(lines) == {"err", "warning", "error"}
    assert {weight(line) >= UNATTENDED for line in lines} == {True}
    assert any("ZeroDivisionError: on page 3" in line.text for line in lines)
    assert cluster.tasks.stats(task.taskid)[0]["log_count/INFO"] > 30
    followed = cluster.run(["vscrapy", "-c", str(task.taskid)])
    assert "are cut" not in followed.output
    assert followed.stderr.endswith(f"vscrapy: task {task.taskid} ended: finished (exit code 0)\n")


def test_lines_flow_soon_after_somebody_follows_and_no_more_after_that(
    cluster: Machine, slow_site: Site, loud: Path
) -> None:
    """Also when the follower is killed, which shows as its closed connection."""
    task = Task(cluster, loud, slow_site, "--detach")
    task.wait_for_pages(9)
    following = cluster.start(["vscrapy", "-c", str(task.taskid)])
    wait_for(lambda: Looks(cluster.store).audience([], [task.taskid]).followers[task.taskid] == 1, what="a follower")
    since_s = time.monotonic()
    following.wait_for_output(r"^raw out \d+$")
    took_s = time.monotonic() - since_s
    print(f"figure: all lines flow {took_s:.2f} s after somebody follows (goal: {FLOW_S:g} s)")
    assert took_s < BUSY_S
    task.settle()
    task.wait_for_pages(9)
    assert kinds(task.news()) == {"raw out", "out", "err", "info", "warning", "error"}
    following.kill()

    def is_silent() -> bool:
        task.news()
        task.wait_for_pages(9)
        return kinds(task.news()) == {"err", "warning", "error"}

    wait_for(is_silent, what="only warnings and worse")


@pytest.mark.long
def test_two_tasks_are_followed_by_one_command(cluster: Machine, slow_site: Site, loud: Path) -> None:
    """Each of them is told apart; the one that nobody follows stays quiet."""
    tasks = [Task(cluster, loud, slow_site, "--detach") for _ in range(3)]
    following = cluster.start(["vscrapy", "-c", f"{tasks[0].taskid},{tasks[1].taskid}"])
    for task in tasks[:2]:
        following.wait_for_output(rf"^{task.taskid} \| out \d+$")
    tasks[2].wait_for_pages(9)
    assert kinds(tasks[2].news()) == {"err", "warning", "error"}


@pytest.mark.long
def test_level_that_was_asked_for_holds_for_an_attached_task(cluster: Machine, slow_site: Site, loud: Path) -> None:
    """The sender's terminal shows what is let through; ``auto`` goes back; lists show it."""
    task = Task(cluster, loud, slow_site)
    task.sender.wait_for_output(r"^raw out \d+$")
    task.turn("error")
    task.sender.wait_for_output(rf"^vscrapy: the valve of task {task.taskid} is at ERROR: lines below it are not rel")
    task.settle()
    task.wait_for_pages(9)
    assert kinds(task.news()) == {"error"}
    listed = cluster.run(["vscrapy", "-l"]).stdout
    assert re.search(rf"^ *{task.taskid} +loud +running \(valve ERROR\) ", listed, re.MULTILINE)
    found = json.loads(cluster.run(["vscrapy", "-l", "--json"]).stdout)
    assert {data["taskid"]: data["valve"] for data in found["tasks"]}[task.taskid] == "ERROR"
    task.turn("auto")
    task.settle()
    task.wait_for_pages(9)
    assert kinds(task.news()) == {"raw out", "out", "err", "info", "warning", "error"}
    assert "(valve" not in cluster.run(["vscrapy", "-l"]).stdout


def test_level_that_was_asked_for_holds_for_a_detached_task_with_and_without_a_follower(
    cluster: Machine, slow_site: Site, loud: Path
) -> None:
    """DEBUG keeps all though nobody is there; WARNING shows no more though somebody is."""
    task = Task(cluster, loud, slow_site, "--detach")
    task.turn("DEBUG")
    task.settle()
    task.wait_for_pages(9)
    lines = task.news()
    assert kinds(lines) == {"raw out", "out", "err", "info", "warning", "error"}
    assert any(line.level == logging.DEBUG for line in lines)
    task.turn("WARNING")
    following = cluster.start(["vscrapy", "-c", str(task.taskid), "--lines", "0"])
    following.wait_for_output(r"warning \d+$")
    task.settle()
    task.wait_for_pages(9)
    assert kinds(task.news()) == {"err", "warning", "error"}


@pytest.mark.long
def test_valve_that_is_off_leaves_the_end_record(cluster: Machine, slow_site: Site, loud: Path) -> None:
    """Not even a crash is told; the sender still ends with the task, and a follower would."""
    task = Task(cluster, loud, slow_site, "-O", str(loud / "items.jsonl"))
    task.sender.wait_for_output(r"^raw out \d+$")
    task.turn("off")
    task.settle()
    first = int(cluster.store.client.hget(keys.task(task.taskid), "log_lines"))
    [pid] = [
        pid for pid, title in cluster.processes().items() if title.startswith(f"vscrapy-crawl task {task.taskid} ")
    ]
    os.kill(pid, signal.SIGKILL)
    task.wait_for_pages(60)
    stopped = cluster.run(["vscrapy", "stop", str(task.taskid)])
    assert stopped.exit_code == 0
    finished = task.sender.wait()
    assert finished.exit_code == 0
    assert "are cut" not in finished.output
    assert "'finish_reason': 'shutdown'" in finished.stderr
    assert int(cluster.store.client.hget(keys.task(task.taskid), "log_lines")) == first
    assert len((loud / "items.jsonl").read_text().splitlines()) == cluster.tasks.record(task.taskid).items


def test_crash_of_a_task_that_nobody_follows_is_kept(cluster: Machine, slow_site: Site, loud: Path) -> None:
    """What vscrapy says of a crawl process is there to be read later."""
    task = Task(cluster, loud, slow_site, "--detach")
    task.turn("critical")
    task.wait_for_pages(30)
    [pid] = [
        pid for pid, title in cluster.processes().items() if title.startswith(f"vscrapy-crawl task {task.taskid} ")
    ]
    os.kill(pid, signal.SIGKILL)
    task.wait_for_pages(30)
    assert [line.text for line in task.news() if "was killed by SIGKILL" in line.text]


def test_level_that_is_none_is_told_with_those_there_are(cluster: Machine) -> None:
    """A mistake on the command line."""
    finished = cluster.run(["vscrapy", "valve", "1", "--level", "loud"])
    assert finished.exit_code == 2
    assert "'loud' is not one of auto, DEBUG, INFO, WARNING, ERROR, CRITICAL, off" in finished.stderr
