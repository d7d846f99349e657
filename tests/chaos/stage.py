"""
Where a crawl takes place: a server, workers with a home of their own each, the demo site, and a sender.

What the faults act upon. Its own view of the store never goes through what a fault may break but the server itself.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.lab import N_PAGES, SPIDER, arguments, write_lab
from tests.integration.machine import BIN, Machine, Running, Server, Site, below, is_alive, wait_for
from tests.integration.proxy import Proxy
from vscrapy import keys
from vscrapy.errors import VscrapyError
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.tasks import TaskRecord, Tasks

#: Time that everything has to be gone after a task's end (seconds).
LEFT_S: Final = 15.0
#: Time in which a sender gets over what was done to it (seconds).
SENDER_WELL_S: Final = 5.0
#: Size of the disk of a worker whose disk can be full.
DISK_BYTES: Final = 4 * 1024 * 1024
#: Put on the PYTHONPATH of a worker whose clock is wrong.
_CLOCK: Final = """
    import datetime
    import os
    import time

    SHIFT_S = float(os.environ["CHAOS_CLOCK_SHIFT_S"])
    _time, _time_ns, _real = time.time, time.time_ns, datetime.datetime
    time.time = lambda: _time() + SHIFT_S
    time.time_ns = lambda: _time_ns() + int(SHIFT_S * 1e9)


    class _Meta(type):
        def __instancecheck__(cls, value):
            return isinstance(value, _real)


    class datetime_(_real, metaclass=_Meta):
        @classmethod
        def now(cls, tz=None):
            return _real.now(tz) + datetime.timedelta(seconds=SHIFT_S)

        @classmethod
        def utcnow(cls):
            return _real.utcnow() + datetime.timedelta(seconds=SHIFT_S)


    datetime_.__name__ = datetime_.__qualname__ = "datetime"
    datetime.datetime = datetime_
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is from the beginning."""

    #: Slots of the workers w1, w2, ...
    slots: tuple[int, ...] = (2, 1, 1)
    #: Does each worker, and the sender, reach the server by a way of its own that can break?
    is_proxied: bool = False
    #: Workers with a small disk of their own.
    small_disks: frozenset[str] = frozenset()
    #: Worker -> how far its clock is off (seconds).
    clocks: tuple[tuple[str, float], ...] = ()
    #: Is the task sent with --detach?
    is_detached: bool = False
    #: Latency of each page (ms).
    delay_ms: int = 200
    #: Numbered pages.
    n_pages: int = N_PAGES


@dataclass(eq=False)
class Worker:
    """A worker, and all that belongs to it alone."""

    name: str
    machine: Machine
    running: Running
    #: Its home is a small disk.
    disk: Path | None = None
    #: It was killed, or has left as it was told.
    is_gone: bool = False
    #: A fault has it in hand.
    is_busy: bool = False

    def everyone(self) -> set[int]:
        """The agent, its template and its crawl processes."""
        return {pid for pid in {self.running.pid, *below(self.running.pid)} if is_alive(pid)}

    def titled(self, title: str) -> list[int]:
        """Its processes whose title begins so."""
        found = self.machine.processes()
        return sorted(pid for pid, shown in found.items() if shown.startswith(title))

    @property
    def crawl_processes(self) -> list[int]:
        """Its crawl processes."""
        return self.titled("vscrapy-crawl")


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(eq=False)
class Sender:
    """``vscrapy crawl`` on a terminal: what it says goes through two readers, which can be slow, to two files."""

    running: Running
    directory: Path
    _code: int | None = field(default=None)

    @property
    def output(self) -> str:
        """What it has said, both streams."""
        texts = [self.directory / name for name in ("sender.out", "sender.err")]
        return "".join(path.read_text(errors="replace") for path in texts if path.exists())

    @property
    def errors(self) -> str:
        """What it has said to stderr."""
        path = self.directory / "sender.err"
        return path.read_text(errors="replace") if path.exists() else ""

    def readers(self) -> list[int]:
        """The processes that read what it says."""
        return sorted(below(self.running.pid) - {self.running.pid})


class Stage:
    """All of it; to be used in a ``with`` statement."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.layout = layout
        self.site = Site(directory / "site", delay_ms=layout.delay_ms)
        self.server = Server(directory / "server")
        self.server.start()
        self.home = Machine(directory / "home")
        self.workers: list[Worker] = []
        self.proxies: dict[str, Proxy] = {}
        self.store = Store(self.server.endpoint, name="chaos")
        self.tasks = Tasks(self.store)
        self.project = write_lab(directory / "project")
        self.feed = directory / "items.jsonl"
        self.sender: Sender | None = None
        self.taskid = 0
        self.is_over = False
        #: Held by who chooses a target; and by who has the server in hand.
        self.choosing = threading.Lock()
        self.server_in_hand = threading.Lock()
        #: When the sender has got over what was done to it last; never, while it is in hand (monotonic, s).
        self._sender_well_s = 0.0
        #: What happened, with the time since the beginning.
        self.story: list[str] = []
        self._began_s = time.monotonic()
        self._clock = directory / "clock"
        self._clock.mkdir()
        (self._clock / "sitecustomize.py").write_text(textwrap.dedent(_CLOCK))

    def __enter__(self) -> Stage:
        try:
            for number, slots in enumerate(self.layout.slots, 1):
                self.add_worker(f"w{number}", slots, is_awaited=False)
            for worker in self.workers:
                worker.running.wait_for_output(" ready: ", 60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, words: str) -> None:
        """Note what happens."""
        self.story.append(f"{self.elapsed_s:7.2f} s  {words}")

    @property
    def elapsed_s(self) -> float:
        """Time since it was made (seconds)."""
        return time.monotonic() - self._began_s

    # Its parts.

    def url(self, name: str) -> str:
        """How *name* reaches the server."""
        if not self.layout.is_proxied:
            return self.server.url
        if name not in self.proxies:
            self.proxies[name] = Proxy(self.server.endpoint)
            self.proxies[name].__enter__()
        return self.proxies[name].url

    def add_worker(self, name: str, slots: int, *, is_awaited: bool = True) -> Worker:
        """Start a worker with a home of its own."""
        home = self.directory / name
        env = {"VSCRAPY_REDIS_URL": self.url(name)}
        disk = None
        if name in self.layout.small_disks:
            disk = home
            home.mkdir(mode=0o700)
            mount(home, DISK_BYTES)
            env["TMPDIR"] = str(home)
        shift_s = dict(self.layout.clocks).get(name)
        if shift_s is not None:
            env |= {"PYTHONPATH": str(self._clock), "CHAOS_CLOCK_SHIFT_S": str(shift_s)}
        machine = Machine(home)
        running = machine.start(["vscrapy", "worker", "--slots", str(slots), "--name", name], env=env)
        worker = Worker(name, machine, running, disk)
        worker.is_busy = is_awaited  # who waits for it to be ready must not wait for one that a fault has ended
        self.workers.append(worker)
        if is_awaited:
            running.wait_for_output(" ready: ", 60)
            worker.is_busy = False
        return worker

    def join_worker(self, slots: int) -> Worker:
        """Start a worker with a new name."""
        return self.add_worker(f"w{len(self.workers) + 1}", slots)

    def live_workers(self) -> list[Worker]:
        """Workers that run and that no fault has in hand."""
        return [worker for worker in self.workers if not (worker.is_gone or worker.is_busy)]

    def take_sender(self) -> bool:
        """
        Take the sender in hand; False: another fault has it, or it has not got over that yet.

        Whose connections have been closed, and who does not come back within 2.5 s, is gone: that is promised, and
        what two faults together look like, such as a reset and silence after it.
        """
        with self.choosing:
            if time.monotonic() < self._sender_well_s:
                return False
            self._sender_well_s = math.inf
            return True

    def leave_sender(self) -> None:
        """Let the sender get over it."""
        with self.choosing:
            self._sender_well_s = time.monotonic() + SENDER_WELL_S

    def crawl(self) -> None:
        """Send the task."""
        command = ["crawl", SPIDER, *arguments(self.site, self.layout.n_pages), "--redis", self.url("sender")]
        # A network that is silent for half a minute must not end the task.
        command += ["-s", "VSCRAPY_SENDER_TIMEOUT=90"]
        command += ["--detach"] if self.layout.is_detached else ["-O", str(self.feed)]
        # bash: the readers are its own, and exit when the sender has ended.
        script = 'out=$1 err=$2; shift 2; exec "$@" > >(cat >"$out") 2> >(cat >"$err")'
        files = [str(self.directory / name) for name in ("sender.out", "sender.err")]
        running = self.home.start(["bash", "-c", script, "sh", *files, str(BIN / "vscrapy"), *command], self.project)
        self.sender = sender = Sender(running, self.directory)

        def taskid() -> int:
            found = re.search(rf"task (\d+): {SPIDER}", sender.output)
            return int(found.group(1)) if found else 0

        self.taskid = wait_for(taskid, 60, what=lambda: f"a task; the sender said: {sender.output}")

    # What is there to see.

    def record(self) -> TaskRecord | None:
        """The task's record; None while the server is away."""
        try:
            return self.tasks.record(self.taskid)
        except VscrapyError:
            return None

    def pages(self) -> int:
        """Pages so far; 0 while the server is away."""
        record = self.record()
        return record.pages if record is not None else 0

    def has_ended(self) -> bool:
        """Has the task come to an end?"""
        record = self.record()
        return record is not None and record.state is TaskState.FINISHED

    def places(self) -> dict[str, str]:
        """The places that are taken in the task: crawl process -> worker."""
        try:
            found: dict[bytes, bytes] = self.store.client.hgetall(keys.processes(self.taskid))
        except Exception:  # noqa: BLE001 - the server may be away in any of redis-py's ways
            return {}
        return {process.decode(): json.loads(place)["worker"] for process, place in found.items()}

    def crawl_processes(self) -> list[int]:
        """All crawl processes."""
        return [pid for worker in self.workers for pid in worker.crawl_processes]

    def processes(self) -> dict[int, str]:
        """All processes of all machines here, with their command lines."""
        machines = [self.home, *(worker.machine for worker in self.workers)]
        return {pid: title for machine in machines for pid, title in machine.processes().items()}

    def hold(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, up to *seconds*, until the crawl is over or something has come about."""
        deadline = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > deadline or self.is_over or until(), seconds + 60)

    # The end.

    def end_workers(self) -> list[str]:
        """Send the workers away; what was not as it should be."""
        wrong = []
        for worker in self.workers:
            if worker.running.is_running:
                signal_all(worker.everyone(), signal.SIGCONT)
                worker.running.signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                code = worker.running.process.wait(LEFT_S)
            except subprocess.TimeoutExpired:
                wrong.append(f"worker {worker.name} did not end within {LEFT_S:g} s of SIGTERM")
                worker.running.kill()
                continue
            if code and not worker.is_gone:
                wrong.append(f"worker {worker.name} ended with {code}")
            if "Traceback" in worker.running.output:
                wrong.append(f"worker {worker.name} has said a traceback")
        return wrong

    def left_processes(self) -> dict[int, str]:
        """Processes that are still there after their time; they are killed."""
        with suppress(pytest.fail.Exception):
            wait_for(lambda: not self.processes(), LEFT_S)
        left = self.processes()
        signal_all(left, signal.SIGCONT)
        signal_all(left, signal.SIGKILL)
        return left

    def close(self) -> None:
        """End all that is still there."""
        for worker in self.workers:
            signal_all(worker.everyone(), signal.SIGCONT)
        for machine in (self.home, *(worker.machine for worker in self.workers)):
            machine.shutdown()
        signal_all(self.processes(), signal.SIGKILL)
        for worker in self.workers:
            (self.directory / f"{worker.name}.log").write_text(worker.running.output)
            if worker.disk is not None:
                unmount(worker.disk)
        for proxy in self.proxies.values():
            proxy.__exit__(None, None, None)
        self.store.close()
        self.server.stop()
        self.site.stop()


def can_mount(directory: Path) -> bool:
    """May this user mount a small disk?"""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        mount(directory, 4096)
    except (OSError, subprocess.CalledProcessError):
        return False
    unmount(directory)
    return True


def mount(directory: Path, size_bytes: int) -> None:
    """Put a small disk at *directory*."""
    options = f"size={size_bytes},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", str(directory)], check=True, capture_output=True)


def unmount(directory: Path) -> None:
    """Take it away, also while something still has it open."""
    subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)
