"""
What a crawl process writes, bytes to log lines: JSON objects on its channel, raw text on its stdout and stderr.

Pure: no reactor, no clock but the one that is handed in. Whatever the bytes are, they become lines.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any, Final

from vscrapy.wire import LogLine

#: Characters of one line; the rest is cut off.
LINE_CHARS: Final = 64 * 1024
#: Bytes of one JSON object on the channel; the rest is cut off, and what is left is text.
OBJECT_BYTES: Final = 8 * 1024 * 1024
#: Stands where something was cut off.
CUT: Final = " [... cut by vscrapy: the line is too long ...]"

#: How words for the agent begin, as :meth:`vscrapy.crawl.log.Channel.tell` writes them.
_TELL: Final = b'{"tell":'


class TextLines:
    """Raw text from a pipe: a line at a time, as it came."""

    def __init__(self, stream: str, *, process: int, worker: str, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._process = process
        self._worker = worker
        self._clock = clock
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._partial = ""
        #: Characters of the present line that were given out already, as parts.
        self._given_chars = 0

    @property
    def is_partial(self) -> bool:
        """Does a part of a line wait for its end?"""
        return bool(self._partial)

    def feed(self, data: bytes, *, is_end: bool = False) -> list[LogLine]:
        """Take bytes; give the lines that they complete."""
        text = self._partial + self._decoder.decode(data, is_end)
        *lines, self._partial = text.split("\n")
        found = [self._part(line, "\n") for line in lines]
        if len(self._partial) > LINE_CHARS:
            found.append(self._part(self._partial))
            self._partial = ""
        return [line for line in found if line is not None]

    def flush(self, *, is_end: bool = False) -> list[LogLine]:
        """Give the part of a line that is there; at the end, also half a character."""
        lines = self.feed(b"", is_end=is_end)
        text, self._partial = self._partial, ""
        part = self._part(text) if text else None
        return [*lines, part] if part is not None else lines

    def _part(self, text: str, ending: str = "") -> LogLine | None:
        """Make a line of what is new in the present line; nothing once it was cut, but for its end."""
        room = LINE_CHARS - self._given_chars
        if room < 0:
            shown = ""
        elif len(text) > room:
            shown = text[:room] + CUT
            self._given_chars = LINE_CHARS + 1
        else:
            shown = text
            self._given_chars += len(text)
        if ending:
            self._given_chars = 0
        shown += ending
        if not shown:
            return None
        return LogLine(self._stream, shown, self._clock(), process=self._process, worker=self._worker)


class ChannelLines:
    """
    JSON objects from a crawl process's channel, one a line.

    Args:
        told: Called with what it tells its agent besides.
    """

    def __init__(
        self,
        *,
        process: int,
        worker: str,
        clock: Callable[[], float],
        told: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._process = process
        self._worker = worker
        self._clock = clock
        self._told = told
        self._partial = bytearray()
        self._is_skipping = False

    def feed(self, data: bytes) -> list[LogLine]:
        """Take bytes; give the log lines that they complete."""
        self._partial += data
        if b"\n" not in data:
            return self._cut()
        *objects, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        if self._is_skipping:
            self._is_skipping = False
            del objects[0]
        return [line for text in objects if text and (line := self._take(text)) is not None] + self._cut()

    def end(self) -> list[LogLine]:
        """Give what is there without an end."""
        text, self._partial = bytes(self._partial), bytearray()
        return [self._line(text)] if text and not self._is_skipping else []

    def _cut(self) -> list[LogLine]:
        if self._is_skipping:
            self._partial.clear()
        if len(self._partial) <= OBJECT_BYTES:
            return []
        line = self._line(bytes(self._partial))
        self._partial.clear()
        self._is_skipping = True
        return [line]

    def _take(self, text: bytes) -> LogLine | None:
        """A line; or words for the agent itself."""
        if text.startswith(_TELL):
            try:
                self._told(json.loads(text)["tell"])
                return None
            except (LookupError, TypeError, ValueError, RecursionError):
                pass  # the project wrote it; it is shown
        return self._line(text)

    def _line(self, text: bytes) -> LogLine:
        try:
            data = json.loads(text)
            data["p"], data["w"] = self._process, self._worker
            data["t"] = data.get("t") or self._clock()
            if len(data["x"]) > LINE_CHARS:
                data["x"] = data["x"][:LINE_CHARS] + CUT
            return LogLine.from_data(data)
        # The process runs a project's code: anything can stand here, and all of it is shown.
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
            shown = text[: LINE_CHARS + 1].decode("utf-8", "replace")
            shown = shown[:LINE_CHARS] + CUT if len(text) > LINE_CHARS else shown
            return LogLine("err", shown + "\n", self._clock(), process=self._process, worker=self._worker)
