"""The log at the terminal, in records that two runs can be compared by."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

#: The begin of a record in Scrapy's own format.
_RECORD: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[(?P<logger>[^]\n]+)\] (?P<level>[A-Z]+): ")
#: A line of a traceback that says where in the code it was.
_FRAME: Final = re.compile(r'  File "(?P<file>[^"]+)", line \d+, in ')
#: A Python warning, which goes to stderr beside the log.
_WARNING: Final = re.compile(r"\S+:\d+: \w*Warning: ")
#: Where in the code a Python warning comes from, with the line's text under it.
_PLACE: Final = re.compile(r"^\S+:\d+: (\w*Warning: .*)\n  .*$", re.DOTALL)
#: The address of an object, as ``repr`` shows it.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
#: Says once, of the first page that has any, which keys of meta are copied, and from where to where: which page that
#: is, is a matter of order.
_COPIES: Final = "scrapy.spidermiddlewares.metacopy"
_COPY: Final = re.compile(r"\[.*?\]|<.*?>")
#: What vscrapy says beside the log: which task it is, and so on.
_OURS: Final = "vscrapy: "


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log, its traceback included."""

    logger: str
    level: int
    message: str


def records(stderr: str, project: str) -> Iterator[Record]:
    """
    The records in what a crawl has written to stderr.

    Tracebacks show the project's own frames only: in a crawl process, other code of Scrapy and vscrapy is below them.

    Args:
        project: The project's directory; in messages it shows as PROJECT.
    """
    lines: list[str] = []
    for line in [*stderr.splitlines(), "0000-00-00 00:00:00 [end] INFO: "]:
        if _RECORD.match(line):
            if lines:
                yield _record(lines, project)
            lines = [line]
        elif lines and not line.startswith(_OURS):
            lines.append(line)


def _record(lines: Sequence[str], project: str) -> Record:
    found = _RECORD.match(lines[0])
    assert found is not None
    message = [lines[0][found.end() :], *_without_foreign_frames(lines[1:], project)]
    text = _ADDRESS.sub(" at 0x", "\n".join(message).replace(project, "PROJECT"))
    if found["logger"] == "py.warnings":
        text = _PLACE.sub(r"\1", text)
    if found["logger"] == _COPIES:
        text = _COPY.sub("...", text)
    return Record(found["logger"], getattr(logging, found["level"], 0), text)


def _without_foreign_frames(lines: Sequence[str], project: str) -> Iterator[str]:
    is_skipping = False
    for line in lines:
        frame = _FRAME.match(line)
        if frame or _WARNING.match(line):
            is_skipping = frame is None or not frame["file"].startswith(project)
        elif not line.startswith("    "):
            is_skipping = False
        if not is_skipping:
            yield line
