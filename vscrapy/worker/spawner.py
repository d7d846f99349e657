"""
The agent's end of the template: keeps one running, asks it for forks, and tells each child what became of it.

A template that died is replaced. Its children live on without it: they are told that they are orphans, because
nobody will learn their exit status.
"""

# mypy: disallow-untyped-calls=False
# Twisted's transports are not annotated.

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.protocols.basic import LineOnlyReceiver

from vscrapy import __version__
from vscrapy.worker.reactor import Reactor, Timer, cancel

if TYPE_CHECKING:
    from twisted.internet.process import Process
    from twisted.internet.unix import Server
    from twisted.python.failure import Failure

#: Waits before a new template (s): the first, and the longest.
BACKOFF_S: Final = (0.2, 5.0)
#: A template that lived for so long was a good one: the next is started without waiting long (s).
GOOD_S: Final = 10.0
#: Time to import Scrapy in (s).
READY_S: Final = 60.0
#: Templates in a row that were not ready, after which an environment counts as broken.
MOST_FAILURES: Final = 3
#: The most that a process can be nice.
NICEST: Final = 19
#: What user code must not find in its environment: it gets the address it needs in its spec.
SECRETS: Final = ("VSCRAPY_SECRET", "VSCRAPY_REDIS_URL")

_FD: Final = 3


class Child(Protocol):
    """Who is told what became of an order."""

    def started(self, pid: int) -> None:
        """It runs."""

    def exited(self, status: int | None) -> None:
        """It has ended, with this wait status; None: it never ran."""

    def orphaned(self) -> None:
        """It runs, but nobody will learn its wait status."""


@dataclass(frozen=True, slots=True)
class Order:
    """A fork that is wanted."""

    child: Child
    title: str
    #: Bytes of the spec, which stand on the channel already or soon.
    spec_bytes: int
    #: Stdout, stderr and channel, the child's ends; closed once it has them.
    descriptors: tuple[int, int, int]


class _Connection(LineOnlyReceiver):
    """Lines from one template."""

    delimiter = b"\n"

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    def lineReceived(self, line: bytes) -> None:
        self._spawner._received(json.loads(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._spawner._ended("connection")


class _Watcher(ProcessProtocol):
    """Sees the end of one template."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    def processEnded(self, reason: Failure) -> None:
        self._spawner._ended("process")


class Spawner:
    """
    Keeps a template, and its orders.

    Args:
        environment: The virtual environment that the template runs in; None: the agent's own.
        nice: Added to the niceness of the template and its children.
        replaced: Called with the version of vscrapy that a new template has found, when it is not this one's: it was
            upgraded on disk since. Nothing is forked from there.
    """

    def __init__(
        self,
        reactor: Reactor,
        say: Callable[[str], None],
        environment: Path | None = None,
        *,
        nice: int = 0,
        replaced: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._say = say
        self._environment = environment
        self.nice = nice
        self.replaced = replaced
        #: No template of this environment has come so far as to fork; what was ordered never runs.
        self.is_broken = False
        #: What crawl processes run with (:mod:`vscrapy.versions`), as the template has it; empty before it is ready.
        self.versions: dict[str, str] = {}
        self._n_failures = 0
        self._next_id = 1
        self._waiting: list[Order] = []
        #: Orders that the present template has: not forked yet, and running.
        self._sent: dict[int, Order] = {}
        self._running: dict[int, Child] = {}
        self._process: Process | None = None
        self._connection: _Connection | None = None
        #: What is left of the present template.
        self._parts: set[str] = set()
        self._is_ready = False
        self._is_stopped = False
        self._started_s = 0.0
        self._backoff_s = BACKOFF_S[0]
        self._timer: Timer | None = None

    @property
    def pid(self) -> int | None:
        """The template's process id, if there is one now."""
        return None if self._process is None else self._process.pid

    @property
    def n_children(self) -> int:
        """Crawl processes that run, or are wanted."""
        return len(self._waiting) + len(self._sent) + len(self._running)

    def _environ(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if name not in SECRETS}
        if self._environment is not None:
            for name in ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__"):
                environ.pop(name, None)
            path = f"{self._environment / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
            environ |= {"VIRTUAL_ENV": str(self._environment), "PATH": path}
        return environ

    def start(self) -> None:
        """Start a template."""
        self._started_s = time.monotonic()
        ours, theirs = socket.socketpair()
        environ = self._environ()
        python = sys.executable if self._environment is None else str(self._environment / "bin" / "python")
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            self._process = self._reactor.spawnProcess(
                _Watcher(self),
                python,
                [python, "-P", "-m", "vscrapy.worker.template", str(_FD)],
                env=environ,
                childFDs={0: null, 1: 1, 2: 2, _FD: theirs.fileno()},
            )
            connection = _Connection(self)
            self._connection = connection
            self._parts = {"process", "connection"}
            self._reactor.adoptStreamConnection(
                ours.fileno(),
                socket.AF_UNIX,
                Factory.forProtocol(lambda: connection),
            )
            self._be_nice(self._process)
        finally:
            os.close(null)
            ours.close()
            theirs.close()
        self._timer = self._reactor.callLater(READY_S, self._too_slow)

    def _be_nice(self, process: Process) -> None:
        """Give the template its niceness, and so whatever it forks; it has one thread yet."""
        if self.nice and process.pid is not None:
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, process.pid, min(own + self.nice, NICEST))

    def stop(self) -> None:
        """End the template by closing our end; its children see the same on their channels."""
        self._is_stopped = True
        self._cancel_timer()
        if self._connection is not None and self._connection.transport is not None:
            cast("Server", self._connection.transport).loseConnection()

    def order(self, order: Order) -> None:
        """Ask for a fork; at once, or when there is a template again."""
        if self.is_broken:
            _close(order)
            order.child.exited(None)
            return
        if not self._is_ready:
            self._waiting.append(order)
            return
        assert self._connection is not None
        transport = cast("Server", self._connection.transport)
        number, self._next_id = self._next_id, self._next_id + 1
        self._sent[number] = order
        for descriptor in order.descriptors:
            transport.sendFileDescriptor(descriptor)
        request = {"id": number, "title": order.title, "spec_bytes": order.spec_bytes}
        transport.write(json.dumps(request).encode() + b"\n")

    def _received(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.versions = message["versions"]
            self._n_failures = 0
            self._cancel_timer()
            if self.versions["vscrapy"] != __version__:
                self.replaced(self.versions["vscrapy"])
                self._refuse_all()
                return
            self._is_ready = True
            waiting, self._waiting = self._waiting, []
            for order in waiting:
                self.order(order)
        elif "started" in message:
            order = self._sent.pop(message["started"])
            _close(order)
            self._running[message["started"]] = order.child
            order.child.started(message["pid"])
        elif "failed" in message:
            order = self._sent.pop(message["failed"])
            _close(order)
            self._say(f"no crawl process: {message['error']}")
            order.child.exited(None)
        elif "exited" in message:
            self._running.pop(message["exited"]).exited(message["status"])

    def _ended(self, part: str) -> None:
        """A part of the template is gone; with the last one, all that it said has been read."""
        self._parts.discard(part)
        if self._parts:
            return
        self._process = self._connection = None
        self._is_ready = False
        self._cancel_timer()
        sent, self._sent = self._sent, {}
        running, self._running = self._running, {}
        for order in sent.values():
            _close(order)
            order.child.exited(None)
        for child in running.values():
            child.orphaned()
        if self._is_stopped:
            return
        self._n_failures += 1
        if self._environment is not None and self._n_failures >= MOST_FAILURES:
            self._give_up()
            return
        if time.monotonic() - self._started_s > GOOD_S:
            self._backoff_s = BACKOFF_S[0]
        self._say(f"the template for crawl processes has ended; a new one is started in {self._backoff_s:g} s")
        self._timer = self._reactor.callLater(self._backoff_s, self.start)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])

    def _give_up(self) -> None:
        """Nothing runs in this environment."""
        self._say(f"the environment {self._environment} does not work")
        self._refuse_all()

    def _refuse_all(self) -> None:
        """Fork nothing any more."""
        self.is_broken = True
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            _close(order)
            order.child.exited(None)

    def _too_slow(self) -> None:
        self._say(f"the template for crawl processes was not ready within {READY_S:g} s")
        if self._process is not None:
            try:
                self._process.signalProcess("KILL")
            except ProcessExitedAlready:
                return  # _ended() is on its way.

    def _cancel_timer(self) -> None:
        cancel(self._timer)
        self._timer = None


def _close(order: Order) -> None:
    for descriptor in order.descriptors:
        os.close(descriptor)
