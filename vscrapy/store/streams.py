"""
What a task says and gives: its log lines and its items, each a stream with a cursor.

A stream id is the cursor; whoever reads keeps it, and goes on from there after a lost connection. Lines are signed
here and verified here, for agents, reapers and commands write them; items are signed by crawl processes. The end
record is the scripts', and nobody can sign that: of it only a reason and a number are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from vscrapy import keys
from vscrapy.secret import task_key
from vscrapy.store.base import Store
from vscrapy.store.connection import translate
from vscrapy.store.entries import ItemsEntry, LogEntry, items_entry, log_entry
from vscrapy.wire import LogLine, encode_lines

#: Log lines kept of a task when it does not say otherwise (``VSCRAPY_LOG_KEEP``).
LOG_KEEP: Final = 100_000
#: Bytes of its log that are kept at most.
LOG_KEEP_BYTES: Final = 64 * 1024 * 1024
#: Bytes of a task's items that may wait to be fetched; then the crawl is held (``VSCRAPY_ITEMS_LIMIT``; 0: no limit).
ITEMS_LIMIT_BYTES: Final = 512 * 1024 * 1024
#: The cursor before everything.
BEGINNING: Final = "0-0"


@dataclass(frozen=True, slots=True)
class Cursors:
    """Where a reader stands in a task's two streams."""

    log: str = BEGINNING
    items: str = BEGINNING


class Streams:
    """The streams of tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append_log(self, taskid: int, lines: Sequence[LogLine]) -> bool:
        """Append lines; False when the task is gone or has ended: nothing is written."""
        signed = encode_lines(lines, self._key(taskid))
        return bool(
            self._store.run(
                "log", [keys.task(taskid), keys.log(taskid)], [signed, len(lines), LOG_KEEP, LOG_KEEP_BYTES]
            )
        )

    def _key(self, taskid: int) -> bytes:
        return task_key(self._store.endpoint.secret, taskid)

    def read(
        self, taskid: int, cursors: Cursors, *, with_items: bool, block_ms: int = 0, most: int = 500
    ) -> tuple[list[LogEntry], list[ItemsEntry]]:
        """
        Read the entries after the cursors; where there are none, wait for some.

        Args:
            block_ms: How long. A server that has nothing else to do looks only now and then whose time is up: 4 to 10
                times a second (its ``hz``). 0: not at all.

        Returns:
            Entries of the log and of the items, in their order; both empty when nothing came.
        """
        streams: dict[Any, Any] = {keys.log(taskid): cursors.log}
        if with_items:
            streams[keys.items(taskid)] = cursors.items
        with translate(self._store.endpoint):
            replies: Any = self._store.client.xread(streams, count=most, block=block_ms or None)
        logs: list[LogEntry] = []
        items: list[ItemsEntry] = []
        pairs = replies.items() if isinstance(replies, dict) else replies or ()
        for name, entries in pairs:
            if name.endswith(b":log"):
                logs.extend(log_entry(cursor, fields, self._key(taskid)) for cursor, fields in _flat(entries))
            else:
                items.extend(items_entry(cursor, fields) for cursor, fields in _flat(entries))
        return logs, items

    def last_lines(self, taskid: int, most: int) -> list[LogEntry]:
        """Read the newest entries that together hold at least *most* lines, oldest first."""
        found: list[LogEntry] = []
        n_lines, before = 0, "+"
        while n_lines < most:
            with translate(self._store.endpoint):
                entries: Any = self._store.client.xrevrange(keys.log(taskid), max=before, count=100)
            for cursor, fields in entries:
                entry = log_entry(cursor, fields, self._key(taskid))
                found.append(entry)
                n_lines += len(entry.lines)
                if n_lines >= most:
                    break
            if len(entries) < 100:
                break
            before = "(" + found[-1].cursor
        return found[::-1]

    def fetched_items(self, taskid: int, upto: str, *, is_drop: bool) -> None:
        """
        Note that the items up to the cursor *upto*, included, have been fetched. Safe to repeat.

        Args:
            is_drop: They are not needed here any more.
        """
        self._store.run("fetched", [keys.task(taskid), keys.items(taskid)], [upto, int(is_drop)])


def _flat(entries: Any) -> list[Any]:
    # RESP3 wraps each stream's entries in one more list than RESP2.
    if len(entries) == 1 and entries[0] and isinstance(entries[0][0], (list, tuple)):
        return list(entries[0])
    return list(entries)
