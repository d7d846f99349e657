"""
One server and a crowd: what crawl processes cost it, from one to hundreds, on one task.

Nothing is crawled: ``benchmarks/simulated.py`` says to the server what crawl processes and agents say, at a fixed
rate, from a few processes of this machine. Measured is the server's own CPU time (``INFO cpu``, main thread); whether
the rate was reached depends on the clients as well, and on what else the machine does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import machine
from benchmarks.simulated import Clockwork, Pages, SimulatedProcess, SimulatedWorker, Tally, main_thread_s, schedule
from vscrapy.crawl.session import GATHER_LONG_S
from vscrapy.states import StopMode
from vscrapy.store.base import Store
from vscrapy.store.frontier import Limits
from vscrapy.store.streams import BEGINNING, Cursors, Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import HEARTBEAT_S
from vscrapy.testing import server
from vscrapy.worker.agent import LOOK_S

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray
    from multiprocessing.synchronize import Barrier, Event

    from vscrapy.model import Endpoint

#: Crawl processes of a crowd.
CROWDS: Final = (1, 10, 50, 100, 200)
#: Crawl processes of one worker.
PER_WORKER: Final = 2
#: Pages a second that each crawl process offers.
PAGES_A_S: Final = 20.0
#: Pages that are done by then in the time that results gather for a commit, while much waits.
PAGES_A_COMMIT: Final = round(PAGES_A_S * GATHER_LONG_S)
#: Time from the crowd's begin to that of the measurement (seconds).
WARM_S: Final = 2.0
#: Time for a crowd to be ready, and to end (seconds).
READY_S: Final = 120.0
#: Heartbeats and looks that are measured by themselves.
N_UPKEEP: Final = 300
#: Time between two words of a client on what it has done (seconds).
TELL_S: Final = 0.02
#: Home drops from the server what it has taken, at most so often (seconds): as ``sender/follow.py`` does.
TRIM_S: Final = 1.0
HEAD: Final = """\
| crawl processes | pages/s offered | pages/s done | pages a commit | links sent a page | server CPU a page (µs) \
| of one core | heartbeats | looks | bytes a page, to and from the server | clients idle |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a crowd does."""

    #: Crawl processes, two to a worker.
    processes: int
    #: Pages a second that each offers, and how many are done from one commit to the next if nobody is late.
    pages_a_s: float = PAGES_A_S
    pages_a_commit: int = PAGES_A_COMMIT
    pages: Pages = Pages(known=20_000)  # noqa: RUF009 - it is frozen
    #: What a site may see.
    limits: Limits = Limits()  # noqa: RUF009 - it is frozen
    #: Processes of this machine that simulate them; each has whole workers, so one worker has one.
    clients: int = 2


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one crowd."""

    plan: Plan
    #: Pages a second that were done.
    pages_a_s: float
    pages_a_commit: float
    #: Requests sent for each page, and those of them that were new.
    links_sent: float
    links_new: float
    #: Server CPU: for each page, of all that the crowd asks for (µs), and the part of one core that it is.
    page_us: float
    core: float
    #: Server CPU of one heartbeat and of one look (µs), measured by themselves.
    beat_us: float
    look_us: float
    #: Network, both ways.
    bytes_in: float
    bytes_out: float
    #: Part of its time for which the busiest client had nothing to do; near 0, it is the clients that are measured.
    idle: float

    @property
    def offered(self) -> float:
        """Pages a second that the crowd offers."""
        return self.plan.processes * self.plan.pages_a_s

    @property
    def workers(self) -> int:
        """Simulated workers."""
        return -(-self.plan.processes // PER_WORKER)

    @property
    def beats_core(self) -> float:
        """The part of one core that the heartbeats of so many workers take."""
        return self.workers * self.beat_us / HEARTBEAT_S / 1e6

    @property
    def looks_core(self) -> float:
        """The part of one core that the looks of so many workers take."""
        return self.workers * self.look_us / (sum(LOOK_S) / 2) / 1e6


@dataclass(frozen=True, slots=True)
class _Usage:
    """What the server, and the crowd, have used up to now."""

    at_s: float
    cpu_s: float
    bytes_in: int
    bytes_out: int
    tally: tuple[int, ...]
    idle_s: tuple[float, ...]


class Crowd:
    """Simulated crawl processes at work on a task of their own. Made by :func:`gathered`."""

    def __init__(self, store: Store, taskid: int, plan: Plan) -> None:
        self._store = store
        self.taskid = taskid
        self.plan = plan
        context = multiprocessing.get_context("spawn")
        self._is_over: Event = context.Event()
        first, n_workers = 0, -(-plan.processes // PER_WORKER)
        n_clients = min(plan.clients, n_workers)
        self._barrier: Barrier = context.Barrier(n_clients + 1)
        self._clients: list[Any] = []
        #: Of each client: what :class:`Tally` counts, and its idle time.
        self._tallies: list[SynchronizedArray[float]] = []
        for client in range(n_clients):
            mine = min(plan.processes, n_workers * (client + 1) // n_clients * PER_WORKER)
            tally = context.Array("d", len(Tally().numbers()) + 1)
            args = (store.endpoint, taskid, plan, range(first, mine), self._barrier, self._is_over, tally)
            self._clients.append(context.Process(target=_simulate, args=args, daemon=True))
            self._tallies.append(tally)
            first = mine
        self._home = threading.Thread(target=self._take_items, name="home", daemon=True)

    @property
    def tally(self) -> Tally:
        """What all of them have done; the first process's feeding is among it."""
        return Tally(*(int(sum(numbers)) for numbers in zip(*(tally[:-1] for tally in self._tallies), strict=True)))

    def start(self) -> None:
        """
        Let them begin; they are all at work when this returns.

        Raises:
            RuntimeError: One of them has failed.
        """
        for client in self._clients:
            client.start()
        self._home.start()
        try:
            self._barrier.wait(READY_S)
        except threading.BrokenBarrierError:
            raise RuntimeError("a client of the crowd did not begin; its error stands above") from None

    def stop(self) -> None:
        """
        Let them give back what they have not done, and leave; the task and the workers' records stay.

        Raises:
            RuntimeError: One of them has failed.
        """
        self._is_over.set()
        for client in self._clients:
            client.join(READY_S)
        self._home.join(READY_S)
        if any(client.exitcode != 0 for client in self._clients):
            raise RuntimeError("a client of the crowd has failed; its error stands above")

    def measure(self, seconds: float) -> Callable[[float, float], Row]:
        """Measure for so long; the row is made with the CPU of one heartbeat and one look."""
        before = self._usage()
        time.sleep(seconds)
        after = self._usage()
        took_s, cpu_s = after.at_s - before.at_s, after.cpu_s - before.cpu_s
        done = [now - then for now, then in zip(after.tally, before.tally, strict=True)]
        pages, commits, sent, new, _ = (max(1, number) for number in done)
        idle_s = min(now - then for now, then in zip(after.idle_s, before.idle_s, strict=True))
        return lambda beat_us, look_us: Row(
            self.plan,
            pages_a_s=done[0] / took_s,
            pages_a_commit=pages / commits,
            links_sent=sent / pages,
            links_new=new / pages,
            page_us=cpu_s / pages * 1e6,
            core=cpu_s / took_s,
            beat_us=beat_us,
            look_us=look_us,
            bytes_in=(after.bytes_in - before.bytes_in) / pages,
            bytes_out=(after.bytes_out - before.bytes_out) / pages,
            idle=max(0.0, idle_s / took_s),
        )

    def _usage(self) -> _Usage:
        info = self._store.client.info("stats")
        return _Usage(
            time.monotonic(),
            main_thread_s(self._store),
            int(info["total_net_input_bytes"]),
            int(info["total_net_output_bytes"]),
            self.tally.numbers(),
            tuple(tally[-1] for tally in self._tallies),
        )

    def _take_items(self) -> None:
        """As home does it: read the items as they come, and drop what is through."""
        streams = Streams(self._store)
        cursors, dropped, trimmed_s = Cursors(), BEGINNING, time.monotonic()
        while not self._is_over.is_set():
            logs, items = streams.read(self.taskid, cursors, with_items=True, block_ms=100)
            cursors = Cursors(logs[-1].cursor if logs else cursors.log, items[-1].cursor if items else cursors.items)
            if time.monotonic() - trimmed_s > TRIM_S and cursors.items != dropped:
                streams.fetched_items(self.taskid, cursors.items, is_drop=True)
                dropped, trimmed_s = cursors.items, time.monotonic()


def _simulate(
    endpoint: Endpoint,
    taskid: int,
    plan: Plan,
    numbers: range,
    barrier: Barrier,
    is_over: Event,
    told: SynchronizedArray[float],
) -> None:
    """One client: the crawl processes with these numbers, and their workers. The first one has begun already."""
    tally, clockwork = Tally(), Clockwork()
    stores: list[Store] = []

    def store() -> Store:
        stores.append(Store(endpoint, name="vscrapy-crowd"))
        return stores[-1]

    workers = [
        SimulatedWorker(store(), _worker(number), PER_WORKER) for number in numbers if number % PER_WORKER == 0
    ]
    processes = [
        SimulatedProcess(
            store(),
            taskid,
            _worker(number),
            f"crowd.{number:04d}",
            plan.pages,
            pages_a_s=plan.pages_a_s,
            tally=tally,
        )
        for number in numbers
    ]
    for worker in workers:
        worker.begin()
    for process in processes:
        process.begin(plan.limits)
    schedule(clockwork, taskid, workers, processes, pages_a_s=plan.pages_a_s, pages_a_commit=plan.pages_a_commit)

    told_s = 0.0

    def has_ended() -> bool:
        nonlocal told_s
        if time.monotonic() - told_s > TELL_S:
            told_s = time.monotonic()
            told[:] = [*tally.numbers(), clockwork.idle_s]
        return is_over.is_set()

    barrier.wait(READY_S)
    clockwork.run(has_ended)
    for process in processes:
        process.end()
    told[:] = [*tally.numbers(), clockwork.idle_s]
    for each in stores:
        each.close()


def _worker(number: int) -> str:
    return f"crowd-{number // PER_WORKER}"


@contextmanager
def gathered(endpoint: Endpoint, plan: Plan) -> Iterator[Crowd]:
    """Make a task, feed it, and let a crowd work on it; the task ends with the context, and the workers sign off."""
    with ExitStack() as stack:
        store = Store(endpoint, name="vscrapy-crowd")
        stack.callback(store.close)
        tasks = Tasks(store)
        taskid = tasks.new_id()
        tasks.submit(taskid, b"job", spider="crowd", options=TaskOptions(log_keep=1000))
        stack.callback(_end, tasks, taskid)
        feeder = SimulatedProcess(
            store, taskid, "crowd-feeder", "crowd.feeder", plan.pages, pages_a_s=1.0, tally=Tally()
        )
        feeder.begin(plan.limits)
        feeder.feed()
        feeder.end()
        for number in range(0, plan.processes, PER_WORKER):
            stack.callback(SimulatedWorker(store, _worker(number), PER_WORKER).end)
        crowd = Crowd(store, taskid, plan)
        crowd.start()
        try:
            yield crowd
        finally:
            crowd.stop()


def _end(tasks: Tasks, taskid: int) -> None:
    tasks.stop(taskid, reason="finished", mode=StopMode.FORCED)
    tasks.archive(tasks.record(taskid))


def _upkeep_us(store: Store, taskid: int, n_calls: int) -> tuple[float, float]:
    """Server CPU of one heartbeat and of one look, each for itself (µs); as if from the first worker."""
    worker = SimulatedWorker(store, _worker(0), PER_WORKER)
    here = frozenset({taskid})
    costs = []
    for call in (worker.beat, lambda: worker.look(here)):
        call()
        before_s = main_thread_s(store)
        for _ in range(n_calls):
            call()
        costs.append((main_thread_s(store) - before_s) / n_calls * 1e6)
    return costs[0], costs[1]


def measure_one(endpoint: Endpoint, plan: Plan, *, seconds: float, n_upkeep: int = N_UPKEEP) -> Row:
    """Let one crowd work, and measure it."""
    with gathered(endpoint, plan) as crowd:
        time.sleep(min(WARM_S, seconds))
        row = crowd.measure(seconds)
        crowd.stop()
        store = Store(endpoint, name="vscrapy-crowd")
        try:
            return row(*_upkeep_us(store, crowd.taskid, n_upkeep))
        finally:
            store.close()


def measure(plans: Sequence[Plan] = tuple(map(Plan, CROWDS)), *, seconds: float = 10.0) -> list[Row]:
    """Measure one crowd after the other, each on an empty server of its own."""
    rows = []
    for plan in plans:
        with server() as endpoint:
            rows.append(measure_one(endpoint, plan, seconds=seconds))
        print(line(rows[-1]), file=sys.stderr)
    return rows


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"| {row.plan.processes} | {row.offered:.0f} | {row.pages_a_s:.0f} | {row.pages_a_commit:.1f} "
        f"| {row.links_sent:.1f} | {row.page_us:.0f} | {row.core:.1%} | {row.beats_core:.2%} | {row.looks_core:.2%} "
        f"| {row.bytes_in:.0f} + {row.bytes_out:.0f} | {row.idle:.0%} |"
    )


def table(rows: Sequence[Row]) -> str:
    """What was measured, as Markdown."""
    return "\n".join([HEAD, *map(line, rows)])


def main() -> None:
    """Measure crowds, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=CROWDS, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, help="time that each crowd is measured for")
    parser.add_argument("--pages-a-second", type=float, default=PAGES_A_S, help="that each crawl process offers")
    parser.add_argument("--pages-a-commit", type=int, default=PAGES_A_COMMIT)
    parser.add_argument("--known", type=int, default=20_000, help="pages that wait from the beginning")
    parser.add_argument("--remembered", type=float, default=0.0, help="part of them that each process remembers")
    parser.add_argument("--sites", type=int, default=1, help="downloader slots")
    parser.add_argument("--most", type=int, default=0, help="concurrent downloads of a slot; 0: not kept")
    parser.add_argument("--clients", type=int, default=2, help="processes of this machine that simulate the crowd")
    options = parser.parse_args()
    plans = [
        Plan(
            processes,
            options.pages_a_second,
            options.pages_a_commit,
            Pages(options.known, options.sites, options.remembered),
            Limits(options.most),
            options.clients,
        )
        for processes in options.processes
    ]
    print(machine.describe())
    print(table(measure(plans, seconds=options.seconds)))


if __name__ == "__main__":
    main()
