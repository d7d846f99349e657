"""What stands in a task's two streams, its log and its items; read without redis-py."""

from __future__ import annotations

import json
from dataclasses import dataclass

from vscrapy.errors import NotVerified
from vscrapy.shown import shown
from vscrapy.wire import LogLine, decode_lines


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Some lines of a task's log, in order; or that it was confirmed, or a crawl process has joined; or its end."""

    cursor: str
    #: Number of the first line, counted from 0 over the whole task.
    first: int = 0
    lines: tuple[LogLine, ...] = ()
    #: A crawl process is about to open its spider: all that its project makes is there.
    is_joined: bool = False
    #: Set on the last entry: the task has ended so.
    end: EndRecord | None = None
    #: Why nothing of the entry is given; '': there is nothing wrong with it.
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class EndRecord:
    """How a task ended."""

    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class ItemsEntry:
    """One signed batch of items."""

    cursor: str
    n_items: int
    signed: bytes


def log_entry(cursor: bytes, fields: dict[bytes, bytes], key: bytes) -> LogEntry:
    """Read an entry of a log; one that is not signed with *key*, or none at all, comes out as a refusal."""
    try:
        if b"end" in fields:
            end = json.loads(fields[b"end"])
            return LogEntry(cursor.decode(), end=EndRecord(shown(str(end["reason"])), int(end["exit_code"])))
        if b"joined" in fields or b"confirmed" in fields:
            return LogEntry(cursor.decode(), int(fields[b"first"]), is_joined=b"joined" in fields)
        return LogEntry(cursor.decode(), int(fields[b"first"]), decode_lines(fields[b"lines"], key))
    except NotVerified as error:
        return LogEntry(cursor.decode(), refusal=str(error))
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        return LogEntry(cursor.decode(), refusal=f"it is no entry of a log ({type(error).__name__})")


def items_entry(cursor: bytes, fields: dict[bytes, bytes]) -> ItemsEntry:
    """What is no batch comes out as one that is not signed: whoever takes it refuses it."""
    n_items = fields.get(b"n", b"")
    return ItemsEntry(cursor.decode(), int(n_items) if n_items.isdigit() else 0, fields.get(b"items", b""))
