"""Who leaves so that a task that waits gets a slot: as the agent thinks, from what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord
from vscrapy.worker.turns import GROW_WAIT_S, MOST_TURNS, TURN_S, WAIT_S, Holder, Plea, Turns, turn

#: Redis time of all looks (ms).
NOW_MS = 1_000_000
#: A long time ago, by the agent's clock (s).
LONG_AGO_S = -10 * MOST_TURNS * TURN_S


def task(taskid: int, processes: int, **fields: Any) -> TaskRecord:
    """A task that runs, or waits; it would grow for ever."""
    nothing = ("created_ms", "ended_ms", "sender_ms", "sender_timeout_ms", "leased", "exit_code", "pages", "items")
    values: dict[str, Any] = {
        **dict.fromkeys((*nothing, "errors", "max_processes"), 0),
        "spider": "books",
        "state": TaskState.RUNNING,
        "reason": "",
        "is_attached": False,
        "queued": 1000,
        "capacity": 16,
        "stop_mode": None,
        "protocol": 1,
    }
    return TaskRecord(taskid=taskid, processes=processes, **{**values, **fields})


def holder(taskid: int, number: int = 1, since_s: float = 0.0) -> Holder:
    """A crawl process here."""
    return Holder(taskid, f"{taskid}-{number}", number, since_s)


def pleas(
    records: Sequence[TaskRecord],
    holders: Sequence[Holder],
    *,
    wanting: Sequence[int],
    after_s: float = WAIT_S,
) -> list[Plea]:
    """Look twice, *after_s* apart."""
    turns, seen = Turns(), {record.taskid: record for record in records}
    wanted = [seen[taskid] for taskid in wanting]
    assert turns.look(0.0, NOW_MS, wanted, seen, holders) == []
    return turns.look(after_s, NOW_MS, wanted, seen, holders)


def leaving(found: Sequence[Plea]) -> list[tuple[int, list[str]]]:
    """For whom who could leave."""
    return [(plea.taskid, [offer.process for offer in plea.offers]) for plea in found]


def test_task_without_a_process_takes_from_the_one_with_the_most() -> None:
    """The youngest process first; one of its own kind must stay, and rather the one that runs start()."""
    records = [task(1, 3), task(2, 2), task(3, 0)]
    found = pleas(records, [holder(1, 1), holder(1, 3), holder(2, 1)], wanting=[3])
    assert leaving(found) == [(3, ["1-3", "1-1"])]
    assert [(offer.least, offer.is_start_spared) for offer in found[0].offers] == [(1, True), (1, True)]
    assert set(found[0].reasons.values()) == {"task 3 waits for a slot, and this task has 3"}


def test_nobody_leaves_before_all_agents_could_have_taken_the_task() -> None:
    """Somewhere a slot may be free."""
    assert pleas([task(1, 2), task(2, 0)], [holder(1)], wanting=[2], after_s=WAIT_S - 0.1) == []


def test_nobody_leaves_for_a_task_that_another_one_leaves_for() -> None:
    """As the record says."""
    records = [task(1, 2), task(2, 0, promised_until_ms=NOW_MS + 1)]
    assert pleas(records, [holder(1)], wanting=[2]) == []


def test_nobody_leaves_where_no_process_is_of_the_task_with_the_most() -> None:
    """Another agent has those."""
    assert pleas([task(1, 3), task(2, 2), task(3, 0)], [holder(2)], wanting=[3]) == []


@pytest.mark.parametrize(("most", "is_asked"), [(2, False), (3, True)])
def test_task_with_fewer_processes_takes_from_one_that_has_two_more(most: int, is_asked: bool) -> None:
    """Not from one that has only one more: they would change places for ever."""
    found = pleas([task(1, most), task(2, 1)], [holder(1)], wanting=[2], after_s=GROW_WAIT_S)
    assert leaving(found) == ([(2, ["1-1"])] if is_asked else [])
    assert [offer.least for plea in found for offer in plea.offers] == ([2] if is_asked else [])


def test_task_that_grows_waits_longer_and_anew_when_it_got_a_process() -> None:
    """What waits in a frontier comes and goes."""
    assert pleas([task(1, 4), task(2, 1)], [holder(1)], wanting=[2], after_s=GROW_WAIT_S - 0.1) == []
    turns, holders = Turns(), [holder(1)]
    for now_s, processes in ((0.0, 1), (GROW_WAIT_S - 0.1, 2), (GROW_WAIT_S + 0.1, 2)):
        records = {1: task(1, 5), 2: task(2, processes)}
        assert turns.look(now_s, NOW_MS, [records[2]], records, holders) == []


def test_task_that_stopped_to_want_waits_anew() -> None:
    """It was not to be seen in between."""
    turns, records, holders = Turns(), {1: task(1, 2), 2: task(2, 0)}, [holder(1)]
    for now_s, wanting in ((0.0, [records[2]]), (1.0, []), (2.0, [records[2]])):
        assert turns.look(now_s, NOW_MS, wanting, records, holders) == []


@pytest.mark.parametrize(("age_s", "offered"), [(TURN_S - 1, []), (TURN_S, ["1-1"])])
def test_turns_are_taken_where_each_has_one(age_s: float, offered: list[str]) -> None:
    """Who has had its turn may go, and nobody of its task need stay."""
    found = pleas([task(1, 1), task(2, 0)], [holder(1, 1, WAIT_S - age_s)], wanting=[2])
    assert leaving(found) == ([(2, offered)] if offered else [])
    assert [(offer.least, offer.is_long) for plea in found for offer in plea.offers] == [(0, False)] * len(offered)


def test_longest_turn_ends_first() -> None:
    """Of several that have had theirs."""
    holders = [holder(1, 1, -100.0), holder(2, 1, -200.0)]
    assert leaving(pleas([task(1, 1), task(2, 1), task(3, 0)], holders, wanting=[3])) == [(3, ["2-1", "1-1"])]


def test_process_that_has_finished_nothing_in_many_turns_may_go() -> None:
    """Its spider could wait for ever."""
    [plea] = pleas([task(1, 1), task(2, 0)], [holder(1, 1, LONG_AGO_S)], wanting=[2])
    assert [offer.is_long for offer in plea.offers] == [True]


def test_turns_are_not_taken_while_a_task_has_more_than_one() -> None:
    """It gives first; unless it does not, for a whole turn."""
    records, holders = [task(1, 2), task(2, 1), task(3, 0)], [holder(2, 1, LONG_AGO_S)]
    assert pleas(records, holders, wanting=[3]) == []
    assert leaving(pleas(records, holders, wanting=[3], after_s=TURN_S)) == [(3, ["2-1"])]


def test_start_is_not_spared_when_nobody_else_has_left_for_a_turn() -> None:
    """Better a start() that is read twice than a task that never begins."""
    [plea] = pleas([task(1, 2), task(2, 0)], [holder(1)], wanting=[2], after_s=TURN_S)
    assert [offer.is_start_spared for offer in plea.offers] == [False]


def test_paused_task_gives_first_and_to_the_last() -> None:
    """Its processes do nothing; but not for one that only grows."""
    records = [task(1, 1, state=TaskState.PAUSED), task(2, 3), task(3, 0), task(4, 1)]
    holders = [holder(2), holder(1)]
    assert leaving(pleas(records, holders, wanting=[3])) == [(3, ["1-1", "2-1"])]
    assert leaving(pleas(records, holders, wanting=[4], after_s=GROW_WAIT_S)) == [(4, ["2-1"])]


@pytest.mark.parametrize("state", [TaskState.STOPPING, TaskState.STORING, TaskState.FINISHED])
def test_task_that_ends_gives_nothing(state: TaskState) -> None:
    """Its slots are free soon."""
    assert pleas([task(1, 3, state=state), task(2, 0)], [holder(1, 1, LONG_AGO_S)], wanting=[2]) == []


def test_free_slot_goes_to_the_fewest_processes_then_to_the_longest_wait() -> None:
    """A task that has just had its turn is at the end."""
    records = [
        task(1, 1),
        task(2, 0, waits_since_ms=30),
        task(3, 0, waits_since_ms=20),
        task(4, 0, waits_since_ms=30),
    ]
    assert [record.taskid for record in sorted(records, key=turn)] == [3, 2, 4, 1]
