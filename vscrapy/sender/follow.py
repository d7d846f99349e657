"""
Follow a task: its log lines and its items as they come, until its end record.

The stream ids are the cursors, so nothing is missed or seen twice when the connection is lost. Lines that were
cut from the log before they were read show as a cut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.model import Endpoint
from vscrapy.sender.terminal import Terminal
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord, ItemsEntry, LogEntry
from vscrapy.store.streams import BEGINNING, Cursors, Streams

#: Longest wait for news (milliseconds).
WAIT_MS: Final = 1000
#: Time between two tries when Redis is away (seconds).
RETRY_S: Final = 0.2
#: Time between two trims of the items that home has taken (seconds).
TRIM_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Home:
    """Where a follower's items go."""

    #: Lets home open its spider, for a crawl process is about to; called once, before the first batch.
    open: Callable[[], None]
    #: Takes one batch; may block while home is busy.
    take: Callable[[ItemsEntry], None]
    #: The cursor of the last batch that is through the pipelines and exporters; '' when there is none.
    done: Callable[[], str]
    #: Writes what is through to the feeds' files; before it is dropped from Redis.
    flush: Callable[[], None]


class Follower:
    """
    Reads one task's streams.

    Args:
        home: Takes the items; None: they are left alone.
        start: Where to begin.
        n_shown: So many lines of the first entry behind that have been shown.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        taskid: int,
        terminal: Terminal,
        *,
        home: Home | None = None,
        start: str = BEGINNING,
        n_shown: int = 0,
    ) -> None:
        self._taskid = taskid
        self._terminal = terminal
        self._home = home
        self._store = Store(endpoint, name=f"vscrapy-follow-{taskid}")
        self._streams = Streams(self._store)
        self._cursors = Cursors(log=start)
        self._is_opened = False
        self._n_shown = n_shown
        self._next_line: int | None = 0 if start == BEGINNING else None
        self._trimmed = ""
        self._trimmed_s = 0.0
        self._gone = threading.Event()
        self._is_lost = False
        #: Entries of the log that were not shown: somebody else has written them.
        self.n_refused = 0

    def gone(self) -> None:
        """The task is not on Redis any more: no end record will come. From any thread."""
        self._gone.set()

    def run(self, is_wanted: Callable[[], bool] = lambda: True) -> EndRecord | None:
        """
        Show and hand on what comes, until the end.

        Args:
            is_wanted: Asked at least once a second; when it says no, following ends.

        Returns:
            How the task ended; None when following ended before, or the task is gone.
        """
        while is_wanted():
            try:
                logs, items = self._streams.read(
                    self._taskid, self._cursors, with_items=self._home is not None, block_ms=WAIT_MS
                )
                self._found()
            except (StoreUnavailable, StoreRefused) as error:
                self._lost(error)
                continue
            if items or any(entry.is_joined for entry in logs):
                self._open()
            self._take_items(items)
            end = self._show(logs)
            if end is not None:
                self._drain()
                return end
            if self._gone.is_set() and not (logs or items):
                self._terminal.tell(f"task {self._taskid} is not on Redis any more; did it lose its data?")
                return None
            self._trim()
        return None

    def replay(self, most: int) -> EndRecord | None:
        """Show the last *most* lines, and go on after them; the end record if the task has ended."""
        entries = self._streams.last_lines(self._taskid, most)
        n_lines = sum(len(entry.lines) for entry in entries)
        if n_lines < most and entries and entries[0].first:
            self._terminal.show_cut(entries[0].first)
        end = None
        for entry in entries:
            if entry.refusal:
                self._show([entry])
                continue
            skip = max(0, min(len(entry.lines), n_lines - most))
            n_lines -= len(entry.lines)
            kept = replace(entry, first=entry.first + skip, lines=entry.lines[skip:])
            if self._next_line is None or self._next_line == 0:
                self._next_line = kept.first
            end = self._show([kept]) or end
            n_lines += len(kept.lines)
        return end

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()

    def _show(self, logs: list[LogEntry]) -> EndRecord | None:
        for entry in logs:
            self._cursors = replace(self._cursors, log=entry.cursor)
            if entry.end is not None:
                return entry.end
            if entry.refusal:
                self._refuse(entry.refusal)
                continue
            if self._next_line is not None and entry.first > self._next_line:
                self._terminal.show_cut(entry.first - self._next_line)
                self._open()  # what was cut may have told of it
            self._next_line = entry.first + len(entry.lines)
            for line in entry.lines[self._n_shown :]:
                self._terminal.show(line)
            self._n_shown = 0
        return None

    def _open(self) -> None:
        if self._home is not None and not self._is_opened:
            self._is_opened = True
            self._home.open()

    def _refuse(self, why: str) -> None:
        """Tell of the first entry that is not shown; whoever writes there may write a great deal."""
        self.n_refused += 1
        if self.n_refused == 1:
            self._terminal.tell(f"some lines of task {self._taskid}'s log are not shown: {why}; this is told once")

    def _take_items(self, items: list[ItemsEntry]) -> None:
        for entry in items:
            assert self._home is not None
            self._home.take(entry)
            self._cursors = replace(self._cursors, items=entry.cursor)

    def _drain(self) -> None:
        """After the end record no items are added: take those that are there."""
        while self._home is not None:
            try:
                _, items = self._streams.read(self._taskid, self._cursors, with_items=True)
            except (StoreUnavailable, StoreRefused) as error:
                self._lost(error)
                continue
            self._take_items(items)
            if not items:
                return

    def _trim(self) -> None:
        if self._home is None or time.monotonic() - self._trimmed_s < TRIM_S:
            return
        done = self._home.done()
        if done and done != self._trimmed:
            self._home.flush()
            try:
                self._streams.fetched_items(self._taskid, done, is_drop=True)
            except (StoreUnavailable, StoreRefused):
                return  # the next read tells that Redis is away; trimming only frees memory
            self._trimmed = done
        self._trimmed_s = time.monotonic()

    def _lost(self, error: Exception) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._terminal.tell(f"{error}; waiting for it")
        time.sleep(RETRY_S)

    def _found(self) -> None:
        if self._is_lost:
            self._is_lost = False
            self._terminal.tell("Redis answers again")
