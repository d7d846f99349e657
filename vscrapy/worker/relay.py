"""
Log lines of the tasks that run here, on their way to Redis: cut by the valve, buffered, in batches, in order.

One call a task at a time, so that the order stays. While Redis is away, each task's newest lines wait here, and
a gap is told as a gap. A reply that was lost can show some lines twice; none is lost for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.valve import ALL, weight
from vscrapy.wire import LogLine
from vscrapy.worker.reactor import Clock, Timer, cancel

if TYPE_CHECKING:
    from twisted.python.failure import Failure

#: Lines kept of a task while Redis is away.
MOST_LINES: Final = 20_000
#: Characters of these lines.
MOST_CHARS: Final = 64 * 1024 * 1024
#: Time in which lines are gathered (s).
GATHER_S: Final = 0.025
#: Lines that are sent at once, without gathering more.
ENOUGH_LINES: Final = 500
#: Lines of one call.
BATCH_LINES: Final = 2000
#: Waits between two tries (s): the first, and the longest.
BACKOFF_S: Final = (0.1, 5.0)
#: Lines that are waiting when the writers are held up, and when they go on. A local crawl's terminal holds them
#: up too; without this, a fast print loop would outrun Redis and lose lines.
CROWDED_LINES: Final = 10_000
UNCROWDED_LINES: Final = 5000
#: Time without an answer from Redis after which nobody is held up any more (s).
HOLD_UP_S: Final = 2.0


class Backlog:
    """The lines of one task that wait; the oldest are dropped when there are too many."""

    def __init__(self, worker: str, *, most_lines: int = MOST_LINES, most_chars: int = MOST_CHARS) -> None:
        self._worker = worker
        self._most_lines = most_lines
        self._most_chars = most_chars
        self._lines: deque[LogLine] = deque()
        self._chars = 0
        #: Lines dropped in front of those that wait, and in front of those that were taken.
        self._lost = self._lost_taken = 0

    def __len__(self) -> int:
        return len(self._lines) + (self._lost > 0)

    def add(self, lines: Sequence[LogLine]) -> None:
        """Put lines at the end."""
        self._lines.extend(lines)
        self._chars += sum(len(line.text) for line in lines)
        self._trim()

    def take(self, most: int) -> list[LogLine]:
        """Take the oldest lines, with a line in front that tells a gap."""
        batch = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
        self._chars -= sum(len(line.text) for line in batch)
        self._lost, self._lost_taken = 0, self._lost
        if not self._lost_taken:
            return batch
        words = f"[... {self._lost_taken} lines lost on worker {self._worker}: Redis was away ...]\n"
        time = batch[0].time if batch else 0.0
        return [LogLine("err", words, time, worker=self._worker), *batch]

    def put_back(self, batch: list[LogLine]) -> None:
        """Put what was taken last in front again."""
        lines = batch[1:] if self._lost_taken else batch
        if self._lost:
            # Lines behind the batch were dropped meanwhile, and these are older: one gap for all of them.
            self._lost += self._lost_taken + len(lines)
        else:
            self._lost = self._lost_taken
            self._lines.extendleft(reversed(lines))
            self._chars += sum(len(line.text) for line in lines)
            self._trim()
        self._lost_taken = 0

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()
        self._chars = self._lost = 0

    def _trim(self) -> None:
        while self._lines and (len(self._lines) > self._most_lines or self._chars > self._most_chars):
            self._chars -= len(self._lines.popleft().text)
            self._lost += 1


class _TaskLog:
    """One task's lines, and where their sending stands."""

    def __init__(self, worker: str) -> None:
        self.backlog = Backlog(worker)
        self.is_sending = False
        #: No answer came to the last call.
        self.is_away = False
        self.backoff_s = BACKOFF_S[0]
        self.timer: Timer | None = None
        self.held_up: list[Callable[[], None]] = []
        self.hold_up_timer: Timer | None = None
        self.waiters: list[Deferred[None]] = []
        #: No process of the task runs here any more.
        self.is_closing = False


class Relay:
    """The logs of all tasks that run here."""

    def __init__(
        self,
        clock: Clock,
        append: Callable[[int, Sequence[LogLine]], Deferred[bool]],
        say: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._append = append
        self._say = say
        self._logs: dict[int, _TaskLog] = {}
        #: From which level on the lines of a task are sent; of one that is not in it, all are.
        self.levels: Mapping[int, int] = {}

    def add(self, taskid: int, lines: Sequence[LogLine], *, worker: str) -> None:
        """Take lines of a task; those that its valve lets through are sent soon, and of the others nothing shows."""
        level = self.levels.get(taskid, ALL)
        if level > ALL:
            lines = [line for line in lines if weight(line) >= level]
        if not lines:
            return
        log = self._logs.get(taskid)
        if log is None:
            log = self._logs[taskid] = _TaskLog(worker)
        log.is_closing = False
        log.backlog.add(lines)
        if not log.is_away:
            self._arm(taskid, log, 0 if len(log.backlog) >= ENOUGH_LINES else GATHER_S)

    def hold_up(self, taskid: int, go_on: Callable[[], None]) -> bool:
        """Should a writer of this task wait? If so, *go_on* is called when it need not any more."""
        log = self._logs.get(taskid)
        if log is None or log.is_away or len(log.backlog) < CROWDED_LINES:
            return False
        log.held_up.append(go_on)
        if log.hold_up_timer is None:
            log.hold_up_timer = self._clock.callLater(HOLD_UP_S, self._give_way, log)
        return True

    def flushed(self, taskid: int, timeout_s: float) -> Deferred[None]:
        """Send at once; fires when all lines of the task are on Redis, or after *timeout_s*."""
        waiter: Deferred[None] = Deferred()
        log = self._logs.get(taskid)
        if log is None or not (log.backlog or log.is_sending):
            waiter.callback(None)
            return waiter
        log.waiters.append(waiter)
        timer = self._clock.callLater(timeout_s, self._release, log, waiter)
        waiter.addBoth(lambda _: cancel(timer))
        self._arm(taskid, log, 0)
        return waiter

    def close(self, taskid: int) -> None:
        """No process of the task runs here any more; what still waits is sent."""
        log = self._logs.get(taskid)
        if log is not None:
            log.is_closing = True
            self._settle(taskid, log)

    def stop(self) -> None:
        """Send nothing more."""
        for log in self._logs.values():
            for timer in (log.timer, log.hold_up_timer):
                cancel(timer)
        self._logs.clear()

    def _arm(self, taskid: int, log: _TaskLog, delay_s: float) -> None:
        """Send after *delay_s*, or sooner if that was planned already."""
        if log.is_sending:
            return
        if log.timer is not None and log.timer.active():
            if log.timer.getTime() - self._clock.seconds() <= delay_s:
                return
            log.timer.cancel()
        log.timer = self._clock.callLater(delay_s, self._send, taskid, log)

    def _send(self, taskid: int, log: _TaskLog) -> None:
        log.timer = None
        batch = log.backlog.take(BATCH_LINES)
        log.is_sending = True
        sent = self._append(taskid, batch)
        sent.addCallback(self._sent, log)
        sent.addErrback(self._failed, log, batch)
        sent.addCallback(lambda _: self._go_on(taskid, log))

    def _sent(self, is_written: bool, log: _TaskLog) -> None:
        log.is_away = False
        log.backoff_s = BACKOFF_S[0]
        if not is_written:  # The task has ended, or is gone: nobody will read it.
            log.backlog.clear()
        if len(log.backlog) < UNCROWDED_LINES:
            self._let_go(log)

    def _failed(self, failure: Failure, log: _TaskLog, batch: list[LogLine]) -> None:
        if isinstance(failure.value, StoreUnavailable | StoreRefused):
            log.is_away = True
            log.backlog.put_back(batch)
        else:
            # Lines that cannot be sent at all must not stop those behind them.
            self._say(f"{len(batch)} log lines could not be relayed: {failure.getTraceback()}")
        self._let_go(log)

    def _go_on(self, taskid: int, log: _TaskLog) -> None:
        log.is_sending = False
        if log.backlog and taskid in self._logs:
            if log.is_away:
                self._arm(taskid, log, log.backoff_s)
                log.backoff_s = min(2 * log.backoff_s, BACKOFF_S[1])
            else:
                is_urgent = log.waiters or len(log.backlog) >= ENOUGH_LINES
                self._arm(taskid, log, 0 if is_urgent else GATHER_S)
            return
        self._settle(taskid, log)

    def _settle(self, taskid: int, log: _TaskLog) -> None:
        """Tell those who wait that all is sent, and forget a task that is done."""
        if log.is_sending or log.backlog:
            return
        waiters, log.waiters = log.waiters, []
        for waiter in waiters:
            waiter.callback(None)
        if log.is_closing and self._logs.get(taskid) is log:
            del self._logs[taskid]

    def _release(self, log: _TaskLog, waiter: Deferred[None]) -> None:
        log.waiters.remove(waiter)
        waiter.callback(None)

    def _give_way(self, log: _TaskLog) -> None:
        log.hold_up_timer = None
        log.is_away = log.is_sending  # Redis has not answered for so long.
        self._let_go(log)

    def _let_go(self, log: _TaskLog) -> None:
        cancel(log.hold_up_timer)
        log.hold_up_timer = None
        held_up, log.held_up = log.held_up, []
        for go_on in held_up:
            go_on()
