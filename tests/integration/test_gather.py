"""The session's thread: what waits for more results, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from tests.integration.support import Process, request, submit
from vscrapy.crawl import session as session_module
from vscrapy.crawl.session import Callbacks, Outbox, Session
from vscrapy.store.base import Store
from vscrapy.store.frontier import Committed, Lease, Limits, Result
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.tasks import Tasks

#: Time in which the session's thread gets round to something (seconds).
SOON_S = 20.0
CAPACITY = 16
#: Requests that wait on Redis at the begin of each test.
WAITING = 60


@dataclass
class Told:
    """A session of a process that has leases, and what it has said."""

    session: Session
    leases: list[Lease]
    commits: list[tuple[Committed, Outbox, int]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    is_joined: bool = False
    is_closed: bool = False

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it."""
        with self.changed:
            assert self.changed.wait_for(is_so, SOON_S), self.commits

    def put(self, number: int) -> None:
        """One of the leases is done."""
        self.session.put([Result("done", self.leases[number].id)], StatChanges(), "")

    @property
    def results(self) -> list[int]:
        """How many results each commit has had, without those that had none."""
        return [len(outbox.results) for _, outbox, _ in self.commits if outbox.results]


def exit_process(code: int) -> NoReturn:
    """Stand in for the end of the process: the thread ends."""
    raise SystemExit(code)


def talk(store: Store, *, gathers: bool) -> Told:
    """Let a session begin, of a task in which much waits."""
    process = Process(store, submit(store))
    assert process.claim()

    def noted(change: Callable[..., None]) -> Callable[..., None]:
        def note(*args: Any) -> None:
            with found.changed:
                change(*args)
                found.changed.notify_all()

        return note

    def on_joined(*_: Any) -> None:
        found.is_joined = True

    def on_committed(reply: Committed, outbox: Outbox, wanted: int) -> None:
        found.commits.append((reply, outbox, wanted))
        found.leases.extend(reply.leases)

    def on_closed(_: Any) -> None:
        found.is_closed = True

    session = Session(
        process.frontier,
        Tasks(store),
        process.taskid,
        capacity=CAPACITY,
        is_lifo=True,
        is_start_lifo=True,
        limits=Limits(),
        counts_filtered=False,
        gathers=gathers,
        callbacks=Callbacks(noted(on_joined), noted(on_committed), lambda *_: None, noted(on_closed)),
        call=lambda call, *args: call(*args),
        end_process=exit_process,
    )
    found = Told(session, [])
    session.start()
    found.until(lambda: found.is_joined)
    session.put([Result("feed", requests=[request(f"{n}") for n in range(WAITING)])], StatChanges(), "")
    session.want(CAPACITY)
    found.until(lambda: len(found.leases) == CAPACITY)
    return found


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits that wait at all wait for ever."""
    for name in ("GATHER_LONG_S", "GATHER_S", "GATHER_SHORT_S"):
        monkeypatch.setattr(session_module, name, 3600.0)


@pytest.fixture
def told(store: Store) -> Iterator[Told]:
    """A session that gathers."""
    found = talk(store, gathers=True)
    found.commits.clear()
    found.session.feed(CAPACITY)
    yield found
    found.session.close(is_with_others=False)
    found.until(lambda: found.is_closed)


def test_results_leave_together_with_a_wish_for_leases(told: Told) -> None:
    """A wish waits as well, until leases are short; then it asks for as many as there is room for by then."""
    told.put(0)
    told.session.want(3)
    told.session.feed(CAPACITY - 9)
    told.put(1)
    told.session.feed(CAPACITY - 13)
    told.until(lambda: len(told.leases) == CAPACITY + 13)
    assert (told.results, [wanted for *_, wanted in told.commits if wanted]) == ([2], [13])


def test_results_do_not_hurry_while_nothing_is_wished_for(told: Told) -> None:
    """Leases are short, but plenty of requests waits on Redis: nothing depends on these results."""
    told.session.feed(0)
    told.put(0)
    told.put(1)
    told.session.look()
    told.until(lambda: bool(told.results))
    assert told.results == [2]


@pytest.mark.parametrize(
    "press",
    [
        lambda session: session.look(),
        lambda session: session.tell("fact", "value"),
        lambda session: session.lower_share("a", 1),
        lambda session: session.need("b", 1),
        lambda session: session.count("items", is_urgent=True),
        lambda session: session.close(is_with_others=False),
    ],
    ids=["look", "fact", "share", "need", "count", "close"],
)
def test_commit_does_not_wait_when_somebody_waits_for_it(told: Told, press: Callable[[Session], None]) -> None:
    """It leaves with what has gathered by then."""
    told.put(0)
    told.put(1)
    press(told.session)
    told.until(lambda: bool(told.results))
    assert told.results == [2]


def test_results_that_may_bring_requests_do_not_wait_where_nothing_else_does(told: Told) -> None:
    """Nothing waits on Redis any more, and leases are short."""
    told.session.want(WAITING - CAPACITY)
    told.session.feed(0)
    told.until(lambda: len(told.leases) == WAITING)
    assert told.commits[-1][0].queued == 0
    told.put(0)
    told.until(lambda: bool(told.results))
    assert told.results == [1]


def test_nothing_waits_where_the_order_counts(store: Store) -> None:
    """As with CONCURRENT_REQUESTS=1."""
    told = talk(store, gathers=False)
    told.commits.clear()
    told.session.feed(CAPACITY)
    told.put(0)
    told.until(lambda: bool(told.results))
    assert told.results == [1]
    told.session.close(is_with_others=False)
    told.until(lambda: told.is_closed)


def test_requests_do_not_wait_where_a_further_process_could_come_for_them(told: Told) -> None:
    """Something waits on Redis, but no plenty: leases are short, so what is found leaves at once."""
    told.session.want(WAITING - 2 * CAPACITY)
    told.session.feed(0)
    told.until(lambda: len(told.leases) == WAITING - CAPACITY)
    told.put(0)
    told.until(lambda: bool(told.results))
    assert told.results == [1]
