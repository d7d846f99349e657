"""
The agent: a Twisted service that looks at the tasks and keeps a worker's slots filled.

It knows Redis and nothing else. Its reactor never waits: Redis and disks are asked in threads (``contact``), and
the heartbeat has a thread of its own (``pulse``).
"""

from __future__ import annotations

import math
import os
import random
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from setproctitle import setproctitle
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from vscrapy import __version__
from vscrapy.config import redact
from vscrapy.errors import ConfigError, NameTaken, StoreRefused, StoreUnavailable, TaskGone
from vscrapy.labels import labels_to_text
from vscrapy.model import PROTOCOL, Endpoint
from vscrapy.secret import worker_mark
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.blobs import Blobs
from vscrapy.store.streams import Streams
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.store.workers import Workers
from vscrapy.versions import versions_here
from vscrapy.worker.bell import Bell
from vscrapy.worker.checkout import LIMIT_BYTES, Checkouts
from vscrapy.worker.contact import BACKOFF_S, Contact
from vscrapy.worker.environments import Environments
from vscrapy.worker.observer import Observer
from vscrapy.worker.pulse import Identity, Pulse
from vscrapy.worker.reactor import Reactor, Timer, cancel
from vscrapy.worker.reaper import reap
from vscrapy.worker.relay import Relay
from vscrapy.worker.slots import SlotOptions, Slots
from vscrapy.worker.spawner import Spawner
from vscrapy.worker.turns import TURN_S
from vscrapy.worker.watch import (
    CLOSE_TIMEOUT_S,
    Attendance,
    Look,
    Overdue,
    SenderWatch,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

#: Time between two looks at the tasks (s); random, so that agents do not look in step.
LOOK_S: Final = (0.3, 0.7)
#: Shortest time between two looks, however often the bell rings (s).
LOOK_AGAIN_S: Final = 0.05
#: Time for a reply from Redis (s).
REPLY_TIMEOUT_S: Final = 5.0
#: Time between two looks at the cache's size and the blobs' lives (s).
UPKEEP_S: Final = 3600.0
#: Time between two looks at how much room the disk has (s).
DISK_S: Final = 30.0
#: Age of an id without a record after which it is forgotten (ms).
FORGET_MS: Final = 60_000
#: Time to sign off in, at the end (s).
SIGN_OFF_S: Final = 3.0
#: Module and function that a crawl process calls. A name, for the agent never imports what is beyond it.
ENTRY: Final = ("vscrapy.crawl.main", "main")
#: ... and the process that writes a detached task's feeds.
HOME_ENTRY: Final = ("vscrapy.crawl.feeds", "main")

#: States of tasks that may need their environment.
_GOING_ON: Final = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.PAUSED, TaskState.STORING})


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How a worker runs."""

    slots: int
    home: Path
    #: None: the host's name, with a number behind it when it is taken.
    name: str | None = None
    #: End after so long without a task (s); None: never.
    idle_exit_s: float | None = None
    #: How long spiders may take to close when their task does not say (s).
    close_timeout_s: float = CLOSE_TIMEOUT_S
    #: A task's turn, while others wait for a slot (s).
    turn_s: float = TURN_S
    #: Bytes that a bundle may have here.
    bundle_bytes: int = LIMIT_BYTES
    #: Resident memory that a crawl process may take (bytes); 0: any.
    memory_bytes: int = 0
    #: Environments are built for projects that need what is not installed here.
    may_build: bool = True
    #: What tasks can ask for (``vscrapy crawl --on``).
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Finish and end after so many crawl processes; 0: never.
    max_tasks: int = 0
    #: Brings Redis back when it is gone, where it is the embedded one (:func:`vscrapy.embedded.ensure`).
    revive: Callable[[], object] | None = None
    #: Added to the niceness of crawl processes, and of what they are forked from.
    nice: int = 0
    entry: tuple[str, str] = ENTRY
    home_entry: tuple[str, str] = HOME_ENTRY


class Agent(Service):
    """
    A worker. ``done`` fires when it has ended; with an error when it could not go on.

    Raises:
        InsecureStore: From the constructor; Redis has no password, and is not on this machine.
    """

    def __init__(
        self,
        reactor: Reactor,
        endpoint: Endpoint,
        options: AgentOptions,
        *,
        say: Callable[[str], None],
        ready: Callable[[str], None],
    ) -> None:
        self.done: Deferred[None] = Deferred()
        #: It has ended because there was nothing to do for long.
        self.is_idle_end = False
        self._reactor = reactor
        self._endpoint = endpoint
        self._options = options
        self._say = say
        self._ready = ready
        self._store = Store(endpoint, name="vscrapy-worker", reply_timeout_s=REPLY_TIMEOUT_S)
        self._workers = Workers(self._store)
        self._tasks = Tasks(self._store)
        streams = Streams(self._store)
        # Each crawl process can want one for its checkout, one for its log, and one for its end.
        self._contact = Contact(reactor, say, n_threads=8 + 3 * options.slots, revive=options.revive)
        self._relay = Relay(reactor, lambda taskid, lines: self._contact.call(streams.append_log, taskid, lines), say)
        self._spawner = Spawner(reactor, say, nice=options.nice, replaced=self._replaced)
        self._environments = Environments(
            reactor, self._contact, options.home, self._spawner, may_build=options.may_build, say=say
        )
        self._checkouts = Checkouts(options.home, Blobs(self._store), say, limit_bytes=options.bundle_bytes)
        self._slots = Slots(
            reactor,
            self._store,
            self._contact,
            self._relay,
            self._environments,
            self._checkouts,
            SlotOptions(
                *(options.slots, endpoint, options.entry, options.home_entry),
                *(options.close_timeout_s, options.turn_s, options.memory_bytes, options.labels),
            ),
            freed=self._freed,
            wanted=self._look_now,
            say=say,
        )
        self._pulse = Pulse(endpoint, self, self._beat_fields)
        self._bell = Bell(endpoint, ring=lambda: reactor.callFromThread(self._look_now), say=say)
        self._observer = Observer(self._store)
        self._senders = SenderWatch()
        self._overdue = Overdue()
        self._attendance = Attendance()
        self._identity: Identity | None = None
        self._is_looking = False
        self._is_look_wanted = False
        self._look_timer: Timer | None = None
        self._upkeep_s = time.monotonic()
        #: Free on the disk of the home (bytes), and when it was looked at; '': not yet.
        self._free_bytes: int | str = ""
        self._disk_s = 0.0
        self._idle_since_s: float | None = None
        self._n_interrupts = 0
        self._is_draining = False
        self._is_finishing = False
        #: Off the list by its own will; the pulse may still tell that.
        self._is_signed_off = False

    # --- the begin

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()  # type: ignore[no-untyped-call]
        self._spawner.start()
        ensureDeferred(self._begin()).addErrback(self._fail)

    async def _begin(self) -> None:
        await self._reach()
        try:
            await self._contact.in_thread(self._checkouts.prepare)
            await self._look_at_disk()
        except OSError as error:
            home = self._options.home
            raise ConfigError(f"The home directory {home} cannot be used ({error}); set VSCRAPY_HOME.") from error
        await self._register()
        if self._identity is None:
            return
        self._bell.start()
        self._start(self._contact.in_thread(self._environments.trim))
        slots = f"{self._options.slots} slot{'s' if self._options.slots != 1 else ''}"
        self._ready(f"vscrapy worker {self._identity.name} ready: {slots}, {redact(self._endpoint.url)}")

    async def _reach(self) -> None:
        """Wait for Redis: a worker's machine may be up before it."""
        delay_s = BACKOFF_S[0]
        while not self._is_draining:
            try:
                await self._contact.in_thread(self._store.check)
                self._contact.made()
                return
            except StoreUnavailable as error:
                self._contact.lost(error)
            await self._contact.sleep(delay_s)
            delay_s = min(2 * delay_s, BACKOFF_S[1])

    async def _register(self) -> None:
        """Enter this worker under a name that nobody has, and begin its heartbeat and its looks."""
        # No place is claimed under a name that has no heartbeat: nobody would reap it.
        self._identity, self._slots.worker = None, ""
        versions = versions_here()
        fields = {
            **self._beat_fields(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            **{name: versions[name] for name in ("python", "scrapy", "twisted")},
            "labels": labels_to_text(self._options.labels),
        }
        for name in self._names():
            if self._is_draining:
                return
            identity = Identity(name, uuid.uuid4().hex)
            mark = await self._contact.in_thread(worker_mark, self._endpoint.secret, identity.token)
            try:
                await self._contact.insist(self._workers.register, name, identity.token, {**fields, "mark": mark})
            except NameTaken:
                if self._options.name is not None:
                    raise
                continue
            self._identity, self._is_signed_off = identity, False
            self._slots.worker = name
            setproctitle(f"vscrapy-worker {name}")
            self._pulse.beat_as(identity)
            self._look_now()
            return

    def _names(self) -> Iterator[str]:
        if self._options.name is not None:
            yield self._options.name
            return
        host = socket.gethostname()
        yield host
        number = 2
        while True:
            yield f"{host}-{number}"
            number += 1

    # --- the heartbeat; called in its thread

    def _beat_fields(self) -> dict[str, Any]:
        return {
            "slots": self._options.slots,
            "processes": self._slots.n_busy,
            "refused": self._slots.n_refused,
            "draining": int(self._is_draining),
            "clock_ms": int(time.time() * 1000),
            "free_bytes": self._free_bytes,
        }

    def beat_failed(self, error: StoreUnavailable | StoreRefused) -> None:
        """The pulse did not get through."""
        told = self._contact.lost if isinstance(error, StoreUnavailable) else self._contact.refused
        self._reactor.callFromThread(told, error)
        # A Redis that lets us look and refuses all writes refuses the senders' signs of life, too.
        self._reactor.callFromThread(self._senders.broken)

    def found_dead(self, names: list[str]) -> None:
        """The pulse has learned that workers are dead."""
        self._reactor.callFromThread(self._reap, names)

    def told_to_drain(self) -> None:
        """Somebody wants this worker to finish and end."""
        self._reactor.callFromThread(self._drain_once, "it was told to finish (vscrapy drain)")

    def declared_dead(self) -> None:
        """The pulse has learned that this worker counted as dead."""
        self._reactor.callFromThread(self._rise)

    def _reap(self, names: list[str]) -> None:
        if self._identity is not None:
            self._start(self._contact.call(reap, self._store, names, self._identity.name, self._say))

    def _rise(self) -> None:
        if self._is_finishing or self._is_signed_off:
            return
        self._say(
            "this worker was given up for dead (it was suspended, or Redis lost its data); "
            f"its {self._slots.n_busy} crawl processes are ended, and it registers again"
        )
        self._slots.fence()
        self._come_back()

    def _come_back(self) -> None:
        """Register again."""
        ensureDeferred(self._register()).addErrback(self._fail)

    # --- the looks

    def _look_now(self) -> None:
        """Look at once, or once more when a look is on its way."""
        if self._is_looking:
            self._is_look_wanted = True
        elif self._identity is not None and not self._is_finishing:
            self._start(self._look_and_plan())

    async def _look_and_plan(self) -> None:
        cancel(self._look_timer)
        self._is_looking, self._is_look_wanted = True, False
        try:
            await self._look()
        finally:
            self._is_looking = False
            delay_s = LOOK_AGAIN_S if self._is_look_wanted else random.uniform(*LOOK_S)
            if not self._is_finishing:
                self._look_timer = self._reactor.callLater(delay_s, self._look_now)

    async def _look(self) -> None:
        """Look once, and do what follows from it."""
        self._slots.examine(time.monotonic())
        here = self._slots.close_timeouts_s
        try:
            look = await self._contact.call(self._observer.look, frozenset(here))
            self._slots.turn_valves(self._attendance.look(look))
            self._slots.tell_of_ends(look.records)
            await self._stop_lost(self._senders.look(look))
            for taskid, reason in self._overdue.look(time.monotonic(), here, look.records).items():
                self._slots.kill_task(taskid, reason)
            await self._tidy(look)
            records = [look.records[taskid] for taskid in look.live if taskid in look.records]
            served = [record for record in records if not self._senders.is_absent(record)]
            await self._slots.fill(served, look.now_ms)
            await self._slots.make_room(look, served)
            await self._slots.refuse(served)
            self._environments.look([record.taskid for record in records if record.state in _GOING_ON])
            await self._note_idleness(has_tasks=_has_own_tasks(look.live, look.records))
            await self._keep_up()
        except (StoreUnavailable, StoreRefused):  # Said by the contact.
            self._senders.broken()
            await self._note_idleness(has_tasks=False)

    async def _stop_lost(self, taskids: list[int]) -> None:
        for taskid in taskids:
            self._say(f"task {taskid}: its sender is gone; the task is stopped")
            try:
                await self._contact.call(
                    self._tasks.stop, taskid, reason=Reason.SENDER_LOST.value, mode=StopMode.GRACEFUL
                )
            except TaskGone:
                continue  # The next look sees that, too.

    async def _tidy(self, look: Look) -> None:
        """Take what has ended off the registry of live tasks."""
        for taskid in look.live:
            record = look.records.get(taskid)
            if record is None:
                await self._contact.call(self._tasks.forget, taskid, older_than_ms=look.now_ms - FORGET_MS)
            elif record.state is TaskState.FINISHED:
                await self._contact.call(self._tasks.archive, record)
            elif record.state is TaskState.SUSPENDED:
                await self._contact.call(self._tasks.put_aside, record)

    async def _look_at_disk(self) -> None:
        """See how much room there is; in a thread, for the disk may be one of a network that is silent."""
        self._disk_s = math.inf  # not once more, meanwhile
        try:
            self._free_bytes = (await self._contact.in_thread(shutil.disk_usage, self._options.home)).free
        except OSError:
            self._free_bytes = ""
        self._disk_s = time.monotonic()

    async def _keep_up(self) -> None:
        if time.monotonic() - self._disk_s >= DISK_S:
            self._start(self._look_at_disk())
        if time.monotonic() - self._upkeep_s < UPKEEP_S:
            return
        self._upkeep_s = time.monotonic()
        await self._slots.refresh_blobs()
        await self._contact.call(self._tasks.end_forgotten)
        await self._contact.in_thread(self._checkouts.trim)
        await self._contact.in_thread(self._environments.trim)

    async def _note_idleness(self, *, has_tasks: bool) -> None:
        """End when there was nothing to do for long enough; Redis being away is nothing to do."""
        if self._options.idle_exit_s is None or self._is_draining:
            return
        now_s = time.monotonic()
        if has_tasks or self._slots.n_busy:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s >= self._options.idle_exit_s:
            await self._end_idle()

    async def _end_idle(self) -> None:
        """
        Sign off first and look again then: whoever saw this worker alive may be about to submit a task.

        A sender is connected before it looks for workers, so one of the two looks finds it.
        """
        if self._identity is None:
            return
        self._idle_since_s = None
        self._is_signed_off = True
        try:
            if await self._contact.call(self._is_wanted):
                self._is_signed_off = False
                return
            await self._contact.call(self._workers.retire, self._identity.name, self._identity.token)
            if await self._contact.call(self._is_wanted):
                self._come_back()
                return
        except (StoreUnavailable, StoreRefused):
            if self._contact.is_made:
                self._come_back()
                return
        self._say(f"nothing to do for {self._options.idle_exit_s:g} s; it ends")
        self.is_idle_end = True
        self._finish()

    def _is_wanted(self) -> bool:
        """Is there a task, or somebody who may be about to submit one? In a thread."""
        live = self._tasks.live_ids()
        return bool(self._store.strangers()) or _has_own_tasks(live, self._tasks.records(live))

    # --- the end

    def interrupt(self) -> None:
        """A signal to end: the first time gently, then at once."""
        self._n_interrupts += 1
        if self._n_interrupts == 1:
            self._drain()
        elif self._n_interrupts == 2:
            self._say("its crawl processes are ended at once")
            given_up = self._slots.give_up()
            self._limit(given_up)
            given_up.addCallbacks(lambda _: self._finish(), self._cannot_sign_off)
        else:
            self._end(None)

    def _replaced(self, version: str) -> None:
        """Another vscrapy lies on the disk than the one that runs here."""
        words = f"vscrapy {version} is installed here now, and this worker runs {__version__}; it finishes, and ends"
        self._drain_once(f"{words}: start it anew")

    def _drain_once(self, why: str) -> None:
        """Begin to end, if it does not yet."""
        if not self._is_draining:
            self._say(why)
            self._drain()

    def _drain(self) -> None:
        self._is_draining = True
        self._slots.drain()
        n_busy = self._slots.n_busy
        if n_busy == 0:
            self._finish()
            return
        self._start(self._contact.in_thread(self._checkouts.spare.close))
        plural = "es" if n_busy > 1 else ""
        self._say(f"no new work; waiting for {n_busy} crawl process{plural} to leave (again: end at once)")

    def _freed(self) -> None:
        """A slot is free."""
        n_ended = self._slots.n_ended
        if 0 < self._options.max_tasks <= n_ended:
            self._drain_once(f"{n_ended} crawl processes have ended here (--max-tasks)")
        if self._is_draining and self._slots.n_busy == 0:
            self._finish()
        else:
            self._look_now()

    def _fail(self, failure: Failure) -> None:
        """It cannot go on."""
        self._finish(failure.value)

    def _finish(self, error: BaseException | None = None) -> None:
        """Sign off and end."""
        if not self._is_finishing:
            self._is_finishing = True
            ended = ensureDeferred(self._sign_off(error))
            ended.addErrback(self._told)
            ended.addCallback(lambda _: self._end(error))

    async def _sign_off(self, error: BaseException | None) -> None:
        self._bell.stop()
        if self._slots.n_busy and error is not None:
            self._slots.fence()
        closed = self._contact.in_thread(self._checkouts.spare.close)
        self._limit(closed)
        closed.addErrback(self._told)
        await self._contact.in_thread(self._pulse.stop)
        if self._identity is not None:
            signed_off = self._contact.call(self._workers.retire, self._identity.name, self._identity.token)
            self._limit(signed_off)
            signed_off.addErrback(self._cannot_sign_off, error)
            await signed_off
        await closed

    def _cannot_sign_off(self, failure: Failure, error: BaseException | None = None) -> None:
        self._told(failure)
        self._say("could not sign off; the other workers will find out by themselves")
        self._end(error)

    def _limit(self, deferred: Deferred[Any]) -> None:
        reactor: Any = self._reactor  # Twisted asks for its zope interface.
        deferred.addTimeout(SIGN_OFF_S, reactor)

    def _end(self, error: BaseException | None) -> None:
        if self.done.called:
            return
        self._is_finishing = True
        self._relay.stop()
        self._environments.stop()
        self._spawner.stop()
        self._contact.stop()
        cancel(self._look_timer)
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(error)

    def _start(self, work: Coroutine[Any, Any, None] | Deferred[None]) -> None:
        """Let something run by itself; what it raises is told."""
        deferred = ensureDeferred(work) if not isinstance(work, Deferred) else work
        deferred.addErrback(self._told)

    def _told(self, failure: Failure) -> None:
        """The contact has told of Redis; anything else is a bug."""
        if not isinstance(failure.value, StoreUnavailable | StoreRefused | DeferredTimeout):
            self._say(failure.getTraceback())


def _has_own_tasks(live: Iterable[int], records: Mapping[int, TaskRecord]) -> bool:
    """Is there a task that speaks this protocol, or one on its way, which does not say yet?"""
    return any(taskid not in records or records[taskid].protocol == PROTOCOL for taskid in live)
