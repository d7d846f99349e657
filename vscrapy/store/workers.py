"""Workers: register, heartbeat, the ones past their deadline, and places for crawl processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from vscrapy import keys
from vscrapy.errors import NameTaken, ProtocolMismatch, WorkerGone
from vscrapy.labels import ANY, Choice, labels_from_text
from vscrapy.model import PROTOCOL
from vscrapy.shown import shown
from vscrapy.store.base import Store, text, texts
from vscrapy.store.connection import translate
from vscrapy.store.frontier import leave

#: A worker without a heartbeat for so long is dead (ms).
WORKER_TTL_MS: Final = 7000
#: Time between two heartbeats (s).
HEARTBEAT_S: Final = 2.0
#: Silence of all workers that means that Redis was away (ms).
SILENCE_MS: Final = 5000
#: Time in which only one crawl process leaves for a task that waits for a slot (ms); then it takes too long, and
#: another one may.
PROMISE_MS: Final = 10_000
#: Time that a process counts as leaving, from when it is asked to (ms): its pages in flight are finished meanwhile.
LEAVING_MS: Final = 60_000

#: Time for which it counts that a worker cannot serve a task (ms).
REFUSAL_MS: Final = 15_000


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a worker says of itself."""

    name: str
    is_alive: bool
    slots: int
    processes: int
    host: str
    pid: int
    version: str
    python: str
    scrapy: str
    protocol: int
    #: Milliseconds since the epoch, Redis time.
    since_ms: int
    seen_ms: int
    #: How often it has not begun a task because something was not signed, or not what was signed.
    refused: int = 0
    #: What it was labelled with.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: It finishes what it has in hand, and ends; or was told so.
    is_draining: bool = False
    twisted: str = ""
    #: Its clock, minus that of Redis (ms).
    clock_ms: int = 0
    #: Free on the disk of its home (bytes); -1: it does not say.
    free_bytes: int = -1
    #: What it registered with, and what shows which secret it has (:func:`vscrapy.secret.worker_mark`).
    token: str = field(default="", repr=False)
    mark: str = field(default="", repr=False)

    @property
    def versions(self) -> dict[str, str]:
        """What it crawls with (:mod:`vscrapy.versions`); '': it does not say."""
        return {"python": self.python, "scrapy": self.scrapy, "twisted": self.twisted, "vscrapy": self.version}


@dataclass(frozen=True, slots=True)
class Heard:
    """The reply to a heartbeat."""

    #: Workers past their deadline, at most 5.
    dead: list[str]
    #: It is to finish what it has in hand, and to end.
    is_to_drain: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A crawl process that could leave, so that another task gets its slot."""

    taskid: int
    process: str
    #: Processes of its task that must stay; 0: its turn is over, or its task is paused.
    least: int
    #: Another one rather than the process that runs ``start()``.
    is_start_spared: bool = True
    #: It has had so many turns that it may go without having finished anything.
    is_long: bool = False


class Workers:
    """All workers on a Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def register(self, name: str, token: str, fields: dict[str, Any]) -> None:
        """
        Enter a worker. What a dead one of its name held goes back. Safe to call again.

        Raises:
            NameTaken: A live worker has the name.
        """
        flat = [part for field in {"protocol": PROTOCOL, **fields}.items() for part in field]
        if not self._store.run(
            "register",
            [keys.WORKERS, keys.worker(name)],
            [name, token, WORKER_TTL_MS, keys.WORKER_TTL_S, *flat],
        ):
            raise NameTaken(f"a live worker is named {name!r} already; give this one another --name")
        # The name is alive from now on, so no reaper looks at what its former bearer left.
        self.leave_places(name)

    def beat(self, name: str, token: str, fields: dict[str, Any]) -> Heard | None:
        """
        Give a sign of life.

        Returns:
            None when the name is not this agent's any more.
        """
        flat = [part for field in fields.items() for part in field]
        reply = self._store.run(
            "beat",
            [keys.WORKERS, keys.worker(name), keys.worker_processes(name), keys.PULSE],
            [name, token, WORKER_TTL_MS, SILENCE_MS, keys.WORKER_TTL_S, *flat],
        )
        answer = int(reply[0])
        return Heard([text(dead) for dead in reply[1:]], is_to_drain=answer == 2) if answer else None

    def drain(self, name: str) -> bool:
        """
        Tell a worker to finish what it has in hand, and to end. Safe to repeat.

        Returns:
            False: it is ending already.

        Raises:
            WorkerGone: No live worker has the name.
        """
        answer = int(self._store.run("drain", [keys.WORKERS, keys.worker(name)], [name]))
        if not answer:
            raise WorkerGone(f"no worker named {name!r} is online; 'vscrapy -l' lists the workers")
        return answer == 1

    def retire(self, name: str, token: str = "") -> bool:
        """Take a worker off the list: this agent's own (*token*), or a dead one. False: it is alive."""
        return bool(
            self._store.run(
                "retire",
                [keys.WORKERS, keys.worker(name), keys.worker_processes(name)],
                [name, token],
            )
        )

    def claim(self, taskid: int, process: str, worker: str, *, until_ms: int = 0) -> int:
        """
        Take a place for a crawl process in a task, if the task needs one.

        Args:
            until_ms: Redis time after which the call does nothing, should it arrive so late; 0: it always does.

        Returns:
            The process's number in the task; 0 when it is not needed.

        Raises:
            ProtocolMismatch: The task was made by a vscrapy that speaks another protocol.
        """
        return self._claim(
            "claim",
            [keys.task(taskid), keys.processes(taskid), keys.starved(taskid), keys.commits(taskid)],
            taskid,
            process,
            worker,
            until_ms,
            keys.prefix(taskid),
        )

    def claim_home(self, taskid: int, process: str, worker: str, *, until_ms: int = 0) -> int:
        """Take the place of home in a detached task with feeds to write; otherwise as :meth:`claim`."""
        return self._claim("home", [keys.task(taskid), keys.processes(taskid)], taskid, process, worker, until_ms)

    def make_room(self, taskid: int, processes: int, offers: Sequence[Offer]) -> Offer | None:
        """
        Choose the crawl process that leaves for a task, if the task still waits and no other one leaves for it.

        Args:
            processes: Processes that the task was seen to have.
            offers: Processes of other tasks, the best first.

        Returns:
            The one that must be told to leave now, and counts as leaving; None: none of them.
        """
        for offer in offers:
            promise = partial(self._promise, taskid, offer.process, processes)
            if not promise(PROMISE_MS):
                return None
            args = [offer.process, offer.least, int(offer.is_start_spared), int(offer.is_long), taskid, LEAVING_MS]
            names = [keys.task(offer.taskid), keys.processes(offer.taskid), keys.locals_(offer.taskid)]
            names.append(keys.commits(offer.taskid))
            if self._store.run("yield", names, args):
                return offer
            promise(0)
        return None

    def _promise(self, taskid: int, process: str, processes: int, life_ms: int) -> bool:
        names = [keys.task(taskid), keys.starved(taskid)]
        return bool(self._store.run("promise", names, [process, processes, PROTOCOL, life_ms]))

    def _claim(
        self, script: str, names: list[str], taskid: int, process: str, worker: str, until_ms: int, *more: str
    ) -> int:
        pipeline = self._store.client.pipeline(transaction=True)
        pipeline.sadd(keys.worker_processes(worker), f"{taskid}:{process}")
        # Also where the worker has no entry any more, and no heartbeat will renew it.
        pipeline.expire(keys.worker_processes(worker), keys.WORKER_TTL_S)
        with translate(self._store.endpoint):
            pipeline.execute()
        number = int(self._store.run(script, names, [process, worker, PROTOCOL, until_ms, *more]))
        if number <= 0:
            self.release(taskid, process, worker)
        if number < 0:
            raise ProtocolMismatch(f"task {taskid} was made by a vscrapy with another protocol than {PROTOCOL}")
        return number

    def leave_places(self, worker: str) -> list[tuple[int, str]]:
        """
        Let the crawl processes of a dead worker leave their tasks. Safe to repeat.

        For each task that is one crash, however many processes it had there: one machine must not use up
        :data:`~vscrapy.store.frontier.MOST_CRASHES`.
        """
        places = self.processes(worker)
        told: set[int] = set()
        for taskid, process in places:
            leave(self._store, taskid, process, how="left" if taskid in told else "crashed")
            told.add(taskid)
            self.release(taskid, process, worker)
        return places

    def release(self, taskid: int, process: str, worker: str) -> None:
        """The worker does not run this process any more. Safe to repeat."""
        with translate(self._store.endpoint):
            self._store.client.srem(keys.worker_processes(worker), f"{taskid}:{process}")

    def refuse(self, taskid: int, worker: str, choice: Choice = ANY) -> bool:
        """
        Say that a worker cannot serve a task; to be repeated while the task waits.

        Args:
            choice: Which workers the task takes.

        Returns:
            Has every worker that lives, speaks this protocol and may serve the task said so lately?
        """
        name = keys.refusals(taskid)
        with translate(self._store.endpoint):
            client = self._store.client
            seconds, microseconds = client.time()
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000
            pipeline = client.pipeline(transaction=True)
            pipeline.hset(name, worker, now_ms)
            pipeline.expire(name, keys.REFUSAL_TTL_S)
            pipeline.hgetall(name)
            said = texts(pipeline.execute()[-1])
        fresh = {other for other, at_ms in said.items() if at_ms.isdigit() and now_ms - int(at_ms) < REFUSAL_MS}
        return all(
            record.name in fresh
            for record in self.list()
            if record.is_alive and record.protocol == PROTOCOL and choice.takes(record.name, record.labels)
        )

    def processes(self, worker: str) -> list[tuple[int, str]]:
        """The crawl processes that a worker runs: taskid and process."""
        with translate(self._store.endpoint):
            members = self._store.client.smembers(keys.worker_processes(worker))
        pairs = (text(member).partition(":") for member in members)
        return sorted((int(taskid), process) for taskid, _, process in pairs if taskid.isdecimal())

    def list(self) -> list[WorkerRecord]:
        """All workers that are on the list, by name."""
        with translate(self._store.endpoint):
            client = self._store.client
            seconds, microseconds = client.time()
            deadlines = {text(name): score for name, score in client.zrange(keys.WORKERS, 0, -1, withscores=True)}
            pipeline = client.pipeline(transaction=False)
            for name in deadlines:
                pipeline.hgetall(keys.worker(name))
            records = [texts(record) for record in pipeline.execute()] if deadlines else []
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        return sorted(
            (
                _worker(name, record, is_alive=deadlines[name] > now_ms)
                for name, record in zip(deadlines, records, strict=True)
                if record
            ),
            key=lambda worker: worker.name,
        )


def _worker(name: str, record: dict[str, str], *, is_alive: bool) -> WorkerRecord:
    def number(field: str) -> int:
        value = record.get(field, "")
        return int(value) if value.isdigit() else 0

    record = {field: shown(value) for field, value in record.items()}
    return WorkerRecord(
        name=shown(name),
        is_alive=is_alive,
        slots=number("slots"),
        processes=number("processes"),
        host=record.get("host", ""),
        pid=number("pid"),
        version=record.get("version", ""),
        python=record.get("python", ""),
        scrapy=record.get("scrapy", ""),
        protocol=number("protocol"),
        since_ms=number("since_ms"),
        seen_ms=number("seen_ms"),
        refused=number("refused"),
        twisted=record.get("twisted", ""),
        clock_ms=number("clock_ms") - number("seen_ms") if record.get("clock_ms") else 0,
        free_bytes=number("free_bytes") if record.get("free_bytes") else -1,
        token=record.get("token", ""),
        mark=record.get("mark", ""),
        labels=labels_from_text(record.get("labels", "")),
        is_draining=number("draining") > 0 or (bool(record.get("drain")) and record["drain"] == record.get("token")),
    )
