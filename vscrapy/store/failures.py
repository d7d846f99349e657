"""Requests that failed for good: a bounded list for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vscrapy import keys
from vscrapy.errors import TaskGone
from vscrapy.store.base import Store, text
from vscrapy.store.connection import translate
from vscrapy.store.frontier import NewRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that failed for good."""

    #: In the order of their commits, from 1.
    number: int
    #: The signed :class:`~vscrapy.wire.Failure`.
    signed: bytes
    #: Not so when it could not be serialised.
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of requests that were to be put back."""

    #: The task that is to run them, when theirs has ended; None: they are in the frontier of their own.
    taskid: int | None
    numbers: Sequence[int]


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

    def requests(self, taskid: int, numbers: Sequence[int]) -> dict[int, NewRequest]:
        """What would be put back of these requests, signed for this task."""
        client = self._store.client
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.xrange(keys.failures(taskid), f"{number}-0", f"{number}-0")
        with translate(self._store.endpoint):
            replies = pipeline.execute() if numbers else []
        return {
            number: NewRequest(text(fields[b"slot"]), text(fields[b"queue"]), fields[b"payload"])
            for number, reply in zip(numbers, replies, strict=True)
            for _, fields in reply
            if b"payload" in fields
        }

    def retry(self, taskid: int, numbers: Sequence[int], *, new_taskid: int = 0) -> Retried | None:
        """
        Put requests back into the frontier of their task. Safe to call again.

        Args:
            numbers: Those that are not in the list any more, or cannot be put back, are left out.
            new_taskid: The task that runs them if theirs has ended. What is returned then is to be carried out,
                and ended with :meth:`retried`; it may be what an earlier call left to be carried out.

        Returns:
            None when the task is about to end, or has ended and no *new_taskid* is given: nothing was done.

        Raises:
            TaskGone: There is no such task.

        Keys: moves payloads from ``failures(task)`` to the queues of the frontier.
        """
        what, other, found = self._store.run(
            "retry",
            [keys.task(taskid), keys.failures(taskid)],
            [keys.prefix(taskid), new_taskid, *numbers],
        )
        if what == b"gone":
            raise TaskGone(f"task {taskid} does not exist (any more); 'vscrapy -l' lists the tasks")
        if what in (b"stopping", b"ended"):
            return None
        return Retried(int(other) if what == b"new" else None, [int(number) for number in found])

    def retried(self, taskid: int, new_taskid: int) -> None:
        """The new task has been made: its requests leave the list of the one that has ended. Safe to repeat."""
        self._store.run("retried", [keys.task(taskid), keys.failures(taskid)], [new_taskid])
