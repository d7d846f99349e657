"""
Tasks: submit, look at, stop; and the sender's sign of life.

Records and stats are not signed: they say how a task gets on, never what is run. One that cannot be read counts as
not being there, so that it keeps nobody from the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from vscrapy import __version__, keys
from vscrapy.errors import ProtocolMismatch, StoreRefused, StoreUnavailable, TaskGone
from vscrapy.labels import ANY, Choice
from vscrapy.model import PROTOCOL
from vscrapy.shown import shown
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.base import Store, text, texts
from vscrapy.store.connection import translate
from vscrapy.store.frontier import NewRequest
from vscrapy.store.stat_changes import StatChanges, added_up, number_of, of_commit
from vscrapy.store.submission import TaskOptions, submission
from vscrapy.valve import Valve


@dataclass(frozen=True, slots=True)
class Tally:
    """What all commits of a task have counted, as its record has it."""

    pages: int = 0
    items: int = 0
    errors: int = 0
    #: Requests that were put into the frontier, and those that were filtered as seen.
    enqueued: int = 0
    filtered: int = 0

    @classmethod
    def read(cls, told: str) -> Self:
        """
        Read it; '': nothing yet.

        Raises:
            ValueError, TypeError: It is none.
        """
        return cls(*map(int, told.split()))


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What stands in a task's record, and some of its stats."""

    taskid: int
    spider: str
    state: TaskState
    reason: str
    exit_code: int
    is_attached: bool
    created_ms: int
    ended_ms: int
    #: The sender's last sign of life, and how long it may be silent (ms; 0: detached).
    sender_ms: int
    sender_timeout_ms: int
    queued: int
    leased: int
    processes: int
    #: Requests that one process can have in flight.
    capacity: int
    #: 0: as many as there is room for.
    max_processes: int
    stop_mode: StopMode | None
    protocol: int
    pages: int
    items: int
    errors: int
    #: ``start()`` was lost with the process that ran it.
    is_start_lost: bool = False
    #: Of a detached task's feeds that are no files: ``wanted``, ``waiting``, ``writing``, ``written``, ``failed``;
    #: '': it has none.
    feeds: str = ""
    #: Log lines that are kept.
    log_keep: int = 0
    #: Bytes of items that wait to be fetched, and that may (0: any number).
    items_bytes: int = 0
    items_limit: int = 0
    #: Which lines of its log are relayed.
    valve: Valve = Valve.AUTO
    #: Since when the task has had no crawl process, while it has none (ms).
    waits_since_ms: int = 0
    #: Until then, a crawl process of another task leaves for this one (ms).
    promised_until_ms: int = 0
    #: Which workers it takes; the job has the same, signed.
    choice: Choice = ANY
    #: Version of vscrapy that made it; '': it does not say.
    version: str = ""

    @property
    def maker(self) -> str:
        """What made it, for messages."""
        return _maker(self.version, self.protocol)

    @property
    def is_waiting(self) -> bool:
        """Does the task wait for a slot, and nothing is done for it?"""
        is_due = self.state in (TaskState.QUEUED, TaskState.RUNNING) and self.processes == 0
        return is_due or self.wants_home

    @property
    def is_held(self) -> bool:
        """Do so many items wait to be fetched that nothing is crawled?"""
        return self.state is TaskState.RUNNING and 0 < self.items_limit <= self.items_bytes

    @property
    def is_growing(self) -> bool:
        """Would the task take one more crawl process? ``_need.lua`` decides it, atomically, and knows more."""
        if self.state not in (TaskState.QUEUED, TaskState.RUNNING) or (self.is_held and self.processes):
            return False
        if self.max_processes and self.processes >= self.max_processes:
            return False
        return self.processes == 0 or self.is_start_lost or self.queued > self.processes * self.capacity

    @property
    def wants_home(self) -> bool:
        """Are there feeds that nobody writes? ``_need.lua`` decides the same, and when."""
        return self.state is TaskState.STORING and self.feeds == "waiting"


@dataclass(frozen=True, slots=True)
class Reopened:
    """The reply to who wants to go on with a task."""

    #: What it was: it goes on only if it was suspended; None: it is not there any more.
    state: TaskState | None
    #: Where its log ended.
    cursor: str


class Cleaned(StrEnum):
    """What has become of a task that was to be cleaned away."""

    REMOVED = "removed"
    #: There is no such task.
    GONE = "gone"
    #: It has not ended.
    LIVE = "live"
    #: It has items that nobody has fetched.
    ITEMS = "items"
    #: Its sender may still be at work on what it got.
    HOME = "home"


#: Time that a sender has after the end to say that it is through with items and files (ms).
THROUGH_MS: Final = 600_000


def read_ids(members: Iterable[bytes]) -> list[int]:
    """Task ids of a registry; what is none is left out."""
    return [int(member) for member in members if member.isdigit()]


def read_ms(time: tuple[int, int]) -> int:
    """Redis's clock, as ``TIME`` gives it (ms since the epoch)."""
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def read_records(taskids: Iterable[int], replies: Iterable[Any]) -> dict[int, TaskRecord]:
    """Records as ``HGETALL`` gives them; those of no task, and those that cannot be read, are left out."""
    read = {taskid: _readable(taskid, texts(record)) for taskid, record in zip(taskids, replies, strict=True)}
    return {taskid: record for taskid, record in read.items() if record is not None}


def _readable(taskid: int, record: dict[str, str]) -> TaskRecord | None:
    try:
        return _record(taskid, record)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _record(taskid: int, record: dict[str, str]) -> TaskRecord:
    def number(name: str) -> int:
        return int(float(record.get(name) or 0))

    tally = Tally.read(record.get("tally", ""))
    return TaskRecord(
        taskid=taskid,
        spider=shown(record.get("spider", "")),
        state=TaskState(record["state"]),
        reason=shown(record.get("reason", "")),
        exit_code=number("exit_code"),
        is_attached=number("sender_timeout_ms") > 0,
        created_ms=number("created_ms"),
        ended_ms=number("ended_ms"),
        sender_ms=number("sender_ms"),
        sender_timeout_ms=number("sender_timeout_ms"),
        queued=number("queued"),
        leased=number("leased"),
        processes=number("processes"),
        capacity=number("capacity"),
        max_processes=number("max_processes"),
        stop_mode=StopMode(record["stop_mode"]) if record.get("stop_mode") else None,
        protocol=number("protocol"),
        pages=tally.pages,
        items=tally.items,
        errors=tally.errors,
        is_start_lost=record.get("start") == "lost",
        feeds=record.get("feeds", ""),
        log_keep=number("log_keep"),
        items_bytes=number("items_bytes") - number("items_dropped_bytes"),
        items_limit=number("items_limit"),
        valve=Valve(record.get("valve") or Valve.AUTO),
        waits_since_ms=number("waits_since_ms") or number("created_ms"),
        promised_until_ms=number("promised_until_ms"),
        choice=Choice(*(tuple(shown(record.get(name, "")).split()) for name in ("on", "exclude"))),
        version=shown(record.get("version", "")),
    )


def _maker(version: str, protocol: int | str) -> str:
    return f"vscrapy {version or 'of another version'} (protocol {protocol})"


class Tasks:
    """All tasks on a Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def new_id(self) -> int:
        """Take the next taskid, and enter it in the registry before any key of the task exists."""
        with translate(self._store.endpoint):
            taskid = int(self._store.client.incr(keys.TASKID))
        self.enter(taskid)
        return taskid

    def enter(self, taskid: int) -> None:
        """Enter a task in the registry. Safe to repeat."""
        now_ms = self.now_ms()
        with translate(self._store.endpoint):
            self._store.client.zadd(keys.TASKS, {str(taskid): now_ms}, nx=True)

    def submit(
        self,
        taskid: int,
        job: bytes,
        *,
        spider: str,
        options: TaskOptions,
        has_feeds: bool = False,
        job_dir: str = "",
        requests: Sequence[NewRequest] = (),
    ) -> None:
        """
        Make the task, and wake the agents. Safe to call again.

        Args:
            job: The signed job.
            has_feeds: Home is to write feeds when all is crawled.
            job_dir: What its job directory knows it by; with one, the task is kept when it ends early.
            requests: What waits from the beginning; the task then has no ``start()`` to run.
        """
        script_keys, args = submission(
            taskid, job, spider=spider, options=options, has_feeds=has_feeds, job_dir=job_dir, requests=requests
        )
        self._store.run("submit", script_keys, args)
        self.wake()

    def confirm(self, taskid: int) -> bool:
        """Let the spiders of a provisional task open; False: the task is gone. Safe to call again."""
        return bool(self._store.run("confirm", [keys.task(taskid), keys.log(taskid)], []))

    def wake(self) -> None:
        """Tell the agents to look at once."""
        with translate(self._store.endpoint):
            self._store.client.publish(keys.WAKE, b"")

    def job(self, taskid: int) -> bytes:
        """
        Get a task's signed job.

        Raises:
            TaskGone: There is none.
        """
        with translate(self._store.endpoint):
            job = self._store.client.get(keys.job(taskid))
        if job is None:
            raise TaskGone(f"task {taskid} does not exist (any more); 'vscrapy -l' lists the tasks")
        assert isinstance(job, bytes)
        return job

    def live_ids(self) -> list[int]:
        """The ids of the tasks that have not ended, oldest first."""
        with translate(self._store.endpoint):
            return read_ids(self._store.client.zrange(keys.TASKS, 0, -1))

    def finished_ids(self, most: int) -> list[int]:
        """The ids of the tasks that ended last, newest first."""
        with translate(self._store.endpoint):
            return read_ids(self._store.client.zrevrange(keys.FINISHED, 0, most - 1))

    def records(self, taskids: list[int]) -> dict[int, TaskRecord]:
        """Read records in one round trip; ids without one, and those that cannot be read, are left out."""
        pipeline = self._store.client.pipeline(transaction=False)
        for taskid in taskids:
            pipeline.hgetall(keys.task(taskid))
        with translate(self._store.endpoint):
            replies: list[Any] = pipeline.execute() if taskids else []
        return read_records(taskids, replies)

    def record(self, taskid: int) -> TaskRecord:
        """
        Read one record.

        Raises:
            TaskGone: There is no such task.
            ProtocolMismatch: It was made by a vscrapy that speaks another protocol.
        """
        self.require_own(taskid)
        record = self.records([taskid]).get(taskid)
        if record is None:
            raise TaskGone(f"task {taskid} does not exist (any more); 'vscrapy -l' lists the tasks")
        return record

    def require_own(self, taskid: int) -> None:
        """
        See that a task, if there is one, speaks this protocol: of another one, nothing is known but that.

        Raises:
            ProtocolMismatch: It was made by a vscrapy that speaks another protocol.
        """
        protocol, version = self._made_by(taskid)
        if protocol not in ("", str(PROTOCOL)):
            raise ProtocolMismatch(
                f"task {taskid} was made by {_maker(version, protocol)}, and this is "
                f"{_maker(__version__, PROTOCOL)}; give this command with "
                + (f"vscrapy {version}" if version else "the version that made it")
            )

    def _made_by(self, taskid: int) -> tuple[str, str]:
        """The protocol and the version of vscrapy that made a task; '': not known."""
        with translate(self._store.endpoint):
            protocol, version = self._store.client.hmget(keys.task(taskid), "protocol", "version")
        return shown(text(protocol)), shown(text(version))

    def stop(self, taskid: int, *, reason: str, mode: StopMode, if_idle: bool = False) -> TaskState:
        """
        Give the task a reason to end; the first reason stands. Safe to call again.

        Args:
            if_idle: Only if no request waits or is leased.

        Raises:
            TaskGone: There is no such task.
        """
        with translate(self._store.endpoint):
            if self._store.client.zscore(keys.SUSPENDED, str(taskid)) is not None:  # it ends for good
                self._store.client.zadd(keys.TASKS, {str(taskid): self.now_ms()})
        state = text(
            self._store.run(
                "stop",
                [keys.task(taskid)],
                [
                    *(keys.prefix(taskid), reason, mode.value, keys.FINISHED_TTL_S),
                    int(reason in (Reason.SENDER_LOST, Reason.FAILED)),
                    int(if_idle),
                ],
            )
        )
        if not state:
            raise TaskGone(f"task {taskid} does not exist (any more); 'vscrapy -l' lists the tasks")
        self.wake()
        return TaskState(state)

    def pause(self, taskid: int) -> tuple[bool, TaskState]:
        """
        Hold the task still. Safe to call again.

        Returns:
            Did it go on until now? And its state after the call.

        Raises:
            TaskGone: There is no such task.
        """
        return self._turn("pause", taskid)

    def resume(self, taskid: int) -> tuple[bool, TaskState]:
        """
        Let a paused task go on. Safe to call again.

        Returns:
            Was it paused? And its state after the call.

        Raises:
            TaskGone: There is no such task.
        """
        return self._turn("resume", taskid)

    def turn_valve(self, taskid: int, valve: Valve) -> tuple[bool, TaskState]:
        """
        Say which lines of the task's log are relayed. Safe to call again.

        Returns:
            Did the valve stand otherwise, of a task that has not ended? And the task's state.

        Raises:
            TaskGone: There is no such task.
        """
        return self._turn("valve", taskid, valve.value)

    def _turn(self, script: str, taskid: int, *args: str) -> tuple[bool, TaskState]:
        changed, state = self._store.run(script, [keys.task(taskid)], list(args))
        if not state:
            raise TaskGone(f"task {taskid} does not exist (any more); 'vscrapy -l' lists the tasks")
        if changed:
            self.wake()
        return bool(changed), TaskState(text(state))

    def may_say(self, taskid: int, words: str, asker: str) -> bool:
        """May *asker* say this in a task's log? One of all may, once a task. Safe to repeat."""
        return bool(self._store.run("say_once", [keys.task(taskid)], [words, asker]))

    def is_home(self, taskid: int, process: str) -> bool:
        """Is this process the one that writes the task's feeds?"""
        with translate(self._store.endpoint):
            return bool(self._store.client.hexists(keys.processes(taskid), process))

    def stored(self, taskid: int, process: str) -> bool:
        """Note that *process* has written the feeds; False: it is not home any more. Safe to repeat."""
        return bool(self._store.run("stored", [keys.task(taskid), keys.processes(taskid)], [process]))

    def reopen(self, taskid: int, job: bytes, *, token: str, options: TaskOptions) -> Reopened:
        """
        Let a suspended task go on, with a new job, and wake the agents.

        Args:
            token: What its job directory knows it by.
        """
        with translate(self._store.endpoint):  # first, so that its keys always have an owner
            now_ms = self.now_ms()
            self._store.client.zadd(keys.TASKS, {str(taskid): now_ms})
        reply = self._store.run(
            "reopen",
            [
                *(keys.task(taskid), keys.job(taskid), keys.log(taskid), keys.stats(taskid)),
                *(keys.stat_values(taskid), keys.final_stats(taskid), keys.counts(taskid)),
            ],
            [keys.prefix(taskid), token, job, options.sender_timeout_ms, *options.fields()],
        )
        with translate(self._store.endpoint):
            self._store.client.zrem(keys.SUSPENDED, str(taskid))
        self.wake()
        return Reopened(TaskState(text(reply[0])) if reply[0] else None, text(reply[1]))

    def put_aside(self, record: TaskRecord) -> None:
        """Move a suspended task from the registry of live tasks to that of suspended ones. Safe to repeat."""
        with translate(self._store.endpoint):
            self._store.client.zadd(keys.SUSPENDED, {str(record.taskid): record.ended_ms})
            self._store.client.zrem(keys.TASKS, str(record.taskid))

    def suspended_ids(self) -> list[int]:
        """The ids of the suspended tasks, the longest suspended first."""
        with translate(self._store.endpoint):
            return read_ids(self._store.client.zrange(keys.SUSPENDED, 0, -1))

    def end_forgotten(self) -> None:
        """End the suspended tasks that nobody has gone on with."""
        before_ms = self.now_ms() - keys.SUSPENDED_TTL_S * 1000
        with translate(self._store.endpoint):
            forgotten = self._store.client.zrangebyscore(keys.SUSPENDED, "-inf", before_ms)
        for taskid in read_ids(forgotten):
            with suppress(TaskGone, ProtocolMismatch):
                self.require_own(taskid)
                self.stop(taskid, reason=Reason.SHUTDOWN, mode=StopMode.GRACEFUL)

    def archive(self, record: TaskRecord) -> None:
        """Move a finished task from the registry of live tasks to that of finished ones. Safe to repeat."""
        pipeline = self._store.client.pipeline(transaction=True)
        pipeline.zadd(keys.FINISHED, {str(record.taskid): record.ended_ms})
        pipeline.zrem(keys.TASKS, str(record.taskid))
        pipeline.zrem(keys.SUSPENDED, str(record.taskid))
        pipeline.zremrangebyscore(keys.FINISHED, "-inf", record.ended_ms - keys.FINISHED_TTL_S * 1000)
        with translate(self._store.endpoint):
            pipeline.execute()

    def clean(self, taskid: int, *, is_forced: bool) -> Cleaned:
        """
        Remove what is kept of a task that has ended. Safe to repeat.

        Args:
            is_forced: Also when items are there that nobody has fetched.

        Raises:
            ProtocolMismatch: It was made by a vscrapy that speaks another protocol, and may have other keys.
        """
        self.require_own(taskid)
        names = [keys.task(taskid), keys.items(taskid), keys.final_stats(taskid), keys.job(taskid), keys.log(taskid)]
        names += [keys.stats(taskid), keys.stat_values(taskid), keys.counts(taskid), keys.failures(taskid)]
        reply = self._store.run("clean", [*names, keys.files(taskid)], [int(is_forced), THROUGH_MS])
        found = Cleaned(text(reply))
        if found in (Cleaned.REMOVED, Cleaned.GONE):
            with translate(self._store.endpoint):
                self._store.client.zrem(keys.FINISHED, str(taskid))
        return found

    def forget(self, taskid: int, *, older_than_ms: int) -> None:
        """
        Take an id that has no record off the registry, if it is too old to be still on its way; nor one that cannot
        be read, unless another protocol's workers can.
        """
        protocol, _ = self._made_by(taskid)
        is_foreign = protocol.isdecimal() and protocol != str(PROTOCOL)
        with translate(self._store.endpoint):
            score = self._store.client.zscore(keys.TASKS, str(taskid))
            if score is not None and score < older_than_ms and not is_foreign:
                self._store.client.zrem(keys.TASKS, str(taskid))

    def sign_of_life(self, taskid: int) -> tuple[TaskState, int, int] | None:
        """
        The attached sender is there.

        Returns:
            State, crawl processes now, crawl processes ever; None when the task is gone.
        """
        reply = self._store.run("sender", [keys.task(taskid)], [])
        if not reply:
            return None
        return TaskState(text(reply[0])), int(reply[1]), int(reply[2])

    def now_ms(self) -> int:
        """Redis's clock (ms since the epoch)."""
        with translate(self._store.endpoint):
            return read_ms(self._store.client.time())

    def stats(self, taskid: int) -> tuple[dict[str, int | float], list[dict[str, Any]]]:
        """Read the counted stats, and for each crawl process those that it set."""
        names = [keys.stats(taskid), keys.commits(taskid), keys.stat_values(taskid), keys.task(taskid)]
        counted, commits, values, tally = self._store.run("stats", names, [])
        pairs = zip(counted[::2], counted[1::2], strict=True)
        numbers = {text(name): number for name, value in pairs if (number := number_of(text(value))) is not None}
        found = [_object(text(value)) for _, value in sorted(zip(values[::2], values[1::2], strict=True))]
        changes = [of_commit(commit) for commit in commits[1::2]]
        own = _counted_by_frontier(text(tally or b""))
        return added_up(numbers, [*changes, own.packed()]), [value for value in found if value is not None]

    def keep_stats(self, taskid: int, values: str) -> None:
        """Keep the stats that home has dumped, as JSON; they are the last word. Safe to repeat."""
        with translate(self._store.endpoint):
            self._store.client.set(keys.final_stats(taskid), values, ex=keys.FINISHED_TTL_S)

    def kept_stats(self, taskid: int) -> str:
        """The stats that home has dumped, as JSON; '' when there are none."""
        with translate(self._store.endpoint):
            kept = text(self._store.client.get(keys.final_stats(taskid)))
        return kept if kept and _object(kept) is not None else ""


def _counted_by_frontier(told: str) -> StatChanges:
    try:
        tally = Tally.read(told)
    except (TypeError, ValueError):  # not signed: it counts for nothing, as a stat does that is no number
        return StatChanges()
    counted = {
        "scheduler/enqueued": tally.enqueued,
        "scheduler/enqueued/memory": tally.enqueued,
        "dupefilter/filtered": tally.filtered,
    }
    return StatChanges({name: number for name, number in counted.items() if number})


def _object(value: str) -> dict[str, Any] | None:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Subscription:
    """
    A subscription that is there to be counted: the sender's, on its task's channel, and that of ``vscrapy -c``.

    Must be used by one thread.
    """

    def __init__(self, store: Store, *channels: str) -> None:
        self._store = store
        self._channels = channels
        self._pubsub: Any = None

    def keep(self, *, wait_s: float) -> bool:
        """
        Subscribe if need be, and wait; True: a message came.

        Raises:
            StoreUnavailable, StoreRefused: The subscription is gone; call again to renew it.
        """
        try:
            with translate(self._store.endpoint):
                if self._pubsub is None:
                    self._pubsub = self._store.client.pubsub()
                    self._pubsub.subscribe(*self._channels)
                message = self._pubsub.get_message(timeout=wait_s)
        except (StoreUnavailable, StoreRefused):
            self.close()
            raise
        return message is not None and message["type"] == "message"

    def close(self) -> None:
        """Give the subscription up."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            pubsub.close()
