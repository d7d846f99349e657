"""Log lines on their way to Redis: order, batches, and what happens when Redis is away."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from vscrapy.errors import StoreUnavailable
from vscrapy.valve import NOTHING
from vscrapy.wire import LogLine
from vscrapy.worker.relay import BATCH_LINES, CROWDED_LINES, GATHER_S, HOLD_UP_S, MOST_LINES, Backlog, Relay


def lines(*numbers: int) -> list[LogLine]:
    """One line for each number."""
    return [LogLine("out", f"{number}\n") for number in numbers]


def texts(batch: Sequence[LogLine]) -> list[str]:
    """The texts of lines, without their ends."""
    return [line.text.strip() for line in batch]


def test_backlog_gives_lines_in_order() -> None:
    """First in, first out."""
    backlog = Backlog("w1")
    backlog.add(lines(1, 2))
    backlog.add(lines(3))
    assert texts(backlog.take(2)) == ["1", "2"]
    assert texts(backlog.take(2)) == ["3"]
    assert len(backlog) == 0


def test_backlog_that_was_put_back_is_in_front() -> None:
    """A batch that could not be sent comes first again."""
    backlog = Backlog("w1")
    backlog.add(lines(1, 2))
    batch = backlog.take(2)
    backlog.add(lines(3))
    backlog.put_back(batch)
    assert texts(backlog.take(9)) == ["1", "2", "3"]


def test_backlog_drops_the_oldest_and_tells() -> None:
    """Too many lines: the oldest go, and a line in their place says how many."""
    backlog = Backlog("w1", most_lines=3)
    backlog.add(lines(1, 2, 3, 4, 5))
    assert texts(backlog.take(9)) == ["[... 2 lines lost on worker w1: Redis was away ...]", "3", "4", "5"]


def test_backlog_drops_by_size() -> None:
    """Few long lines are too many as well."""
    backlog = Backlog("w1", most_chars=5)
    backlog.add(lines(10, 20))
    assert texts(backlog.take(9))[1:] == ["20"]


def test_backlog_tells_one_gap_when_a_batch_comes_back() -> None:
    """A batch that comes back when newer lines were dropped is older still, and goes with them."""
    backlog = Backlog("w1", most_lines=3)
    backlog.add(lines(1, 2, 3))
    batch = backlog.take(2)
    backlog.add(lines(4, 5, 6))
    backlog.put_back(batch)
    assert texts(backlog.take(9)) == ["[... 3 lines lost on worker w1: Redis was away ...]", "4", "5", "6"]


def test_backlog_counts_a_gap_that_comes_back() -> None:
    """A gap that could not be told is told the next time, once, with all that is lost."""
    backlog = Backlog("w1", most_lines=2)
    backlog.add(lines(1, 2, 3))
    backlog.put_back(backlog.take(9))
    backlog.add(lines(4))
    assert texts(backlog.take(9)) == ["[... 2 lines lost on worker w1: Redis was away ...]", "3", "4"]


class Sending:
    """A relay, and the calls that it makes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[int, list[str], Deferred[bool]]] = []
        self.said: list[str] = []
        self.relay = Relay(self.clock, self._append, self.said.append)

    def _append(self, taskid: int, batch: Sequence[LogLine]) -> Deferred[bool]:
        deferred: Deferred[bool] = Deferred()
        self.calls.append((taskid, texts(batch), deferred))
        return deferred

    def add(self, *numbers: int, taskid: int = 7) -> None:
        """Add lines."""
        self.relay.add(taskid, lines(*numbers), worker="w1")

    def succeed(self, *, is_written: bool = True) -> None:
        """The last call was done."""
        self.calls[-1][2].callback(is_written)

    def fail(self) -> None:
        """The last call was not answered."""
        self.calls[-1][2].errback(StoreUnavailable("away"))


@pytest.fixture
def sending() -> Sending:
    """A relay with a clock that stands still."""
    return Sending()


def test_lines_are_gathered_for_a_moment(sending: Sending) -> None:
    """Lines that come close together go in one call."""
    sending.add(1)
    sending.clock.advance(GATHER_S / 2)
    sending.add(2)
    assert sending.calls == []
    sending.clock.advance(GATHER_S / 2)
    assert [call[:2] for call in sending.calls] == [(7, ["1", "2"])]


def test_lines_below_the_level_of_their_task_are_left_out(sending: Sending) -> None:
    """They do not show as lost, and other tasks are not concerned."""
    sending.relay.levels = {7: logging.WARNING}
    levels = (logging.INFO, logging.WARNING, logging.ERROR)
    for taskid in (7, 8):
        said = [LogLine("log", f"{level}\n", level=level) for level in levels]
        sending.relay.add(taskid, [*said, LogLine("out", "out\n"), LogLine("err", "err\n")], worker="w1")
    sending.clock.advance(GATHER_S)
    assert [call[:2] for call in sending.calls] == [
        (7, ["30", "40", "err"]),
        (8, ["20", "30", "40", "out", "err"]),
    ]


def test_nothing_is_sent_of_a_task_whose_valve_is_off(sending: Sending) -> None:
    """Not even an empty call."""
    sending.relay.levels = {7: NOTHING}
    sending.add(1, 2, 3)
    sending.clock.advance(1)
    assert sending.calls == []


def test_many_lines_are_sent_at_once(sending: Sending) -> None:
    """A full batch does not wait."""
    sending.add(*range(500))
    sending.clock.advance(0)
    assert len(sending.calls[0][1]) == 500


def test_one_call_a_task_at_a_time(sending: Sending) -> None:
    """The next batch of a task waits for the reply to the last; another task's does not."""
    sending.add(1)
    sending.clock.advance(GATHER_S)
    sending.add(*range(2, 1000))
    sending.add(1, taskid=8)
    sending.clock.advance(GATHER_S)
    assert [call[0] for call in sending.calls] == [7, 8]
    sending.calls[0][2].callback(True)
    sending.clock.advance(0)
    assert sending.calls[2][1][0] == "2"


def test_lines_are_sent_again_in_order_when_redis_was_away(sending: Sending) -> None:
    """Nothing is lost or turned round by a failure."""
    sending.add(1)
    sending.clock.advance(GATHER_S)
    sending.add(2)
    sending.fail()
    sending.clock.advance(0.1)
    assert sending.calls[1][1] == ["1", "2"]
    sending.fail()
    sending.clock.advance(0.1)
    assert len(sending.calls) == 2
    sending.clock.advance(0.1)
    assert len(sending.calls) == 3


def test_flood_while_redis_is_away_keeps_the_newest(sending: Sending) -> None:
    """The memory is bounded, and the gap is told where it is."""
    sending.add(0)
    sending.clock.advance(GATHER_S)
    sending.fail()
    sending.add(*range(1, MOST_LINES + 10))
    sending.clock.advance(0.1)
    batch = sending.calls[1][1]
    assert batch[:2] == ["[... 10 lines lost on worker w1: Redis was away ...]", "10"]
    assert len(batch) == BATCH_LINES + 1


def test_lines_of_an_ended_task_are_dropped(sending: Sending) -> None:
    """Redis says that the task takes no lines any more."""
    sending.add(1)
    sending.clock.advance(GATHER_S)
    sending.add(2)
    sending.succeed(is_written=False)
    sending.clock.advance(60)
    assert len(sending.calls) == 1


def test_flushed_fires_when_all_is_written(sending: Sending) -> None:
    """Whoever waits for the last line is told after its reply, not before."""
    fired: list[None] = []
    sending.add(1)
    sending.relay.flushed(7, 5.0).addCallback(fired.append)
    sending.clock.advance(0)
    sending.add(2)
    sending.succeed()
    sending.clock.advance(0)
    assert fired == []
    sending.succeed()
    assert fired == [None]
    assert sending.clock.getDelayedCalls() == []


def test_flushed_fires_after_its_time(sending: Sending) -> None:
    """Nobody waits for ever for lines."""
    fired: list[None] = []
    sending.add(1)
    sending.relay.flushed(7, 5.0).addCallback(fired.append)
    sending.clock.advance(5.0)
    assert fired == [None]


def test_flushed_fires_at_once_without_lines(sending: Sending) -> None:
    """Nothing to wait for."""
    assert sending.relay.flushed(7, 5.0).called


def test_fast_writer_is_held_up_until_redis_has_caught_up(sending: Sending) -> None:
    """A print loop waits, as it would for a terminal, instead of losing lines."""
    let_go: list[str] = []
    sending.add(*range(CROWDED_LINES))
    assert sending.relay.hold_up(7, lambda: let_go.append("go on"))
    for _ in range(20):
        sending.clock.advance(0)
        if let_go:
            break
        sending.succeed()
    assert let_go == ["go on"]
    assert not sending.relay.hold_up(7, lambda: None)


def test_fast_writer_is_let_go_when_redis_does_not_answer(sending: Sending) -> None:
    """A crawl is never stopped by a Redis that is away."""
    let_go: list[str] = []
    sending.add(*range(CROWDED_LINES))
    sending.clock.advance(0)
    sending.add(*range(CROWDED_LINES))
    assert sending.relay.hold_up(7, lambda: let_go.append("go on"))
    sending.clock.advance(HOLD_UP_S)
    assert let_go == ["go on"]
    assert not sending.relay.hold_up(7, lambda: None)


def test_lines_that_cannot_be_sent_do_not_stop_the_others(sending: Sending) -> None:
    """An error that is not Redis's is told, and the next lines go."""
    sending.add(1)
    sending.clock.advance(GATHER_S)
    sending.add(2)
    sending.calls[0][2].errback(ValueError("odd"))
    sending.clock.advance(GATHER_S)
    assert sending.calls[1][1] == ["2"]
    assert "odd" in sending.said[0]
