"""
What the store's tests share: tasks and crawl processes without Scrapy, and what must hold on a server at any time.

PYTEST_DONT_REWRITE: the conftest imports this before pytest could rewrite it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, Final

from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.base import Store, text, texts
from vscrapy.store.frontier import Committed, Frontier, Joined, Lease, Limits, NewRequest, Result, leave
from vscrapy.store.stat_changes import StatChanges
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers

#: Keys of the whole cluster that live as long as it does.
CLUSTER_KEYS: Final = frozenset({keys.TASKID, keys.TASKS, keys.FINISHED, keys.SUSPENDED, keys.WORKERS, keys.PULSE})
#: Keys of a task that outlive it, for a while.
KEPT: Final = frozenset(
    {"task", "job", "stats", "stat_values", "final_stats", "counts", "failures", "log", "items", "files"}
)

_TASK_KEY: Final = re.compile(r"\{vs:(\d+)\}:(.+)", re.DOTALL)
_WORKER_KEY: Final = re.compile(r"\{vs\}:worker:(.+?)(:processes)?")
_names = count(1)


def submit(
    store: Store,
    *,
    max_processes: int = 0,
    sender_timeout_ms: int = 0,
    log_keep: int = 1000,
    items_limit: int = 0,
    has_feeds: bool = False,
    job_dir: str = "",
) -> int:
    """Make a task, queued."""
    tasks = Tasks(store)
    taskid = tasks.new_id()
    tasks.submit(
        taskid,
        b"job",
        spider="books",
        options=TaskOptions(
            max_processes=max_processes,
            sender_timeout_ms=sender_timeout_ms,
            log_keep=log_keep,
            items_limit=items_limit,
        ),
        has_feeds=has_feeds,
        job_dir=job_dir,
    )
    return taskid


def request(
    payload: bytes | str, *, slot: str = "a", queue: str = "0", seen: tuple[str, str] | None = None
) -> NewRequest:
    """A request whose payload is not signed: the store does not look into it."""
    return NewRequest(slot, queue, payload if isinstance(payload, bytes) else payload.encode(), seen)


@dataclass
class Process:
    """A crawl process without a crawl: it counts its commits."""

    store: Store
    taskid: int
    worker: str = "w1"
    name: str = field(default_factory=lambda: f"process-{next(_names)}")
    n_commits: int = 0
    seal: Callable[[Sequence[bytes]], bytes] = b"".join

    @cached_property
    def frontier(self) -> Frontier:
        """Its side of the frontier."""
        return Frontier(self.store, self.taskid, self.name, seal=self.seal)

    def claim(self) -> int:
        """Take a place in the task."""
        return Workers(self.store).claim(self.taskid, self.name, self.worker)

    def join(
        self, *, capacity: int = 16, is_lifo: bool = True, is_start_lifo: bool = True, limits: Limits | None = None
    ) -> Joined:
        """Join the task."""
        joined = self.frontier.join(capacity=capacity, is_lifo=is_lifo, is_start_lifo=is_start_lifo, limits=limits)
        assert isinstance(joined, Joined)
        return joined

    def commit(self, *results: Result, **options: Any) -> Committed:
        """Commit with the next number."""
        self.n_commits += 1
        return self.frontier.commit(self.n_commits, results, **options)

    def repeat(self, *results: Result, **options: Any) -> Committed:
        """Commit with the last number again."""
        return self.frontier.commit(self.n_commits, results, **options)

    def feed(self, *requests: NewRequest, **options: Any) -> Committed:
        """Put requests into the frontier."""
        return self.commit(Result("feed", requests=requests), **options)

    def count(self, **added: float) -> Committed:
        """Count stats."""
        return self.commit(stats=StatChanges(added=added))

    def lease(self, wanted: int) -> list[str]:
        """Claim requests; their payloads, in order."""
        return [lease.payload.decode() for lease in self.commit(wanted=wanted).leases]

    def lease_all(self) -> list[Lease]:
        """Claim all that waits; where there are other processes, it comes in parts."""
        found: list[Lease] = []
        while leases := self.commit(wanted=500).leases:
            found += leases
        return found

    def begin_at_once(self) -> None:
        """Let it have begun when it finished its first request, or output of start()."""
        begin_at_once(self.store, self.taskid, self.name)

    def leave(self, how: str = "left") -> TaskState | None:
        """Leave the task, as its agent does it."""
        state = leave(self.store, self.taskid, self.name, how=how)
        Workers(self.store).release(self.taskid, self.name, self.worker)
        return state


def begin_at_once(store: Store, taskid: int, process: str) -> None:
    """Let a process have begun when it brought its task on for the first time."""
    if (ms := done_ms(store, taskid, process)) is not None:
        set_begin(store, taskid, process, ms)


def done_ms(store: Store, taskid: int, process: str) -> int | None:
    """When a process brought its task on for the first time (ms); None: it has not yet."""
    return int(store.client.hget(keys.commits(taskid), process).split()[1]) or None


def set_begin(store: Store, taskid: int, process: str, ms: int) -> None:
    """Let a process have begun at this time (ms)."""
    place = json.loads(store.client.hget(keys.processes(taskid), process))
    store.client.hset(keys.processes(taskid), process, json.dumps({**place, "claimed_ms": ms}))


def running(store: Store, taskid: int, **options: Any) -> Process:
    """A crawl process that has a place in the task and has joined it."""
    process = Process(store, taskid)
    assert process.claim() > 0, "the task takes no further process"
    process.join(**options)
    return process


@dataclass(frozen=True)
class View:
    """All that stands on Redis for one task's frontier, read key by key, not by what the scripts remember."""

    taskid: int
    record: Mapping[str, str]
    #: (slot, queue) -> payloads, the oldest first.
    waiting: Mapping[tuple[str, str], Sequence[bytes]]
    #: Process -> lease id -> slot, queue, payload.
    leased: Mapping[str, Mapping[str, tuple[str, str, bytes]]]
    active: Mapping[str, int]
    ready: Mapping[str, float]
    queues: Mapping[str, Mapping[str, float]]
    processes: Mapping[str, Mapping[str, Any]]
    #: Names of all of the task's keys, without the prefix, with their time to live (s; -1: none).
    ttls: Mapping[str, int]
    #: Those that run alone, the next one first: slot, queue, payload.
    suspects: Sequence[tuple[str, str, bytes]] = ()

    @property
    def state(self) -> TaskState:
        """The task's state."""
        return TaskState(self.record["state"])

    def number(self, name: str) -> int:
        """One counter of the record."""
        return int(self.record[name])

    def payloads(self) -> Counter[bytes]:
        """All payloads that wait."""
        waiting = [payload for payloads in self.waiting.values() for payload in payloads]
        return Counter([*waiting, *(payload for _, _, payload in self.suspects)])

    def faults(self) -> list[str]:
        """What does not agree with itself."""
        if not self.record:
            return [f"task {self.taskid} has keys and no record"]
        if self.state is TaskState.FINISHED:
            return self._faults_of_finished()
        active = Counter(slot for leases in self.leased.values() for slot, _, _ in leases.values())
        slots = {slot for slot, _ in self.waiting}
        queues: dict[str, dict[str, float]] = {}
        for slot, queue in self.waiting:
            queues.setdefault(slot, {})[queue] = -float(queue.removesuffix("s"))
        owners = {self.record["start_owner"], self.record["idle_owner"]} - {""}
        expected = {
            "queued": (self.number("queued"), sum(self.payloads().values())),
            "suspects": (int(self.record.get("suspects", 0)), len(self.suspects)),
            "leased": (self.number("leased"), active.total()),
            "processes": (self.number("processes"), len(self.processes)),
            "active": ({slot: n for slot, n in self.active.items() if n}, dict(active)),
            "ready": (self.ready, {slot: active[slot] for slot in slots}),
            "queues": (self.queues, queues),
            "leases of processes that have left": (set(self.leased) - set(self.processes), set()),
            "start and idle of processes that have left": (owners - set(self.processes), set()),
            "the start's owner": (self.record["start"] == "running", self.record["start_owner"] != ""),
            "keys with a lifetime": ({name for name, ttl in self.ttls.items() if ttl >= 0}, set()),
        }
        return [f"{what}: {found} != {wanted}" for what, (found, wanted) in expected.items() if found != wanted]

    def _faults_of_finished(self) -> list[str]:
        return [
            *(f"{name} outlives its task" for name in self.ttls if name not in KEPT),
            *(f"{name} has no lifetime" for name, ttl in self.ttls.items() if ttl < 0),
            *(f"{name} is {self.record[name]}" for name in ("queued", "leased", "processes") if self.number(name)),
        ]


def view(store: Store, taskid: int) -> View:
    """Read a task's frontier."""
    client, prefix = store.client, keys.prefix(taskid)
    names = sorted(text(key).removeprefix(prefix) for key in client.keys(f"{prefix}*"))
    pipeline = client.pipeline(transaction=True)
    pipeline.hgetall(keys.task(taskid))
    pipeline.hgetall(f"{prefix}active")
    pipeline.zrange(f"{prefix}ready", 0, -1, withscores=True)
    pipeline.hgetall(keys.processes(taskid))
    for name in names:
        pipeline.ttl(prefix + name)
        if name.startswith("queue:"):
            pipeline.lrange(prefix + name, 0, -1)
        elif name.startswith("queues:"):
            pipeline.zrange(prefix + name, 0, -1, withscores=True)
        elif name.startswith("leases:"):
            pipeline.hgetall(prefix + name)
        elif name == "suspects":
            pipeline.lrange(prefix + name, 0, -1)
        else:
            pipeline.exists(prefix + name)
    record, active, ready, processes, *rest = pipeline.execute()
    found = dict(zip(names, zip(rest[::2], rest[1::2], strict=True), strict=True))
    return View(
        taskid=taskid,
        record=texts(record),
        waiting={_queue_of(name): value for name, (_, value) in found.items() if name.startswith("queue:")},
        leased={
            name.removeprefix("leases:"): {text(id_): _held(held) for id_, held in value.items()}
            for name, (_, value) in found.items()
            if name.startswith("leases:")
        },
        active={slot: int(n) for slot, n in texts(active).items()},
        ready={text(slot): score for slot, score in ready},
        queues={
            name.removeprefix("queues:"): {text(queue): score for queue, score in value}
            for name, (_, value) in found.items()
            if name.startswith("queues:")
        },
        processes={name: json.loads(value) for name, value in texts(processes).items()},
        ttls={name: int(ttl) for name, (ttl, _) in found.items()},
        suspects=[_held(held) for held in found.get("suspects", (0, []))[1]],
    )


def _queue_of(name: str) -> tuple[str, str]:
    slot, _, queue = name.removeprefix("queue:").rpartition(":")
    return slot, queue


def _held(held: bytes) -> tuple[str, str, bytes]:
    slot, queue, payload = held.split(b"\n", 2)
    return text(slot), text(queue), payload


def orphans(store: Store) -> list[str]:
    """Keys that have neither an owner nor a lifetime: nobody will ever remove them."""
    client = store.client
    live = {int(taskid) for registry in (keys.TASKS, keys.SUSPENDED) for taskid in client.zrange(registry, 0, -1)}
    workers = {text(name) for name in client.zrange(keys.WORKERS, 0, -1)}
    found = []
    for key in sorted(text(name) for name in client.keys("*")):
        if key in CLUSTER_KEYS or client.ttl(key) >= 0:
            continue
        if (task := _TASK_KEY.fullmatch(key)) is not None and int(task[1]) in live:
            continue
        if (worker := _WORKER_KEY.fullmatch(key)) is not None and worker[1] in workers:
            continue
        found.append(key)
    return found


def faults(store: Store) -> list[str]:
    """All that does not agree with itself on a server."""
    tasks = {int(match[1]) for key in store.client.keys("{vs:*") if (match := _TASK_KEY.fullmatch(text(key)))}
    return [
        *(f"{key} has neither an owner nor a lifetime" for key in orphans(store)),
        *(f"task {taskid}: {fault}" for taskid in sorted(tasks) for fault in view(store, taskid).faults()),
    ]
