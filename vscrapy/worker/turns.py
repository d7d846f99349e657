"""
Fair shares: which crawl processes here could leave, so that a task that waits gets a slot.

A task that waits takes from the tasks that have more; where each has one process, they take turns. Every agent thinks
so by itself; that only one process leaves for a task is decided on Redis (``promise.lua``, ``yield.lua``).

Pure: it is fed with what was seen and when, and holds no clock and no connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord
from vscrapy.store.workers import Offer

#: Time that a task without a process waits before a slot is freed for it (s): more than two looks of each agent, so
#: that by then whoever has a free slot has taken the task.
WAIT_S: Final = 1.5
#: The same for a task that has processes, and fewer than others (s): what waits in its frontier comes and goes.
GROW_WAIT_S: Final = 5.0
#: A task's turn, while others wait and each has one process (s).
TURN_S: Final = 30.0
#: Turns after which a process may go that has not finished anything; it could wait for ever.
MOST_TURNS: Final = 10


@dataclass(frozen=True, slots=True)
class Holder:
    """A crawl process that holds a slot here, and was not asked to leave."""

    taskid: int
    process: str
    #: Its number in the task.
    number: int
    #: When it took the slot (s).
    since_s: float


@dataclass(frozen=True, slots=True)
class Plea:
    """A task that wants a slot, and who could leave for it, the best first."""

    taskid: int
    #: Processes that it was seen to have.
    processes: int
    offers: Sequence[Offer]
    #: What the task's log says of the one that leaves, by the offer.
    reasons: Mapping[Offer, str]


class Turns:
    """
    What one agent has seen of the tasks that want a slot.

    Args:
        turn_s: A task's turn (s).
    """

    def __init__(self, turn_s: float = TURN_S) -> None:
        self._turn_s = turn_s
        #: Since when a task wants one more process than it has (s).
        self._since_s: dict[tuple[int, int], float] = {}

    def look(
        self,
        now_s: float,
        now_ms: int,
        wanting: Iterable[TaskRecord],
        records: Mapping[int, TaskRecord],
        holders: Sequence[Holder],
    ) -> list[Plea]:
        """
        Take what was seen; give the tasks for which somebody here could leave now, in their order.

        Args:
            now_s: Time of a clock that never goes back.
            now_ms: Redis time, as in the records.
            wanting: Tasks that would take one more process, and could take it here.
            records: All tasks that have not ended.
            holders: The crawl processes here.
        """
        ordered = sorted(wanting, key=turn)
        self._since_s = {
            (record.taskid, record.processes): self._since_s.get((record.taskid, record.processes), now_s)
            for record in ordered
        }
        pleas = []
        for record in ordered:
            waited_s = now_s - self._since_s[record.taskid, record.processes]
            if waited_s >= (GROW_WAIT_S if record.processes else WAIT_S) and record.promised_until_ms <= now_ms:
                reasons = self._offers(record, waited_s, now_s, records, holders)
                if reasons:
                    pleas.append(Plea(record.taskid, record.processes, list(reasons), reasons))
        return pleas

    def _offers(
        self,
        wanting: TaskRecord,
        waited_s: float,
        now_s: float,
        records: Mapping[int, TaskRecord],
        holders: Sequence[Holder],
    ) -> dict[Offer, str]:
        """Those who could leave for a task, the best first, and why."""
        #: Something is in the way of what would be best.
        is_pressing = waited_s >= self._turn_s
        most = max(
            (record.processes for record in records.values() if record.state in _HOLDING and record is not wanting),
            default=0,
        )
        found: list[tuple[tuple[float, ...], Offer, str]] = []
        for holder in holders:
            record = records.get(holder.taskid)
            if record is None or record.state not in _HOLDING or record.taskid == wanting.taskid:
                continue
            age_s = now_s - holder.since_s
            if record.state is TaskState.PAUSED and not wanting.processes:
                offer = Offer(holder.taskid, holder.process, 0)
                words = f"task {wanting.taskid} waits for a slot, and this task is paused"
                found.append(((0, -holder.number), offer, words))
            elif record.processes == most and most - wanting.processes >= 2:
                least = wanting.processes + 1
                offer = Offer(holder.taskid, holder.process, least, is_start_spared=not is_pressing)
                words = f"task {wanting.taskid} waits for a slot, and this task has {record.processes}"
                found.append(((1, -holder.number), offer, words))
            elif not wanting.processes and age_s >= self._turn_s and (most < 2 or is_pressing):
                is_long = age_s >= MOST_TURNS * self._turn_s
                offer = Offer(holder.taskid, holder.process, 0, is_long=is_long)
                words = f"it has had its turn, and task {wanting.taskid} waits for a slot; this task goes on after it"
                found.append(((2, holder.since_s), offer, words))
        return {offer: words for _, offer, words in sorted(found, key=lambda one: one[0])}


def turn(record: TaskRecord) -> tuple[int, int, int]:
    """The order in which tasks get a free slot: who has the fewest processes, and of these who waits longest."""
    return record.processes, record.waits_since_ms, record.taskid


#: States in which the processes of a task hold slots that others may need.
_HOLDING: Final = (TaskState.RUNNING, TaskState.PAUSED)
