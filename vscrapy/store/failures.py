"""Requests that failed for good: a bounded list for each task."""

from __future__ import annotations

from dataclasses import dataclass

from vscrapy import keys
from vscrapy.store.base import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that failed for good."""

    #: In the order of their commits, from 1.
    number: int
    #: The signed :class:`~vscrapy.wire.Failure`.
    signed: bytes
    #: Not so when it could not be serialised.
    is_retryable: bool


class Failures:
    """The lists of tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, taskid: int) -> tuple[list[Entry], int]:
        """Read a task's list, the oldest first; and how many still older ones were dropped."""
        dropped, flat = self._store.run("failures", [keys.task(taskid), keys.failures(taskid)], [])
        entries = [
            Entry(int(number), signed, bool(is_retryable))
            for number, signed, is_retryable in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]
        return entries, int(dropped)
