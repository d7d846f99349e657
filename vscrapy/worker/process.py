"""
One crawl process as its agent sees it: its place in a task, its three pipes, and its end.

It has ended when its exit status is known and its pipes are closed; a daemonised grandchild can hold a pipe, so
there is a bound. Its channel is a stream socket: the spec goes down first, then ``{"do": "leave", "why": ...}`` when
it is to leave, ``{"do": "valve", "level": 30}`` when nobody wants what weighs less, ``{"do": "look"}`` when its task
ends, ``{"do": "answer"}`` to see that it turns; log lines come up, and words to the agent. When the channel closes
under it, its agent is dead, and it ends itself.
"""

# mypy: disallow-untyped-calls=False
# Twisted's transports are not annotated.

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone

from vscrapy.valve import ALL
from vscrapy.worker.lines import ChannelLines, TextLines
from vscrapy.worker.reactor import Reactor, Timer, cancel
from vscrapy.worker.spawner import Order
from vscrapy.worker.vital import Pulse

if TYPE_CHECKING:
    from twisted.internet.unix import Server
    from twisted.python.failure import Failure

    from vscrapy.wire import LogLine
    from vscrapy.worker.relay import Relay
    from vscrapy.worker.spawner import Spawner

#: Time for the pipes to close after the exit (s): of a process that ended well, and of one that crashed, whose
#: leases are wanted back soon.
PIPES_S: Final = 1.0
CRASHED_PIPES_S: Final = 0.3
#: Time after which a part of a line is shown without its end (s).
PARTIAL_S: Final = 0.1
#: Time between two looks whether an orphan lives (s).
ORPHAN_S: Final = 0.25
#: Bytes read at once.
READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A crawl process's place in a task, as it was claimed."""

    taskid: int
    #: Unique on this Redis.
    process: str
    #: Number in the task, from 1.
    number: int
    #: The worker's name at that time.
    worker: str
    #: It is home's: the process writes the feeds of a detached task.
    is_home: bool = False

    @property
    def title(self) -> str:
        """What the process is called in the task's log."""
        return "home" if self.is_home else f"crawl process {self.number}"


class _Pipe(FileDescriptor):
    """The reading end of a child's stdout or stderr."""

    def __init__(
        self, reactor: Reactor, fd: int, received: Callable[[bytes], None], closed: Callable[[], None]
    ) -> None:
        super().__init__(reactor)  # type: ignore[arg-type]
        self._fd = fd
        self._received = received
        self._closed = closed
        fdesc.setNonBlocking(fd)
        self.connected = 1
        self.startReading()

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> Any:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            return connectionDone.value
        self._received(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        os.close(self._fd)
        self._fd = -1
        self._closed()

    def close(self) -> None:
        """Read no more at all."""
        if self._fd >= 0:
            self.stopReading()
            self.connectionLost(connectionDone)

    def pauseProducing(self) -> None:
        """Read no more for now."""
        if self._fd >= 0:
            self.stopReading()

    def resumeProducing(self) -> None:
        """Read on."""
        if self._fd >= 0:
            self.startReading()


class _Channel(Protocol):
    """The agent's end of a child's channel."""

    def __init__(self, received: Callable[[bytes], None], closed: Callable[[], None]) -> None:
        self._received = received
        self._closed = closed

    def dataReceived(self, data: bytes) -> None:
        self._received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed()


class CrawlProcess:
    """
    One crawl process.

    Args:
        grows: Called when it says that its task has more to do than it can take.
    """

    def __init__(self, reactor: Reactor, place: Place, relay: Relay, *, grows: Callable[[], None]) -> None:
        self.place = place
        self._grows = grows
        #: None before it was forked.
        self.pid: int | None = None
        #: Why it was killed from here; empty: it was not.
        self.kill_reason = ""
        #: SHA-256 of the files of its bundle.
        self.shas: list[str] = []
        #: How long its spider may take to close (s).
        self.close_timeout_s = 0.0
        #: Fires with the exit code (negative: the signal), or None when nobody knows it.
        self.ended: Deferred[int | None] = Deferred()
        self.is_launched = False
        #: Called when it has been forked.
        self.on_started: Callable[[], None] = _nothing
        self.is_asked_to_leave = False
        #: What it had in hand may have been the death of it: it was killed for what it did.
        self.is_to_blame = True
        #: The request that runs in it alone, because processes have died with it in hand; None: no such.
        self.suspect: dict[str, Any] | None = None
        #: Signs the task's payloads; empty before the job was read.
        self.key = b""
        self.pulse = Pulse()
        #: The level that it was told.
        self._level = ALL
        self._is_to_look = False
        #: Its place was given to others.
        self.is_fenced = False
        self._reactor = reactor
        self._relay = relay
        self._text = {
            stream: TextLines(stream, process=place.number, worker=place.worker, clock=time.time)
            for stream in ("out", "err")
        }
        self._objects = ChannelLines(process=place.number, worker=place.worker, clock=time.time, told=self._told)
        self._pipes: dict[str, _Pipe] = {}
        self._channel: Server | None = None
        self._is_held_up = False
        self._has_exited = False
        self._is_unborn = False
        self._is_over = False
        self._code: int | None = None
        self._timers: dict[str, Timer] = {}

    def launch(self, spawner: Spawner, spec: dict[str, Any]) -> None:
        """
        Order the fork.

        Raises:
            OSError: No more file descriptors.
        """
        encoded = json.dumps(spec).encode()
        ends = {stream: os.pipe() for stream in ("out", "err")}
        ours, theirs = socket.socketpair()
        self.is_launched = True
        for stream, (reading, _) in ends.items():
            self._pipes[stream] = _Pipe(
                self._reactor,
                reading,
                lambda data, stream=stream: self._text_received(stream, data),  # type: ignore[misc]
                lambda stream=stream: self._pipe_closed(stream),  # type: ignore[misc]
            )
        channel = _Channel(self._objects_received, self._channel_closed)
        self._reactor.adoptStreamConnection(
            ours.fileno(),
            socket.AF_UNIX,
            Factory.forProtocol(lambda: channel),
        )
        ours.close()
        self._channel = cast("Server", channel.transport)
        self._channel.write(encoded)
        descriptors = (ends["out"][1], ends["err"][1], theirs.detach())
        spawner.order(Order(self, spec["title"], len(encoded), descriptors))

    def ask_to_leave(self, why: str = "") -> None:
        """Let it close its spider and give back what it has not begun; *why*: for its task's log."""
        self.is_asked_to_leave = True
        if self._channel is not None:
            self._channel.write(json.dumps({"do": "leave", "why": why}).encode() + b"\n")

    def turn_valve(self, level: int) -> None:
        """Tell it from which level on its lines are wanted."""
        if self._channel is not None and level != self._level:
            self._level = level
            self._channel.write(json.dumps({"do": "valve", "level": level}).encode() + b"\n")

    def ask_to_look(self) -> None:
        """Let it see, once, that its task ends: it may ask Redis next in half a second only."""
        if self._channel is not None and not self._is_to_look:
            self._is_to_look = True
            self._channel.write(json.dumps({"do": "look"}).encode() + b"\n")

    def ask_to_answer(self) -> None:
        """Let its reactor say that it turns."""
        if self._channel is not None:
            self._channel.write(json.dumps({"do": "answer"}).encode() + b"\n")

    def show_stack(self) -> None:
        """Let it write to its log where it is, even if it is stuck in C code."""
        if self.pid is not None and not self._has_exited:
            os.kill(self.pid, signal.SIGUSR2)

    def kill(self, reason: str, *, is_to_blame: bool = False) -> None:
        """
        End it and all that it has started, at once.

        Args:
            is_to_blame: For what it did itself.
        """
        if not self.kill_reason:
            self.is_to_blame = is_to_blame
        self.kill_reason = self.kill_reason or reason
        if self.pid is None or self._has_exited:
            return  # started() comes back here.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            # It has not made its group yet, or it is a zombie already.
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    # --- what the spawner tells

    def started(self, pid: int) -> None:
        self.pid = pid
        if self.kill_reason:
            self.kill(self.kill_reason)
        self.on_started()

    def exited(self, status: int | None) -> None:
        self._is_unborn = status is None
        self._exited(None if status is None else os.waitstatus_to_exitcode(status))

    def orphaned(self) -> None:
        self._look_at_orphan()

    # --- its end

    def _look_at_orphan(self) -> None:
        assert self.pid is not None
        code, is_gone = _poll(self.pid)
        if is_gone:
            self._exited(code)
        else:
            self._timers["orphan"] = self._reactor.callLater(ORPHAN_S, self._look_at_orphan)

    def _exited(self, code: int | None) -> None:
        self._has_exited = True
        self._code = code
        patience_s = PIPES_S if code == 0 else CRASHED_PIPES_S
        self._timers["pipes"] = self._reactor.callLater(0 if self._is_unborn else patience_s, self._end)
        self._go_on()
        self._end_if_closed()

    def _end_if_closed(self) -> None:
        if self._has_exited and not self._pipes and self._channel is None:
            self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for timer in self._timers.values():
            cancel(timer)
        self._timers.clear()
        for pipe in list(self._pipes.values()):
            pipe.close()
        if self._channel is not None:
            self._channel.abortConnection()
        for text in self._text.values():
            self._relay_lines(text.flush(is_end=True))
        self._relay_lines(self._objects.end())
        self.ended.callback(self._code)

    # --- what it says

    def _told(self, words: dict[str, Any]) -> None:
        if words.get("answers"):
            self.pulse.answered()
        elif isinstance(words.get("suspect"), dict):
            self.suspect = words["suspect"]
        elif words.get("grows"):
            self._grows()

    def _text_received(self, stream: str, data: bytes) -> None:
        text = self._text[stream]
        lines = text.feed(data)
        if text.is_partial and stream not in self._timers:
            self._timers[stream] = self._reactor.callLater(PARTIAL_S, self._flush_text, stream)
        self._relay_lines(lines)

    def _flush_text(self, stream: str) -> None:
        self._timers.pop(stream, None)
        self._relay_lines(self._text[stream].flush())

    def _objects_received(self, data: bytes) -> None:
        self._relay_lines(self._objects.feed(data))

    def _relay_lines(self, lines: list[LogLine]) -> None:
        if not lines:
            return
        self._relay.add(self.place.taskid, lines, worker=self.place.worker)
        if not self._is_held_up and not self._has_exited and self._relay.hold_up(self.place.taskid, self._go_on):
            self._is_held_up = True
            for source in (*self._pipes.values(), self._channel):
                if source is not None:
                    source.pauseProducing()

    def _go_on(self) -> None:
        if not self._is_held_up:
            return
        self._is_held_up = False
        for source in (*self._pipes.values(), self._channel):
            if source is not None:
                source.resumeProducing()

    def _pipe_closed(self, stream: str) -> None:
        self._pipes.pop(stream, None)
        self._end_if_closed()

    def _channel_closed(self) -> None:
        self._channel = None
        self._end_if_closed()


def _nothing() -> None:
    """Nobody wants to know."""


def _poll(pid: int) -> tuple[int | None, bool]:
    """Look whether an orphan lives; its exit code, if we are its parent now (as process 1 of a container)."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None, True
        return None, False
    return (os.waitstatus_to_exitcode(status), True) if found else (None, False)
