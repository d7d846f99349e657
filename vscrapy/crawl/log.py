"""
What a crawl process says, as data: log records, and Python's stdout and stderr, on one channel in one order.

Raw file descriptors 1 and 2 (C libraries, subprocesses) go to the agent by pipes of their own.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from vscrapy.valve import ALL, TEXT_LEVELS
from vscrapy.wire import LogLine

#: Attributes of a record that a LOG_FORMAT gets from the line itself.
_CARRIED: Final = frozenset({"name", "levelname", "levelno", "message", "asctime", "created", "msecs", "exc_text"})
_FIELD: Final = re.compile(r"%\((\w+)\)")
#: Exit code of a crawl process whose agent is gone.
ORPHANED: Final = 72


class Channel:
    """The crawl process's end of the socket to its agent. Thread-safe."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._lock = threading.RLock()
        #: Which lines are kept back, and those that were.
        self._holds: list[tuple[Callable[[LogLine], bool], list[LogLine]]] = []
        #: From which level on lines are wanted, as the agent says; it leaves out itself what comes nevertheless.
        self.least = ALL

    @contextmanager
    def held(self, is_held: Callable[[LogLine], bool] = lambda _: True) -> Iterator[None]:
        """Keep back what is said within, because the sender says it, too; after an error it is said after all."""
        kept: list[LogLine] = []
        self._holds.append((is_held, kept))
        try:
            yield
        except BaseException:
            self._holds.pop()
            for line in kept:
                self.say(line)
            raise
        self._holds.pop()

    def say(self, line: LogLine) -> None:
        """Send one line; when nobody is there to hear it, the process ends: its agent is dead."""
        for is_held, kept in self._holds:
            if is_held(line):
                kept.append(line)
                return
        data = json.dumps(line.to_data(), separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            os._exit(ORPHANED)

    def tell(self, **words: Any) -> None:
        """Tell the agent something that is no line of the log."""
        try:
            with self._lock:
                self._socket.sendall(json.dumps({"tell": words}, separators=(",", ":")).encode() + b"\n")
        except OSError:
            os._exit(ORPHANED)

    def listen(self) -> list[dict[str, Any]]:
        """Wait for the agent's next words; none when it is gone."""
        heard = b""
        while not heard.endswith(b"\n"):
            try:
                part = self._socket.recv(4096)
            except OSError:
                return []
            if not part:
                return []
            heard += part
        return [json.loads(word) for word in heard.splitlines()]


class NoChannel(Channel):
    """Where there is no agent: nothing is sent, nothing is heard."""

    def __init__(self) -> None:
        self.least = ALL
        self._holds = []

    def say(self, line: LogLine) -> None:
        """Drop the line."""

    def tell(self, **words: Any) -> None:
        """Drop the words."""

    def listen(self) -> list[dict[str, Any]]:
        """Hear that nobody is there."""
        return []


class _Raw(io.RawIOBase):
    """The binary layer under ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, channel: Channel, stream: str, descriptor: int) -> None:
        super().__init__()
        self._channel = channel
        self._stream = stream
        self._descriptor = descriptor

    def write(self, data: Any) -> int:
        """Send what was written, as one line of data."""
        written = bytes(data)
        if written and TEXT_LEVELS[self._stream] >= self._channel.least:
            self._channel.say(LogLine(self._stream, written.decode("utf-8", "replace")))
        return len(written)

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The raw descriptor, for subprocesses."""
        return self._descriptor


def install_streams(channel: Channel) -> None:
    """Put ``sys.stdout`` and ``sys.stderr`` on the channel, flushed at each newline as on a terminal."""
    for name, stream, descriptor, errors in (
        ("stdout", "out", 1, "replace"),
        ("stderr", "err", 2, "backslashreplace"),
    ):
        # Any: a raw stream serves as a text layer's buffer where each write is taken whole, as here.
        raw: Any = _Raw(channel, stream, descriptor)
        text: Any = io.TextIOWrapper(
            raw,
            encoding="utf-8",
            errors=errors,
            line_buffering=True,
            write_through=False,
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


class ChannelHandler(logging.Handler):
    """Sends log records as lines of data."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._attributes: tuple[str, ...] = ()
        self._formatter = logging.Formatter("%(message)s")
        #: Is the process still starting?
        self.is_banner = True
        #: The pipelines run at home, which logs them.
        self.hide_pipelines = False
        #: The process leaves, and the crawl goes on elsewhere: the engine's closing words would be wrong.
        self.is_leaving = False
        self.addFilter(self._is_told)

    def _is_told(self, record: logging.LogRecord) -> bool:
        if record.levelno < self._channel.least:
            return False
        if self.is_leaving and record.name == "scrapy.core.engine" and record.levelno == logging.INFO:
            return False
        args = record.args
        return not (
            self.hide_pipelines
            and record.name == "scrapy.middleware"
            and isinstance(args, dict)
            and args.get("componentname") == "item pipeline"
        )

    def use_format(self, log_format: str | None) -> None:
        """Carry the further attributes that this LOG_FORMAT names."""
        named = _FIELD.findall(log_format or "")
        self._attributes = tuple(name for name in dict.fromkeys(named) if name not in _CARRIED)

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record: its message, and its traceback under it."""
        try:
            text = self._formatter.format(record)
            attributes = tuple((name, _plain(getattr(record, name, None))) for name in self._attributes)
            line = LogLine(
                "log",
                text,
                time=record.created,
                level=record.levelno,
                logger=record.name,
                is_banner=self.is_banner,
                attributes=attributes,
            )
        except Exception:  # noqa: BLE001 - logging's own contract: a broken record is reported, not raised
            self.handleError(record)
            return
        self._channel.say(line)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
