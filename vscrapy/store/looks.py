"""What an agent looks at, again and again: the registry of tasks, their records, and who is subscribed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vscrapy import keys
from vscrapy.store.base import Store, text
from vscrapy.store.connection import translate
from vscrapy.store.tasks import TaskRecord, read_ids, read_ms, read_records


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is subscribed to the channels of some tasks."""

    #: Redis's clock (ms since the epoch).
    now_ms: int
    #: Task -> connections of its sender.
    senders: Mapping[int, int]
    #: Task -> followers.
    followers: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round trip has shown."""

    #: Identity of the server process.
    server_id: str
    #: Tasks that have not ended, oldest first.
    live: Sequence[int]
    #: Of those tasks that were asked for.
    records: Mapping[int, TaskRecord]
    audience: Audience


class Looks:
    """Looks at one Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def see(self, taskids: Sequence[int], senders: Iterable[int] = (), followed: Iterable[int] = ()) -> Seen:
        """
        Look at the registry and, in the same round trip, at what is expected to stand there.

        Args:
            taskids: Tasks whose records are read; without one, and unreadable ones, are left out.
            senders: As with :meth:`audience`.
            followed: As there.
        """
        channels = _Channels(senders, followed)
        pipeline = self._store.client.pipeline(transaction=False)
        pipeline.info("server")
        pipeline.zrange(keys.TASKS, 0, -1)
        for taskid in taskids:
            pipeline.hgetall(keys.task(taskid))
        channels.ask(pipeline)
        with translate(self._store.endpoint):
            server, members, *replies = pipeline.execute()
        records = read_records(taskids, replies[: len(taskids)])
        audience = channels.audience(replies[len(taskids) :])
        return Seen(str(server["run_id"]), read_ids(members), records, audience)

    def audience(self, senders: Iterable[int], followed: Iterable[int] = ()) -> Audience:
        """
        Count who is subscribed, in one round trip.

        Args:
            senders: Tasks whose sender is looked for: 0 means that its connection is closed.
            followed: Tasks whose followers are counted.
        """
        channels = _Channels(senders, followed)
        pipeline = self._store.client.pipeline(transaction=False)
        channels.ask(pipeline)
        with translate(self._store.endpoint):
            return channels.audience(pipeline.execute())


class _Channels:
    """Of senders and followers, and how many are subscribed to them."""

    def __init__(self, senders: Iterable[int], followed: Iterable[int]) -> None:
        self._senders = {keys.sender(taskid): taskid for taskid in senders}
        self._followed = {keys.followers(taskid): taskid for taskid in followed}

    def ask(self, pipeline: Any) -> None:
        """Ask for them, and for the time."""
        if names := [*self._senders, *self._followed]:
            pipeline.pubsub_numsub(*names)
        pipeline.time()

    def audience(self, replies: Sequence[Any]) -> Audience:
        """Read what was asked for."""
        *numbers, time = replies
        counts = {text(name): int(count) for found in numbers for name, count in found}
        return Audience(
            read_ms(time),
            {taskid: counts[name] for name, taskid in self._senders.items()},
            {taskid: counts[name] for name, taskid in self._followed.items()},
        )
