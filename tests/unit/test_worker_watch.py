"""What an agent concludes from its looks: lost senders and overdue processes."""

from __future__ import annotations

from dataclasses import replace

from vscrapy.model import PROTOCOL
from vscrapy.states import StopMode, TaskState
from vscrapy.store.tasks import TaskRecord
from vscrapy.valve import ALL, UNATTENDED, Valve
from vscrapy.worker.watch import (
    UNFOLLOWED_MS,
    Attendance,
    Look,
    Overdue,
    SenderWatch,
    with_counted_followers,
    with_watched_sender,
)

RECORD = TaskRecord(
    taskid=7,
    spider="books",
    state=TaskState.RUNNING,
    reason="",
    exit_code=0,
    is_attached=True,
    created_ms=0,
    ended_ms=0,
    sender_ms=0,
    sender_timeout_ms=20_000,
    queued=0,
    leased=0,
    processes=1,
    capacity=16,
    max_processes=0,
    stop_mode=None,
    protocol=PROTOCOL,
    pages=0,
    items=0,
    errors=0,
)


class Watched:
    """A watch that is fed every half second."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.watch = SenderWatch()
        self.now_ms = now_ms

    def look(self, subscribers: int, *, server: str = "a", sender_ms: int | None = None) -> list[int]:
        """One look, at the present time."""
        record = replace(RECORD, sender_ms=self.now_ms if sender_ms is None else sender_ms)
        return self.watch.look(Look(self.now_ms, server, (7,), {7: record}, {7: subscribers}))

    def lost_after_ms(self, subscribers: int = 0, *, server: str = "a", sender_ms: int | None = None) -> int | None:
        """Look every half second for up to a minute; the time until the sender is lost."""
        begin_ms = self.now_ms
        for _ in range(120):
            if self.look(subscribers, server=server, sender_ms=sender_ms):
                return self.now_ms - begin_ms
            self.now_ms += 500
        return None


def test_sender_without_subscription_is_lost_after_the_grace() -> None:
    """A closed connection counts after 2.5 s."""
    assert Watched().lost_after_ms() == 2500


def test_sender_with_subscription_is_kept() -> None:
    """A sender that is subscribed and gives signs of life is never lost."""
    assert Watched().lost_after_ms(subscribers=1) is None


def test_sender_that_comes_back_gets_a_new_grace() -> None:
    """One look with a subscriber ends the silence."""
    watched = Watched()
    for _ in range(4):
        assert watched.look(0) == []
        watched.now_ms += 500
    assert watched.look(1) == []
    watched.now_ms += 500
    assert watched.lost_after_ms() == 2500


def test_sender_is_not_lost_while_looks_fail() -> None:
    """A failed look starts the time anew, and senders get longer to come back."""
    watched = Watched()
    for _ in range(4):
        assert watched.look(0) == []
        watched.now_ms += 500
    watched.watch.broken()
    watched.now_ms += 3_600_000
    assert watched.lost_after_ms() == 5000


def test_sender_is_not_lost_by_a_restart_between_two_looks() -> None:
    """Another server process is seen as broken contact, even if no look has failed."""
    watched = Watched()
    for _ in range(4):
        assert watched.look(0) == []
        watched.now_ms += 500
    assert watched.lost_after_ms(server="b") == 5000


def test_sender_is_not_lost_by_a_suspended_machine() -> None:
    """After a gap in Redis's time, silence counts from the first look behind it."""
    watched = Watched()
    sender_ms = watched.now_ms
    assert watched.look(1) == []
    watched.now_ms += 3_600_000
    assert watched.lost_after_ms(1, sender_ms=sender_ms) == 20_500


def test_sender_is_not_lost_by_a_clock_that_goes_back() -> None:
    """Redis's clock was set back: the contact begins anew."""
    watched = Watched()
    for _ in range(4):
        assert watched.look(0) == []
        watched.now_ms += 500
    watched.now_ms -= 60_000
    assert watched.lost_after_ms() == 5000


def test_silent_sender_is_lost_after_its_timeout() -> None:
    """A subscription that a silent network keeps open does not help: the sign of life is missing."""
    watched = Watched()
    assert watched.lost_after_ms(subscribers=1, sender_ms=watched.now_ms) == 20_500


def test_old_sign_of_life_counts_from_the_contacts_begin() -> None:
    """An agent that has just come does not blame the sender for the time before."""
    assert Watched().lost_after_ms(subscribers=1, sender_ms=0) == 20_500


def test_watched_are_tasks_here_and_tasks_nowhere() -> None:
    """Attached tasks that run elsewhere only, are stopping, or are detached are not this agent's to watch."""
    records = [
        replace(RECORD, taskid=1),
        replace(RECORD, taskid=2),
        replace(RECORD, taskid=3, processes=0, state=TaskState.QUEUED),
        replace(RECORD, taskid=4, state=TaskState.STOPPING),
        replace(RECORD, taskid=5, is_attached=False),
        replace(RECORD, taskid=6, processes=0, protocol=PROTOCOL + 1),
    ]
    assert with_watched_sender(records, frozenset({1, 4, 5})) == [1, 3]


def test_process_of_an_ended_task_is_overdue_after_2_seconds() -> None:
    """A process has a moment to see by itself that its task has finished."""
    overdue = Overdue()
    finished = {7: replace(RECORD, state=TaskState.FINISHED)}
    assert overdue.look(100.0, {7: 180.0}, finished) == {}
    assert overdue.look(101.9, {7: 180.0}, finished) == {}
    assert overdue.look(102.0, {7: 180.0}, finished) == {7: "its task has ended"}


def test_process_of_a_task_that_is_back_is_not_overdue() -> None:
    """A record that was missing once only kills nothing."""
    overdue = Overdue()
    assert overdue.look(100.0, {7: 180.0}, {}) == {}
    assert overdue.look(101.0, {7: 180.0}, {7: RECORD}) == {}
    assert overdue.look(103.0, {7: 180.0}, {}) == {}


def test_forced_stop_is_overdue_at_once() -> None:
    """Forced means now."""
    record = replace(RECORD, state=TaskState.STOPPING, stop_mode=StopMode.FORCED)
    assert Overdue().look(100.0, {7: 180.0}, {7: record}) == {7: "its task was stopped at once"}


def test_slow_close_is_overdue_after_the_tasks_timeout() -> None:
    """A graceful stop waits as long as the task wants."""
    overdue = Overdue()
    records = {7: replace(RECORD, state=TaskState.STOPPING, stop_mode=StopMode.GRACEFUL)}
    assert overdue.look(100.0, {7: 180.0}, records) == {}
    assert overdue.look(280.0, {7: 180.0}, records) == {}
    assert overdue.look(280.1, {7: 180.0}, records) == {7: "its spider did not close within 180 s"}


def test_slow_close_without_sender_is_overdue_after_a_second() -> None:
    """Nobody waits for a task whose sender is lost."""
    overdue = Overdue()
    records = {7: replace(RECORD, state=TaskState.STOPPING, reason="sender_lost")}
    assert overdue.look(100.0, {7: 180.0}, records) == {}
    assert overdue.look(101.1, {7: 180.0}, records) == {7: "its spider did not close within 1 s"}


DETACHED = replace(RECORD, is_attached=False)


def attend(attendance: Attendance, record: TaskRecord, followers: int, now_ms: int = 0) -> int:
    """One look at a task; its level."""
    return attendance.look(Look(now_ms, "a", (7,), {7: record}, {}, {7: followers}))[7]


def test_lines_of_a_detached_task_are_all_wanted_while_it_is_followed() -> None:
    """At once when somebody comes; and for a moment after nobody is seen, who may have lost the connection."""
    attendance = Attendance()
    looks = [(0, 0), (1, 500), (0, 1000), (0, 500 + UNFOLLOWED_MS - 1), (0, 500 + UNFOLLOWED_MS), (1, 9000)]
    levels = [attend(attendance, DETACHED, followers, now_ms) for followers, now_ms in looks]
    assert levels == [UNATTENDED, ALL, ALL, ALL, UNATTENDED, ALL]


def test_lines_of_an_attached_task_are_all_wanted() -> None:
    """It lives and dies with who listens to it."""
    assert attend(Attendance(), RECORD, 0) == ALL


def test_valve_that_was_turned_holds_with_a_follower() -> None:
    """The explicit level wins, also over a sender."""
    turned = [replace(record, valve=Valve.ERROR) for record in (RECORD, DETACHED)]
    assert [attend(Attendance(), record, 1) for record in turned] == [40, 40]


def test_followers_are_counted_where_they_matter() -> None:
    """Not of each task on each worker: of those with an automatic valve that run here, or may in a moment."""
    records = [
        RECORD,
        DETACHED,
        replace(DETACHED, taskid=8, valve=Valve.INFO),
        replace(DETACHED, taskid=9),
        replace(DETACHED, taskid=10, state=TaskState.QUEUED, processes=0),
    ]
    assert with_counted_followers(records, frozenset({7, 8})) == [7, 10]
