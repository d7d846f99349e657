"""JOBDIR: what ends early is kept on Redis, and the same command goes on with it."""

from __future__ import annotations

import json
import signal
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from tests.integration.support import request, running, submit
from vscrapy import keys
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks

pytest_plugins = ["tests.integration.machine"]

N_PAGES: Final = 240

SPIDERS: Final = textwrap.dedent(f"""
    from scrapy import Request, Spider


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.base = base

        async def start(self):
            for number in range({N_PAGES // 6}):
                yield Request(f"{{self.base}}/trouble/fine/{{number}}", cb_kwargs={{"number": number}})

        def parse(self, response, number):
            self.state["pages"] = self.state.get("pages", 0) + 1
            yield {{"number": number}}
            if number < {N_PAGES // 6}:
                for child in range(5):
                    child = {N_PAGES // 6} + number * 5 + child
                    yield Request(f"{{self.base}}/trouble/fine/{{child}}", cb_kwargs={{"number": child}})

        def closed(self, reason):
            if getattr(self, "state", None):
                self.logger.info("counted so far: %d", self.state["pages"])


    class Other(Pages):
        name = "other"
""")


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Machine]:
    """A machine with one worker of two slots."""
    machine.start_worker(2, "w1")
    yield machine
    machine.end_tasks()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the spiders of ``SPIDERS``."""
    return write_project(tmp_path / "pages-project", SPIDERS)


def command(site: Site, *options: str, spider: str = "pages") -> list[str]:
    """The command that is given again and again."""
    options = ("-a", f"base={site.base}", "-s", "CONCURRENT_REQUESTS=2", "-s", "JOBDIR=crawls/one", *options)
    return ["vscrapy", "crawl", spider, "-o", "items.jsonl", *options]


def wait_for_pages(cluster: Machine, taskid: int, number: int) -> None:
    """Wait until this run of a task has loaded so many pages."""
    wait_for(lambda: cluster.tasks.record(taskid).pages >= number, what=f"{number} pages")


def taskid_of(sender: Running) -> int:
    """The task that a sender has submitted, or goes on with."""
    return int(sender.wait_for_output(r"vscrapy: task (\d+): pages").group(1))


def numbers(project: Path) -> Counter[int]:
    """The items of the feed, and how often each is there."""
    return Counter(json.loads(line)["number"] for line in (project / "items.jsonl").read_text().splitlines())


def state_of(cluster: Machine, taskid: int) -> TaskState:
    """A task's state."""
    return cluster.tasks.record(taskid).state


def test_same_command_goes_on_after_ctrl_c(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Twice interrupted, and each page is loaded once, each item there once; then a new crawl begins."""
    slow_site.reset()
    taskids = []
    for _ in range(2):
        sender = cluster.start(command(slow_site), project)
        taskids.append(taskid_of(sender))
        wait_for_pages(cluster, taskids[-1], 40)
        sender.signal(signal.SIGINT)
        finished = sender.wait()
        assert finished.exit_code == 0, finished.output
        assert "'finish_reason': 'shutdown'" in finished.stderr
        assert f"task {taskids[-1]} is kept: the same command goes on with it" in finished.output
        wait_for(lambda: state_of(cluster, taskids[-1]) is TaskState.SUSPENDED)
    finished = cluster.run(command(slow_site), project)
    assert finished.exit_code == 0, finished.output
    assert f"task {taskids[0]}: pages goes on where it was left" in finished.output
    assert taskids == [taskids[0]] * 2
    assert numbers(project) == Counter(range(N_PAGES))
    assert set(Counter(entry["path"] for entry in slow_site.log()).values()) == {1}
    assert "'finish_reason': 'finished'" in finished.stderr
    assert state_of(cluster, taskids[0]) is TaskState.FINISHED
    finished = cluster.run(command(slow_site), project)
    assert f"task {taskids[0] + 1}: pages, " in finished.output
    assert set(numbers(project).values()) == {2}


def test_spider_has_its_state_again(cluster: Machine, slow_site: Site, project: Path) -> None:
    """``self.state`` goes from one run to the next, as Scrapy's extension does it."""
    sender = cluster.start(command(slow_site, "--workers", "1"), project)
    wait_for_pages(cluster, taskid_of(sender), 40)
    sender.signal(signal.SIGINT)
    sender.wait()
    finished = cluster.run(command(slow_site, "--workers", "1"), project)
    assert f"counted so far: {N_PAGES}" in finished.stderr


def test_same_command_goes_on_after_its_sender_was_killed(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Not even ``kill -9`` of the sender loses a page."""
    # Slow enough that the crawl does not come to its end before the sender is missed.
    sender = cluster.start(command(slow_site, "-s", "DOWNLOAD_DELAY=0.1"), project)
    taskid = taskid_of(sender)
    wait_for_pages(cluster, taskid, 40)
    sender.kill()
    wait_for(lambda: state_of(cluster, taskid) is TaskState.SUSPENDED, what=lambda: str(cluster.tasks.record(taskid)))
    finished = cluster.run(command(slow_site), project)
    assert finished.exit_code == 0, finished.output
    assert f"task {taskid}: pages goes on where it was left" in finished.output
    assert set(numbers(project)) == set(range(N_PAGES))


def test_detached_task_is_kept_when_it_is_stopped(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Its items stay with it, over all its runs; a second stop ends it for good."""
    assert cluster.run(command(slow_site, "--detach"), project).exit_code == 0
    taskid = cluster.last_taskid()
    wait_for_pages(cluster, taskid, 40)
    cluster.run(["vscrapy", "stop", str(taskid)], project)
    wait_for(lambda: state_of(cluster, taskid) is TaskState.SUSPENDED)
    shown = cluster.run(["vscrapy", "-l", "--json"], project)
    assert [task["state"] for task in json.loads(shown.stdout)["tasks"]] == ["suspended"]
    assert "goes on where it was left, detached" in cluster.run(command(slow_site, "--detach"), project).stdout
    wait_for(lambda: state_of(cluster, taskid) is TaskState.FINISHED)
    (project / "items.jsonl").unlink(missing_ok=True)
    cluster.run(["vscrapy", "items", str(taskid), "-o", "items.jsonl"], project)
    assert numbers(project) == Counter(range(N_PAGES))


@pytest.mark.long
def test_stop_ends_a_suspended_task_for_good(cluster: Machine, slow_site: Site, project: Path) -> None:
    """Then nothing of it is kept, and the same command begins anew."""
    sender = cluster.start(command(slow_site), project)
    taskid = taskid_of(sender)
    wait_for_pages(cluster, taskid, 10)
    sender.signal(signal.SIGINT)
    sender.wait()
    told = cluster.run(["vscrapy", "resume", str(taskid)], project).stdout
    assert told == f"task {taskid} is suspended: the same command, with its JOBDIR, goes on with it\n"
    assert cluster.run(["vscrapy", "stop", str(taskid)], project).stdout == f"task {taskid}: finished\n"
    wait_for(lambda: not cluster.lasting_keys(), what=lambda: str(cluster.lasting_keys()))
    assert taskid_of(cluster.start(command(slow_site), project)) == taskid + 1


def test_job_dir_of_a_running_task_is_refused(cluster: Machine, slow_site: Site, project: Path) -> None:
    """One line says which task has it, and what to do."""
    sender = cluster.start(command(slow_site, "-s", "DOWNLOAD_DELAY=1"), project)
    taskid = taskid_of(sender)
    finished = cluster.run(command(slow_site), project)
    assert finished.exit_code == 2
    assert f"crawls/one is that of task {taskid}, which is " in finished.stderr
    finished = cluster.run(command(slow_site, spider="other"), project)
    assert finished.exit_code == 2
    assert "crawls/one is that of spider 'pages'" in finished.stderr


# --- the store ----------------------------------------------------------------------------------------------------


def suspended(store: Store) -> int:
    """A task with 20 requests of which one was leased, that is suspended."""
    taskid = submit(store, job_dir="token")
    process = running(store, taskid)
    process.feed(*(request(f"{n}", seen=("0001", str(n))) for n in range(20)), wanted=1)
    Tasks(store).stop(taskid, reason=Reason.SHUTDOWN, mode=StopMode.GRACEFUL)
    assert process.leave() is TaskState.SUSPENDED
    return taskid


def reopen(store: Store, taskid: int, token: str = "token") -> TaskState | None:
    """What it was."""
    return Tasks(store).reopen(taskid, b"job 2", token=token, options=TaskOptions(log_keep=10)).state


def test_suspended_task_keeps_its_frontier(store: Store) -> None:
    """Requests that were leased wait again, and what was seen is known."""
    taskid = suspended(store)
    assert reopen(store, taskid) is TaskState.SUSPENDED
    assert Tasks(store).record(taskid).state is TaskState.QUEUED
    assert Tasks(store).job(taskid) == b"job 2"
    process = running(store, taskid)
    assert process.feed(request("again", seen=("0001", "3"))).duplicates == [0]
    assert sorted(map(int, process.lease(50))) == list(range(20))


@pytest.mark.parametrize("token", ["another", ""])
def test_reopen_does_nothing_for_another_job_dir(store: Store, token: str) -> None:
    """A number alone is not enough: it may be the number of another Redis's task."""
    taskid = suspended(store)
    assert reopen(store, taskid, token) is None
    assert Tasks(store).record(taskid).state is TaskState.SUSPENDED


def test_reopen_does_nothing_to_a_task_that_runs(store: Store) -> None:
    """Somebody has given the same command already."""
    taskid = suspended(store)
    reopen(store, taskid)
    assert reopen(store, taskid) is TaskState.QUEUED


def test_suspended_task_has_an_end_record(store: Store) -> None:
    """Whoever follows it sees how this run ended."""
    taskid = suspended(store)
    assert Streams(store).last_lines(taskid, 1)[-1].end == EndRecord("shutdown", 0)


def test_forgotten_task_ends_after_its_time(store: Store) -> None:
    """Nobody has gone on with it for thirty days: its keys get a lifetime."""
    taskid = suspended(store)
    tasks = Tasks(store)
    tasks.put_aside(tasks.record(taskid))
    tasks.end_forgotten()
    assert tasks.record(taskid).state is TaskState.SUSPENDED
    store.client.zadd(keys.SUSPENDED, {str(taskid): tasks.now_ms() - keys.SUSPENDED_TTL_S * 1000 - 1})
    tasks.end_forgotten()
    assert tasks.record(taskid).state is TaskState.FINISHED
    assert store.client.ttl(keys.task(taskid)) > 0
