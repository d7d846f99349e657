"""
The states of a task and the moves between them, as one table.

The moves are made by the scripts in ``store/scripts``; a test holds them against this table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task is in its life."""

    #: Submitted; no crawl process has been started for it.
    QUEUED = "queued"
    #: At least one crawl process has been started; it may be without one for a while.
    RUNNING = "running"
    #: No leases are given and no crawl process is started; it goes on after ``resume``.
    PAUSED = "paused"
    #: A reason to end is known; crawl processes are closing their spiders.
    STOPPING = "stopping"
    #: No crawl process is left, and the frontier stays: the same command, with its JOBDIR, goes on with it.
    SUSPENDED = "suspended"
    #: No crawl process is left, and the frontier is freed; home writes the feeds of a detached task.
    STORING = "storing"
    #: All is done. Reason and exit code stand.
    FINISHED = "finished"


#: From each state, the states that may follow it.
MOVES: Final[dict[TaskState, frozenset[TaskState]]] = {
    TaskState.QUEUED: frozenset({TaskState.RUNNING, TaskState.PAUSED, TaskState.SUSPENDED, TaskState.FINISHED}),
    TaskState.RUNNING: frozenset(
        {TaskState.PAUSED, TaskState.STOPPING, TaskState.SUSPENDED, TaskState.STORING, TaskState.FINISHED}
    ),
    TaskState.PAUSED: frozenset(
        {
            *(TaskState.QUEUED, TaskState.RUNNING, TaskState.STOPPING),
            *(TaskState.SUSPENDED, TaskState.STORING, TaskState.FINISHED),
        }
    ),
    TaskState.STOPPING: frozenset({TaskState.SUSPENDED, TaskState.STORING, TaskState.FINISHED}),
    TaskState.SUSPENDED: frozenset({TaskState.QUEUED, TaskState.STORING, TaskState.FINISHED}),
    TaskState.STORING: frozenset({TaskState.FINISHED}),
    TaskState.FINISHED: frozenset(),
}


class StopMode(StrEnum):
    """How the crawl processes of a stopping task end."""

    #: As Scrapy closes: what is in flight is finished and committed.
    GRACEFUL = "graceful"
    #: At once; what is in flight is lost with the task.
    FORCED = "forced"


class Reason(StrEnum):
    """Reasons that vscrapy itself gives for the end of a task. A spider may close with any other word."""

    FINISHED = "finished"
    #: Ctrl-C, SIGTERM or ``vscrapy stop``; Scrapy's own word for it.
    SHUTDOWN = "shutdown"
    SENDER_LOST = "sender_lost"
    #: The crawl did not come to its first request: the project does not import, or the spider raised.
    FAILED = "failed"
    #: Crawl processes died again and again without finishing a single request.
    CRASHED = "crashed"
