"""
The record of every request that the site answered, and of how many it answered at once.

A request is active from `enter` to `leave`. The peak is the largest number of active
requests since the log was made or cleared; requests that are active while it is cleared
count on, and are recorded when they end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class Arrival:
    """The half of an entry that is known when a request arrives."""

    method: str
    #: The path as the client wrote it, without the query.
    path: str
    #: The query as the client wrote it.
    query: str
    #: The remote port: requests with the same one came over the same connection.
    connection: int
    session: str | None
    user_agent: str
    start_wall_s: float
    start_monotonic_s: float


@dataclass(frozen=True)
class Entry(Arrival):
    """A request that has ended."""

    #: The status sent; 0 when the connection was closed without an answer.
    status: int
    #: Whether the client was gone, or was hung up on, before the answer was complete.
    is_aborted: bool
    end_wall_s: float
    end_monotonic_s: float


class AccessLog:
    """All entries since the last `clear`, in the order in which the requests ended."""

    def __init__(
        self,
        file: TextIO | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Log to memory, and to *file* as JSON lines when there is one."""
        self._file = file
        self._wall = wall
        self._monotonic = monotonic
        self._entries: list[Entry] = []
        self._active = 0
        self._peak = 0

    def enter(
        self,
        *,
        method: str,
        path: str,
        query: str,
        connection: int,
        session: str | None,
        user_agent: str,
    ) -> Arrival:
        """Note that a request has arrived; `leave` takes what this returns."""
        self._active += 1
        self._peak = max(self._peak, self._active)
        return Arrival(
            method=method,
            path=path,
            query=query,
            connection=connection,
            session=session,
            user_agent=user_agent,
            start_wall_s=self._wall(),
            start_monotonic_s=self._monotonic(),
        )

    def leave(self, arrival: Arrival, *, status: int, is_aborted: bool) -> None:
        """Note that a request has ended."""
        self._active -= 1
        entry = Entry(
            **asdict(arrival),
            status=status,
            is_aborted=is_aborted,
            end_wall_s=self._wall(),
            end_monotonic_s=self._monotonic(),
        )
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()

    def clear(self) -> None:
        """Forget the entries, and count the peak anew; the file keeps its lines."""
        self._entries.clear()
        self._peak = self._active

    def as_json(self) -> dict[str, Any]:
        """Return ``entries``, ``peak`` and ``active``, ready for JSON."""
        return {
            "entries": [asdict(entry) for entry in self._entries],
            "peak": self._peak,
            "active": self._active,
        }
