"""Looks: what one round trip shows, and what an agent's looks cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.client import Pipeline

from tests.integration.support import running, submit
from vscrapy import keys
from vscrapy.states import StopMode
from vscrapy.store.base import Store
from vscrapy.store.looks import Looks
from vscrapy.store.tasks import Subscription, Tasks
from vscrapy.worker.observer import Observer


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of commands of each pipeline that is sent meanwhile."""
    found: list[int] = []
    execute = Pipeline.execute

    def counted(self: Pipeline, *args: bool) -> object:
        found.append(len(self.command_stack))
        return execute(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", counted)
        yield found


def test_look_shows_tasks_records_and_who_is_subscribed(store: Store) -> None:
    """Of tasks that are asked for and are not there, nothing; those that nobody expected are told by their ids."""
    first, second = submit(store), submit(store)
    subscription = Subscription(store, keys.sender(first))
    subscription.keep(wait_s=0.1)
    seen = Looks(store).see([first, 99], [first], [second])
    subscription.close()
    assert (seen.live, list(seen.records), seen.records[first].taskid) == ([first, second], [first], first)
    assert (seen.audience.senders, seen.audience.followers) == ({first: 1}, {second: 0})


def test_look_that_finds_what_it_expects_is_one_round_trip(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and subscribers of what is new take one more each, once."""
    observer, tasks = Observer(store), Tasks(store)
    attached = running(store, submit(store, sender_timeout_ms=60_000)).taskid
    with round_trips(monkeypatch) as trips:
        look = observer.look(frozenset())
        assert (look.live, list(look.records), look.subscribers, look.followers) == ((attached,), [attached], {}, {})
        assert len(trips) == 2
        look = observer.look(frozenset({attached}))
        assert (look.subscribers, len(trips)) == ({attached: 0}, 4)
        assert observer.look(frozenset({attached})).subscribers == {attached: 0}
        assert len(trips) == 5
    detached = submit(store)
    with round_trips(monkeypatch) as trips:
        look = observer.look(frozenset({attached}))
        assert (list(look.records), look.followers, len(trips)) == ([attached, detached], {detached: 0}, 3)
        assert observer.look(frozenset({attached})).followers == {detached: 0}
        assert len(trips) == 4
    tasks.stop(attached, reason="shutdown", mode=StopMode.GRACEFUL)
    look = observer.look(frozenset({attached}))
    assert (list(look.records), look.subscribers) == ([attached, detached], {})


def test_looks_time_is_that_of_the_audience(store: Store) -> None:
    """What is concluded from silence is measured by the clock of the moment that showed it."""
    observer, tasks = Observer(store), Tasks(store)
    submit(store)
    times = []
    for _ in range(3):
        before_ms = tasks.now_ms()
        times.append((before_ms, observer.look(frozenset()).now_ms, tasks.now_ms()))
    assert all(before <= now <= after for before, now, after in times)


def test_task_that_runs_here_is_seen_when_it_is_not_live_any_more(store: Store) -> None:
    """Its processes have to learn that it has ended."""
    taskid = submit(store)
    observer, tasks = Observer(store), Tasks(store)
    tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    tasks.archive(tasks.record(taskid))
    look = observer.look(frozenset({taskid}))
    assert (look.live, list(look.records)) == ((), [taskid])
    assert list(observer.look(frozenset()).records) == []
