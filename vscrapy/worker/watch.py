"""
What the agent concludes from its looks at the tasks: which senders are lost, which processes are overdue, which
lines are relayed.

Pure: it is fed with what was seen and when, and holds no clock and no connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vscrapy.model import PROTOCOL
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.tasks import TaskRecord
from vscrapy.valve import Valve

#: Time without a subscriber on the sender's channel after which the sender is lost (ms).
GRACE_MS: Final = 2500
#: The same after Redis was away or restarted: senders need time to come back (ms).
RETURN_GRACE_MS: Final = 5000
#: Longest time between two looks in unbroken contact (ms); after a longer one, this agent was suspended.
GAP_MS: Final = 4000
#: Time that a sender has to subscribe after it has submitted its task (ms).
ARRIVAL_MS: Final = 1000
#: Time that a crawl process has to see that its task has ended (s).
ENDED_S: Final = 2.0
#: Time to close spiders in, when a task does not say (``VSCRAPY_CLOSE_TIMEOUT``) (s).
CLOSE_TIMEOUT_S: Final = 180.0
#: The same when its sender is lost: nobody waits for slow pages in flight, and all is over 5 s after the sender (s).
LOST_CLOSE_TIMEOUT_S: Final = 1.0

#: Time without a follower after which a task counts as not followed (ms): who loses its connection comes back.
UNFOLLOWED_MS: Final = 2500

#: A task with a sender that may be lost; one that is stopping has its reason already.
_WATCHED: Final = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.PAUSED})


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at Redis showed."""

    #: Redis time (ms).
    now_ms: int
    #: Identity of the server process.
    server_id: str
    #: Ids that stand in the registry of live tasks, oldest first.
    live: tuple[int, ...]
    #: Records of the live tasks and of those that run here; without one: gone, or not made yet.
    records: Mapping[int, TaskRecord]
    #: Subscribers of the sender's channel, of the tasks whose sender is watched.
    subscribers: Mapping[int, int] = field(default_factory=dict)
    #: Followers, of the tasks whose followers are counted.
    followers: Mapping[int, int] = field(default_factory=dict)


def with_watched_sender(records: Iterable[TaskRecord], here: frozenset[int]) -> list[int]:
    """Choose the tasks whose senders this agent watches: those that run here, and those that run nowhere."""
    return [
        record.taskid
        for record in records
        if record.is_attached
        and record.state in _WATCHED
        and (record.taskid in here or record.processes == 0)
        # Its own workers end it, who know how.
        and record.protocol == PROTOCOL
    ]


def with_counted_followers(records: Iterable[TaskRecord], here: frozenset[int]) -> list[int]:
    """Choose the tasks of which this agent must know whether somebody follows: those that run here, or soon may."""
    return [
        record.taskid
        for record in records
        if not record.is_attached
        and record.valve is Valve.AUTO
        and (record.taskid in here or record.is_growing or record.wants_home)
    ]


class Attendance:
    """Decides from which level on the lines of each task are relayed."""

    def __init__(self) -> None:
        #: When a task was last seen to have a follower (ms).
        self._followed_ms: dict[int, int] = {}

    def look(self, look: Look) -> dict[int, int]:
        """Take what was seen; give the level of each task."""
        self._followed_ms |= {taskid: look.now_ms for taskid, count in look.followers.items() if count}
        self._followed_ms = {
            taskid: ms for taskid, ms in self._followed_ms.items() if 0 <= look.now_ms - ms < UNFOLLOWED_MS
        }
        return {
            taskid: record.valve.least(is_attended=record.is_attached or taskid in self._followed_ms)
            for taskid, record in look.records.items()
        }


class SenderWatch:
    """
    Decides that a sender is lost; Redis being away is never read as that.

    Only unbroken contact counts: it begins anew after a look that failed, with another server process, and
    after a gap in Redis's time, which is how a suspended machine shows.
    """

    def __init__(self) -> None:
        self._server_id = ""
        self._last_ms = 0
        self._since_ms: int | None = None
        self._grace_ms = GRACE_MS
        #: Since when a task's channel has no subscriber (ms).
        self._alone_ms: dict[int, int] = {}

    def broken(self) -> None:
        """A look failed."""
        self._since_ms = None
        self._grace_ms = RETURN_GRACE_MS
        self._alone_ms.clear()

    def look(self, look: Look) -> list[int]:
        """Take what was seen; give the tasks whose sender is lost."""
        if self._since_ms is not None and (
            look.server_id != self._server_id or not 0 <= look.now_ms - self._last_ms <= GAP_MS
        ):
            self.broken()
        if self._since_ms is None:
            self._since_ms = look.now_ms
        self._server_id, self._last_ms = look.server_id, look.now_ms
        self._alone_ms = {
            taskid: self._alone_ms.get(taskid, look.now_ms)
            for taskid, count in look.subscribers.items()
            if count == 0
        }
        return [
            taskid
            for taskid in look.subscribers
            if taskid in look.records and self._is_lost(look.records[taskid], look.now_ms, self._since_ms)
        ]

    def is_absent(self, record: TaskRecord) -> bool:
        """Did the last look miss the task's sender? It may come back, but nothing is started for it before."""
        is_alone = record.taskid in self._alone_ms and self._last_ms - record.created_ms > ARRIVAL_MS
        is_silent = record.is_attached and self._last_ms - record.sender_ms > record.sender_timeout_ms
        return is_alone or is_silent

    def _is_lost(self, record: TaskRecord, now_ms: int, since_ms: int) -> bool:
        alone_ms = self._alone_ms.get(record.taskid)
        if alone_ms is not None and now_ms - alone_ms >= self._grace_ms:
            return True
        return now_ms - max(record.sender_ms, since_ms) > record.sender_timeout_ms


class Overdue:
    """Decides that the crawl processes of a task have had their time to end."""

    def __init__(self) -> None:
        #: Since when a task is seen to be ending, and how: ``ended`` or ``stopping``.
        self._since_s: dict[tuple[int, str], float] = {}

    def look(
        self, now_s: float, close_timeouts_s: Mapping[int, float], records: Mapping[int, TaskRecord]
    ) -> dict[int, str]:
        """
        Take what was seen of the tasks that run here.

        Args:
            now_s: Time of a clock that never goes back.
            close_timeouts_s: The tasks that run here, and how long each may take to close its spiders.

        Returns:
            Tasks whose processes are to be killed, and why.
        """
        seen = {taskid: _ending(records.get(taskid)) for taskid in close_timeouts_s}
        self._since_s = {
            (taskid, ending): self._since_s.get((taskid, ending), now_s) for taskid, ending in seen.items() if ending
        }
        overdue = {}
        for (taskid, ending), since_s in self._since_s.items():
            record = records.get(taskid)
            if ending == "ended" and now_s - since_s >= ENDED_S:
                overdue[taskid] = "its task has ended"
            elif ending == "stopping" and record is not None:
                if record.stop_mode is StopMode.FORCED:
                    overdue[taskid] = "its task was stopped at once"
                    continue
                patience_s = close_timeouts_s[taskid]
                if record.reason == Reason.SENDER_LOST:
                    patience_s = min(patience_s, LOST_CLOSE_TIMEOUT_S)
                if now_s - since_s > patience_s:
                    overdue[taskid] = f"its spider did not close within {patience_s:g} s"
        return overdue


def _ending(record: TaskRecord | None) -> str:
    """Say whether and how a task is ending."""
    if record is None or record.state in (TaskState.FINISHED, TaskState.SUSPENDED):
        return "ended"
    is_forced = record.state is TaskState.STORING and record.stop_mode is StopMode.FORCED
    return "stopping" if record.state is TaskState.STOPPING or is_forced else ""
