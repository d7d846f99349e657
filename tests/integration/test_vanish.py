"""
What becomes of an attached task when its sender goes, falls silent, or loses Redis for a while.

Beside each of them another task runs on the same worker, and goes on to its own end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import BIN, Finished, Machine, Running, is_alive, wait_for
from tests.integration.proxy import Proxy
from vscrapy import embedded, keys
from vscrapy.states import TaskState
from vscrapy.store.looks import Looks

pytest_plugins = ["tests.integration.machine"]

#: Time in which a task whose sender is gone has ended (seconds).
GONE_S: Final = 5.0
#: Silence that is allowed to the senders of this module's silent ones (seconds).
SENDER_TIMEOUT_S: Final = 6
#: What the sender, not a crawl process, says while Redis refuses writes.
REFUSED: Final = r"cannot write to its disk and refuses writes: [^\n]*; task \d+ waits for it"
#: What is kept of a task that has ended: everything but its frontier.
KEPT: Final = {"task", "job", "stats", "stat_values", "final_stats", "counts", "failures", "log", "items"}

#: A project in one module. Its spider goes on in lanes, one request after the other, until a file is there: an
#: item that is lost breaks a lane, and one that comes twice shows.
LAB: Final = """
import asyncio
from pathlib import Path

import scrapy

SPIDER_MODULES = ["lab"]
TELNETCONSOLE_ENABLED = False


class Lanes(scrapy.Spider):
    name = "lanes"
    lanes = 4
    pace = 0.05
    talk = 0

    async def start(self):
        for lane in range(int(self.lanes)):
            yield self.step(lane, 1)

    def step(self, lane, number):
        url = f"data:,{lane}-{number}"
        return scrapy.Request(url, cb_kwargs={"lane": lane, "number": number}, dont_filter=True)

    async def parse(self, response, lane, number):
        print(f"begin {lane}-{number}")
        await asyncio.sleep(float(self.pace))
        print(f"end {lane}-{number}" + "." * int(self.talk))
        yield {"lane": lane, "number": number}
        if not Path(self.until).exists():
            yield self.step(lane, number + 1)
"""


@dataclass
class Crawl:
    """A crawl of the lanes, and its sender."""

    machine: Machine
    sender: Running
    directory: Path
    name: str
    _taskid: int = field(default=0)

    @property
    def taskid(self) -> int:
        """The task's id, as the sender has told it."""
        if not self._taskid:
            self._taskid = int(self.sender.wait_for_output(r"vscrapy: task (\d+): lanes").group(1))
        return self._taskid

    @property
    def state(self) -> TaskState:
        """The task's state."""
        return self.machine.tasks.record(self.taskid).state

    def begin(self) -> Crawl:
        """Wait until it crawls."""
        self.sender.wait_for_output(r"end \d-3")
        assert self.taskid
        return self

    def release(self) -> None:
        """Let the lanes end."""
        (self.directory / f"{self.name}.until").touch()

    def go_on(self, steps: int = 5) -> None:
        """Wait until it has gone on."""
        ended = self.sender.stdout.count("\nend ") + steps
        wait_for(lambda: self.sender.stdout.count("\nend ") >= ended, what=lambda: f"a step of {self.sender.output}")

    def numbers(self) -> dict[int, list[int]]:
        """The items in the feed, which must be closed: lane -> numbers, as they came."""
        lanes = defaultdict(list)
        for line in (self.directory / f"{self.name}.jsonl").read_text().splitlines():
            item = json.loads(line)
            lanes[item["lane"]].append(item["number"])
        return lanes

    def check_items(self) -> None:
        """See that in each lane nothing is lost, and nothing came twice."""
        numbers = self.numbers()
        assert len(numbers) == 4
        for found in numbers.values():
            assert found == list(range(1, len(found) + 1))

    def check_finished(self, finished: Finished) -> None:
        """See that it has come to its own end, with all items."""
        assert finished.exit_code == 0, finished.output
        assert "'finish_reason': 'finished'" in finished.output
        self.check_items()

    def wait_for_end(self, timeout: float, reason: str) -> float:
        """Wait until the task has ended for *reason*, with nothing left of it; the seconds that it took."""
        since_s = time.monotonic()
        wait_for(lambda: self.state is TaskState.FINISHED, timeout, what=lambda: f"the end; it is {self.state}")
        took_s = time.monotonic() - since_s
        assert self.machine.tasks.record(self.taskid).reason == reason
        assert self.processes() == {}
        prefix = keys.prefix(self.taskid)
        left = {key.decode().removeprefix(prefix) for key in self.machine.store.client.scan_iter(f"{prefix}*")}
        assert left <= KEPT
        return took_s

    def processes(self) -> dict[int, str]:
        """Its crawl processes."""
        found = self.machine.processes().items()
        return {pid: title for pid, title in found if f"vscrapy-crawl task {self.taskid} " in title}


class Lab:
    """The project, and crawls of it."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory
        self.project = directory / "project"
        self.project.mkdir()
        self.project.joinpath("lab.py").write_text(LAB)
        self.project.joinpath("scrapy.cfg").write_text("[settings]\ndefault = lab\n")

    def command(self, name: str, *options: str) -> list[str]:
        """The command that crawls."""
        until, feed = self.directory / f"{name}.until", self.directory / f"{name}.jsonl"
        return [str(BIN / "vscrapy"), "crawl", "lanes", "-a", f"until={until}", "-O", str(feed), *options]

    def crawl(self, name: str, *options: str, pty: bool = False) -> Crawl:
        """Start a crawl."""
        sender = self.machine.start(self.command(name, *options), self.project, pty=pty)
        return Crawl(self.machine, sender, self.directory, name)

    @contextmanager
    def bystander(self) -> Iterator[None]:
        """Another task, that must go on: whatever happens meanwhile, it comes to its own end with all items."""
        other = self.crawl("bystander").begin()
        yield
        assert other.sender.is_running, other.sender.output
        other.go_on()
        assert other.state is TaskState.RUNNING
        other.release()
        other.check_finished(other.sender.wait())


@pytest.fixture
def lab(machine: Machine, tmp_path: Path) -> Lab:
    """The project on a machine with one worker, which has room for three crawl processes."""
    machine.start_worker(slots=3)
    return Lab(machine, tmp_path)


# --- the user ends it


@pytest.mark.parametrize(
    "how", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.long), pytest.param("typed", marks=pytest.mark.long)]
)
def test_sender_closes_the_crawl_gracefully_when_interrupted(lab: Lab, how: str) -> None:
    """After Ctrl-C or SIGTERM all that has begun ends, the final stats come once, and the exit code is 0."""
    with lab.bystander():
        crawl = lab.crawl("main", pty=how == "typed").begin()
        if how == "typed":
            crawl.sender.type("\x03")
        else:
            crawl.sender.signal(signal.Signals[how])
        finished = crawl.sender.wait()
        assert finished.exit_code == 0, finished.output
        assert finished.output.count("Dumping Scrapy stats") == 1
        assert finished.output.count("'finish_reason': 'shutdown'") == 1
        if how != "typed":  # A terminal throws away at Ctrl-C what it has not shown yet.
            begun = set(re.findall(r"^begin (\S+)$", finished.stdout, re.MULTILINE))
            ended = set(re.findall(r"^end (\S+)$", finished.stdout, re.MULTILINE))
            assert begun == ended
            assert ended == {f"{lane}-{number}" for lane, numbers in crawl.numbers().items() for number in numbers}
        crawl.check_items()
        crawl.wait_for_end(0, "shutdown")


def test_sender_forces_the_end_when_interrupted_twice(lab: Lab) -> None:
    """The second Ctrl-C ends a crawl that does not close within seconds."""
    with lab.bystander():
        crawl = lab.crawl("main", "-a", "pace=600")
        crawl.sender.wait_for_output("begin 0-1")
        crawl.sender.signal(signal.SIGINT)
        crawl.sender.wait_for_output(r"Closing spider \(shutdown\)")
        assert crawl.state is TaskState.STOPPING
        crawl.sender.signal(signal.SIGINT)
        finished = crawl.sender.wait(GONE_S)
        assert "Spider closed (shutdown)" in finished.stderr
        assert "Traceback" not in finished.output
        crawl.wait_for_end(1, "shutdown")


def test_sender_closes_the_crawl_when_interrupted_without_redis(lab: Lab) -> None:
    """A Ctrl-C while Redis is away is not forgotten: it is carried out when Redis is back."""
    with lab.bystander(), Proxy(lab.machine.endpoint) as proxy:
        crawl = lab.crawl("main", "--redis", proxy.url).begin()
        proxy.refuse()
        crawl.sender.wait_for_output("waiting for it")
        crawl.sender.signal(signal.SIGINT)
        crawl.sender.wait_for_output("received SIGINT")
        proxy.accept()
        finished = crawl.sender.wait()
        assert finished.exit_code == 0, finished.output
        assert "'finish_reason': 'shutdown'" in finished.stderr
        crawl.check_items()


@pytest.mark.long
def test_sender_closes_the_crawl_when_interrupted_and_nobody_reads(lab: Lab, tmp_path: Path) -> None:
    """A SIGTERM ends the crawl also when the sender cannot print, because nobody reads its output."""
    gate, pid = tmp_path / "gate", tmp_path / "pid"
    os.mkfifo(gate)
    with lab.bystander():
        command = 'gate=$1; shift; "$@" | { read word <"$gate"; exec cat >"$gate.out"; }'
        options = ["--pidfile", str(pid), "-a", "talk=10000"]
        sender = lab.machine.start(
            ["sh", "-c", command, "sh", str(gate), *lab.command("main", *options)], lab.project
        )
        crawl = Crawl(lab.machine, sender, lab.directory, "main")
        wait_for(lambda: lab.machine.tasks.record(crawl.taskid).items > 40)
        os.kill(int(pid.read_text()), signal.SIGTERM)
        crawl.wait_for_end(GONE_S, "shutdown")
        gate.write_text("go\n")
        assert "'finish_reason': 'shutdown'" in sender.wait().stderr
        crawl.check_items()


# --- the sender is gone


@pytest.mark.parametrize("how", ["SIGHUP", "SIGKILL", pytest.param("window", marks=pytest.mark.long)])
def test_task_ends_when_its_sender_is_gone(lab: Lab, how: str) -> None:
    """A closed terminal, or a sender that was killed, ends its task within seconds, and that task alone."""
    with lab.bystander():
        crawl = lab.crawl("main", pty=how == "window").begin()
        if how == "window":
            crawl.sender.hang_up()
        else:
            crawl.sender.signal(signal.Signals[how])
        took_s = crawl.wait_for_end(GONE_S, "sender_lost")
        print(f"figure: {how} of the sender: the task has ended after {took_s:.2f} s")
        finished = crawl.sender.wait(GONE_S)
        assert "Traceback" not in finished.output


def test_task_ends_when_its_sender_was_killed_however_long_its_pages_take(lab: Lab) -> None:
    """Nobody waits for what is in flight."""
    with lab.bystander():
        crawl = lab.crawl("main", "-a", "pace=60")
        crawl.sender.wait_for_output(r"begin \d-1")
        assert crawl.taskid
        crawl.sender.kill()
        took_s = crawl.wait_for_end(GONE_S, "sender_lost")
        print(f"figure: SIGKILL of the sender, slow pages: the task has ended after {took_s:.2f} s")


def test_local_worker_and_server_stay_when_the_terminal_that_started_them_is_closed(
    machine: Machine, tmp_path: Path
) -> None:
    """What the first crawl has started serves the next one, also when the first one's terminal is closed."""
    lab = Lab(machine, tmp_path)
    first = lab.crawl("first", pty=True).begin()
    before = embedded.running(machine.home)
    assert before.server_pid
    assert before.worker_pid
    first.sender.hang_up()
    first.wait_for_end(GONE_S, "sender_lost")
    assert embedded.running(machine.home) == before
    second = lab.crawl("second", pty=True).begin()
    second.sender.type("\x03")
    assert second.sender.wait().exit_code == 0
    assert embedded.running(machine.home) == before


def test_task_ends_when_its_sender_cannot_print(lab: Lab) -> None:
    """A reader of stdout that goes, as head does, ends the task as a closed terminal does, without tracebacks."""
    with lab.bystander():
        sender = lab.machine.start(["sh", "-c", '"$@" | head -n 1', "sh", *lab.command("main")], lab.project)
        crawl = Crawl(lab.machine, sender, lab.directory, "main")
        finished = sender.wait()
        crawl.wait_for_end(1, "sender_lost")
        assert finished.stdout.count("\n") == 1
        assert "Traceback" not in finished.stderr
        assert "BrokenPipe" not in finished.stderr


def test_queued_task_is_not_run_when_its_sender_is_gone(machine: Machine, tmp_path: Path) -> None:
    """A task that waited for a worker, and whose sender was killed, ends as soon as there is one; nothing runs."""
    lab = Lab(machine, tmp_path)
    endpoint = machine.start_embedded()
    sender = machine.start([*lab.command("main"), "--redis", endpoint.url], lab.project)
    crawl = Crawl(machine, sender, lab.directory, "main")
    sender.wait_for_output("no worker is online")
    assert crawl.state is TaskState.QUEUED
    sender.kill()
    machine.start_worker()
    took_s = crawl.wait_for_end(GONE_S, "sender_lost")
    print(f"figure: a queued task without its sender: ended {took_s:.2f} s after a worker came")
    assert machine.store.client.hget(keys.task(crawl.taskid), "process_seq") == b"0"


# --- the network falls silent


@pytest.mark.long
def test_tasks_end_when_their_senders_are_silent(lab: Lab) -> None:
    """A suspended sender, and one behind a network that swallows packets, are missed after their timeout."""
    with lab.bystander(), Proxy(lab.machine.endpoint) as proxy:
        timeout = ["-s", f"VSCRAPY_SENDER_TIMEOUT={SENDER_TIMEOUT_S}"]
        suspended = lab.crawl("suspended", *timeout).begin()
        cut_off = lab.crawl("cut-off", *timeout, "--redis", proxy.url).begin()
        suspended.sender.signal(signal.SIGSTOP)
        proxy.fall_silent()
        since_s = time.monotonic()
        for crawl in (suspended, cut_off):
            crawl.wait_for_end(SENDER_TIMEOUT_S + 4, "sender_lost")
            took_s = time.monotonic() - since_s
            print(f"figure: {crawl.name}, with a timeout of {SENDER_TIMEOUT_S} s: ended after {took_s:.2f} s")
            assert SENDER_TIMEOUT_S - 3 < took_s < SENDER_TIMEOUT_S + 4
        suspended.sender.signal(signal.SIGCONT)
        proxy.pass_on()
        for crawl in (suspended, cut_off):
            finished = crawl.sender.wait()
            assert "'finish_reason': 'sender_lost'" in finished.stderr
            assert finished.exit_code == 1


def test_timeout_of_the_sender_is_refused_when_it_is_too_short(lab: Lab) -> None:
    """A timeout that the heartbeat cannot keep would end each task; 0 would make it nobody's."""
    for seconds in ("0", "2"):
        finished = lab.crawl("main", "-s", f"VSCRAPY_SENDER_TIMEOUT={seconds}").sender.wait()
        assert finished.exit_code == 2
        assert f"VSCRAPY_SENDER_TIMEOUT is {seconds}" in finished.stderr
    assert lab.machine.last_taskid() == 0


# --- Redis is away


def test_task_goes_on_when_its_sender_loses_redis_for_two_seconds(lab: Lab) -> None:
    """A sender that comes back soon is not given up, and gets every item once."""
    with lab.bystander(), Proxy(lab.machine.endpoint) as proxy:
        crawl = lab.crawl("main", "--redis", proxy.url).begin()
        proxy.refuse()
        crawl.sender.wait_for_output("waiting for it")
        back_s = time.monotonic() + 2
        wait_for(lambda: time.monotonic() > back_s)
        proxy.accept()
        crawl.sender.wait_for_output("Redis answers again")
        crawl.go_on()
        crawl.release()
        finished = crawl.sender.wait()
        crawl.check_finished(finished)
        assert "[redis" not in finished.stderr, "redis-py's own log is not the user's"


@pytest.mark.long
def test_task_goes_on_when_its_senders_connections_are_reset(lab: Lab) -> None:
    """Resets lose nothing and double nothing."""
    with lab.bystander(), Proxy(lab.machine.endpoint) as proxy:
        crawl = lab.crawl("main", "--redis", proxy.url).begin()

        def is_subscribed() -> bool:
            return Looks(lab.machine.store).audience([crawl.taskid]).senders[crawl.taskid] == 1

        for _ in range(3):
            wait_for(is_subscribed)
            proxy.reset()
            crawl.go_on()
        wait_for(is_subscribed)
        crawl.release()
        crawl.check_finished(crawl.sender.wait())


def test_tasks_go_on_when_redis_is_killed_and_restarted(lab: Lab) -> None:
    """A Redis that is killed in the middle and started again loses nothing of two running tasks."""
    machine = lab.machine
    with lab.bystander():
        crawl = lab.crawl("main", "-a", "pace=0.01").begin()
        for _ in range(3):
            pid = embedded.running(machine.home).server_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            crawl.sender.wait_for_output("waiting for it")
            since_s = time.monotonic()
            embedded.ensure(machine.home)
            crawl.go_on()
            took_s = time.monotonic() - since_s
            print(f"figure: lines come again {took_s:.2f} s after the restart of Redis")
        crawl.release()
        crawl.check_finished(crawl.sender.wait())


@pytest.mark.long
def test_task_goes_on_when_redis_refuses_writes_for_longer_than_the_senders_timeout(lab: Lab) -> None:
    """A sender that cannot give a sign of life, because Redis refuses every write, is not lost."""
    machine = lab.machine
    directory = machine.home / "valkey"
    with lab.bystander():
        crawl = lab.crawl("main", "-s", f"VSCRAPY_SENDER_TIMEOUT={SENDER_TIMEOUT_S}").begin()
        client = machine.store.client
        for number, silence_s in enumerate((SENDER_TIMEOUT_S - 1, SENDER_TIMEOUT_S, SENDER_TIMEOUT_S + 1), 1):
            (directory / "dump.rdb").mkdir()
            client.config_set("save", "3600 1")
            client.bgsave()
            crawl.sender.wait_for_output(f"(?s)({REFUSED}.*){{{number}}}")
            until_s = time.monotonic() + silence_s
            wait_for(lambda until_s=until_s: time.monotonic() > until_s)  # type: ignore[misc]
            client.config_set("save", "")
            (directory / "dump.rdb").rmdir()
            crawl.sender.wait_for_output(f"(?s)(Redis takes writes again.*){{{number}}}")
            crawl.go_on()
        crawl.release()
        crawl.check_finished(crawl.sender.wait())


def test_task_finishes_when_redis_has_forgotten_its_last_moments(lab: Lab, tmp_path: Path) -> None:
    """After a failover to a server that lags behind, what it does not know of is done again, and nothing hangs."""
    machine = lab.machine
    data, behind = machine.home / "valkey" / "appendonlydir", tmp_path / "behind"
    crawl = lab.crawl("main").begin()
    shutil.copytree(data, behind)
    crawl.go_on()
    pid = embedded.running(machine.home).server_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    shutil.rmtree(data)
    behind.rename(data)
    embedded.ensure(machine.home)
    crawl.go_on()
    crawl.release()
    finished = crawl.sender.wait(GONE_S)
    assert finished.exit_code == 0
    assert "'finish_reason': 'finished'" in finished.stderr
    for numbers in crawl.numbers().values():
        assert set(numbers) == set(range(1, max(numbers) + 1))
