"""
The slots of a worker: places in tasks are claimed, crawl processes run in them, and the places are left.

Every place that was claimed, or may have been (no reply came), is left and released, however long Redis is away.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import platform
import signal
import time
import traceback
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, ensureDeferred

from vscrapy import __version__, wire
from vscrapy.bundle import manifest_from_json
from vscrapy.errors import (
    BundleError,
    EnvironmentFailed,
    EnvironmentRefused,
    NotVerified,
    ProtocolMismatch,
    StoreRefused,
    StoreUnavailable,
    TaskGone,
)
from vscrapy.labels import Choice
from vscrapy.model import PROTOCOL, Endpoint, Manifest
from vscrapy.requirements import PythonNeeded, Requirements
from vscrapy.sealed import unseal
from vscrapy.secret import task_key
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.blobs import Blobs
from vscrapy.store.frontier import MOST_DEATHS, leave
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.store.workers import Workers
from vscrapy.valve import ALL
from vscrapy.versions import differing, told
from vscrapy.wire import LogLine
from vscrapy.worker.checkout import Checkouts
from vscrapy.worker.contact import BACKOFF_S
from vscrapy.worker.process import CrawlProcess, Place
from vscrapy.worker.turns import Holder, Turns, turn
from vscrapy.worker.vital import Excess, Sign, excess, memory_bytes

if TYPE_CHECKING:
    from vscrapy.store.base import Store
    from vscrapy.worker.contact import Contact
    from vscrapy.worker.environments import Environments
    from vscrapy.worker.reactor import Reactor
    from vscrapy.worker.relay import Relay
    from vscrapy.worker.spawner import Spawner
    from vscrapy.worker.watch import Look

#: Time for the last lines of a process to reach Redis before it leaves (s): after a good end, for leaving can end
#: the task, and then nobody takes lines any more; and after a crash, when its leases are wanted back soon.
FLUSH_S: Final = 5.0
CRASHED_FLUSH_S: Final = 0.3
#: Time that a claim may be on its way (ms).
CLAIM_MS: Final = 10_000
#: Time without further claims when this machine could not start a process (s).
REST_S: Final = 5.0
#: Time without another try at a task whose requirements this worker cannot meet (s), and between two words on that.
UNFIT_S: Final = 60.0
REFUSE_S: Final = 2.0
#: Errors that are this machine's and nobody else's: disk full, no more files, no memory, no rights.
_OWN_ERRORS: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM),
    }
)
#: Exit codes of a crawl process that mean something: no crawl at all; given up for dead.
FAILED_CODE: Final = 70
FENCED_CODE: Final = 71
#: Exit code of home: not all feeds are written.
FEEDS_CODE: Final = 73


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """How crawl processes run here."""

    slots: int
    #: Where the store is, and the secret, which stays here.
    endpoint: Endpoint
    #: Module and function that a crawl process calls; and the process that writes a detached task's feeds.
    entry: tuple[str, str]
    home_entry: tuple[str, str]
    #: How long spiders may take to close when their task does not say (s).
    close_timeout_s: float
    #: A task's turn, while others wait (s).
    turn_s: float
    #: Resident memory that a crawl process may take (bytes); 0: any.
    memory_bytes: int = 0
    #: This worker's labels.
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a crawl process ended."""

    #: For ``leave.lua``: ``left``, ``crashed``, ``failed``.
    how: str
    #: The rest of a sentence for the task's log; empty: nothing to say.
    words: str = ""
    #: It may have been a request that it had in hand.
    is_to_blame: bool = False


@dataclass(slots=True)
class _Resident:
    """A crawl process in its slot."""

    child: CrawlProcess
    #: When the place was taken (s).
    since_s: float
    directory: Path | None = field(default=None)


@dataclass(slots=True)
class _Unfit:
    """A task that needs what this worker lacks, and cannot or may not build."""

    why: str
    #: Until then it is not tried again (monotonic, s).
    until_s: float
    #: From then on Redis is told again (monotonic, s).
    say_s: float = 0.0


class Slots:
    """All slots of one agent."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        contact: Contact,
        relay: Relay,
        environments: Environments,
        checkouts: Checkouts,
        options: SlotOptions,
        *,
        freed: Callable[[], None],
        wanted: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._workers = Workers(store)
        self._tasks = Tasks(store)
        self._blobs = Blobs(store)
        self._contact = contact
        self._relay = relay
        self._environments = environments
        self._checkouts = checkouts
        self._options = options
        self._freed = freed
        #: Called when a task may have become large enough for one more process.
        self._wanted = wanted
        self._say = say
        self._turns = Turns(options.turn_s)
        #: The name that places are claimed under; empty: none are claimed now.
        self.worker = ""
        #: How often a task was not begun here because something of it was not signed, or not what was signed.
        self.n_refused = 0
        #: Crawl processes that have run here, and ended.
        self.n_ended = 0
        self._residents: dict[str, _Resident] = {}
        self._n_claiming = 0
        self._is_draining = False
        #: Until then no place is claimed (monotonic, s).
        self._rests_until_s = 0.0
        #: Counts how often all places were given to others.
        self._epoch = 0
        #: Protocols of tasks that are left to other workers; each is said once.
        self._foreign: set[int] = set()
        #: Tasks that need what this worker lacks.
        self._unfit: dict[int, _Unfit] = {}
        #: Tasks whose records say that they take this worker, and their jobs do not.
        self._misled: set[tuple[int, Choice]] = set()
        #: Tasks, and differences of versions that their senders need not be told from here any more.
        self._warned: set[tuple[int, str]] = set()

    @property
    def n_busy(self) -> int:
        """Slots that are taken, or just being taken."""
        return len(self._residents) + self._n_claiming

    @property
    def close_timeouts_s(self) -> dict[int, float]:
        """The tasks that run here, and how long each may take to close its spiders."""
        return {resident.child.place.taskid: resident.child.close_timeout_s for resident in self._residents.values()}

    async def fill(self, records: Iterable[TaskRecord], now_ms: int) -> None:
        """
        Claim a place in each task that grows, or wants its feeds written: at most one in each, those with the
        fewest processes first, and of these who waits longest. Who got one may take another one.

        Args:
            now_ms: Redis time of the look that showed the records, or before it.
        """
        if time.monotonic() < self._rests_until_s:
            return
        wanting = [record for record in records if record.is_growing or record.wants_home]
        self._mention_foreign(wanting)
        for record in sorted(filter(self._is_fit, wanting), key=turn):
            if self._is_draining or not self.worker or self.n_busy >= self._options.slots:
                return
            await self._claim(record, now_ms + CLAIM_MS)

    def _mention_foreign(self, records: Iterable[TaskRecord]) -> None:
        """Say in this worker's log, once for each protocol, which tasks it leaves to others."""
        for record in records:
            if record.protocol != PROTOCOL and record.protocol not in self._foreign:
                self._foreign.add(record.protocol)
                self._say(
                    f"task {record.taskid} was made by {record.maker}, and this is vscrapy {__version__} (protocol "
                    f"{PROTOCOL}); it and its like are left to workers of that version"
                )

    async def make_room(self, look: Look, records: Iterable[TaskRecord]) -> None:
        """
        Ask processes to leave for tasks that have waited long enough, as far as it is fair.

        Args:
            records: Tasks of this look that may get a place here.
        """
        holders = [
            Holder(child.place.taskid, child.place.process, child.place.number, resident.since_s)
            for resident in self._residents.values()
            if not ((child := resident.child).place.is_home or child.is_asked_to_leave or child.kill_reason)
        ]
        # Those of another protocol have their processes on other workers.
        ours = {taskid: record for taskid, record in look.records.items() if record.protocol == PROTOCOL}
        pleas = self._turns.look(time.monotonic(), look.now_ms, self._wanting(records), ours, holders)
        tried: set[str] = set()
        for plea in pleas:
            if self._is_draining or not self.worker or self.n_busy < self._options.slots:
                return
            offers = [offer for offer in plea.offers if offer.process not in tried]
            if not offers:
                continue
            chosen = await self._contact.call(self._workers.make_room, plea.taskid, plea.processes, offers)
            # Once in a look: what hinders a process hinders it for the next task, too.
            tried.update(offer.process for offer in (offers[: offers.index(chosen) + 1] if chosen else offers))
            if chosen is not None and (resident := self._residents.get(chosen.process)) is not None:
                resident.child.ask_to_leave(plea.reasons[chosen])

    def _wanting(self, records: Iterable[TaskRecord]) -> list[TaskRecord]:
        """The tasks that would take one more process, and that this worker can serve."""
        return [record for record in records if (record.is_growing or record.wants_home) and self._is_fit(record)]

    def _is_fit(self, record: TaskRecord) -> bool:
        """Does the task take this worker, speak its protocol, and need no more than there can be?"""
        if record.protocol != PROTOCOL or (record.taskid, record.choice) in self._misled:
            return False
        return record.choice.takes(self.worker, self._options.labels) and not self._is_unfit(record.taskid)

    def _is_unfit(self, taskid: int) -> bool:
        found = self._unfit.get(taskid)
        return found is not None and time.monotonic() < found.until_s

    async def refuse(self, records: Iterable[TaskRecord]) -> None:
        """End tasks that wait although no worker can serve them."""
        now_s = time.monotonic()
        waiting = {record.taskid: record for record in records if record.is_waiting}
        for taskid in [taskid for taskid in self._unfit if taskid not in waiting and not self._is_unfit(taskid)]:
            del self._unfit[taskid]
        for taskid, unfit in list(self._unfit.items()):
            if taskid not in waiting or now_s < unfit.say_s or not self.worker:
                continue
            unfit.say_s = now_s + REFUSE_S
            if not await self._contact.call(self._workers.refuse, taskid, self.worker, waiting[taskid].choice):
                continue
            self._tell(Place(taskid, "", 0, self.worker), f"no worker can run this task: {unfit.why}")
            await self._relay.flushed(taskid, FLUSH_S)
            with contextlib.suppress(TaskGone):
                await self._contact.call(self._tasks.stop, taskid, reason=Reason.FAILED.value, mode=StopMode.FORCED)
            self._relay.close(taskid)

    def _tell(self, place: Place, words: str) -> None:
        """Say something of a task's environment in its log."""
        self._put_in_log(place, f"vscrapy: environment: {words}\n")

    def kill_task(self, taskid: int, reason: str) -> None:
        """End a task's processes at once."""
        for resident in self._residents.values():
            if resident.child.place.taskid == taskid:
                resident.child.kill(reason)

    def examine(self, now_s: float) -> None:
        """See whether processes are stuck, or take more memory than they may."""
        for resident in self._residents.values():
            child = resident.child
            if child.pid is None or child.kill_reason or child.place.is_home:
                continue
            self._feel_pulse(child, child.pulse.look(now_s))
            self._weigh(child)

    def _feel_pulse(self, child: CrawlProcess, sign: Sign | None) -> None:
        silent_s = f"{child.pulse.silent_s:.0f} s"
        if sign is Sign.ASK:
            child.ask_to_answer()
        elif sign is Sign.STUCK:
            until = f"; it is killed after {child.pulse.timeout_s:g} s" if child.pulse.timeout_s else ""
            self._say_in_log(child.place, f"is stuck: it has done nothing else for {silent_s}{until}; it is here:")
            child.show_stack()
        elif sign is Sign.DEAD:
            reason = f"it was stuck in one place for {child.pulse.timeout_s:g} s (VSCRAPY_REQUEST_TIMEOUT)"
            child.kill(reason, is_to_blame=True)

    def _weigh(self, child: CrawlProcess) -> None:
        if not self._options.memory_bytes or child.pid is None:
            return
        used = memory_bytes(child.pid)
        words = f"it uses {used >> 20} MiB, of {self._options.memory_bytes >> 20} MiB that it may (--memory)"
        found = excess(used, self._options.memory_bytes)
        if found is Excess.KILL:
            child.kill(words, is_to_blame=True)
        elif found is Excess.LEAVE and not child.is_asked_to_leave:
            child.ask_to_leave(words)

    def tell_of_ends(self, records: Mapping[int, TaskRecord]) -> None:
        """Let processes know that their tasks end."""
        for resident in self._residents.values():
            record = records.get(resident.child.place.taskid)
            if record is not None and record.state is TaskState.STOPPING:
                resident.child.ask_to_look()

    def turn_valves(self, levels: dict[int, int]) -> None:
        """Relay the lines of each task from its level on, and spare its processes what is below it."""
        self._relay.levels = levels
        for resident in self._residents.values():
            self._turn_valve(resident.child)

    def _turn_valve(self, child: CrawlProcess) -> None:
        child.turn_valve(self._relay.levels.get(child.place.taskid, ALL))

    def fence(self) -> None:
        """All places were given to others: end their processes."""
        self._epoch += 1
        for resident in self._residents.values():
            resident.child.is_fenced = True
            resident.child.kill("its worker was given up for dead")

    def drain(self) -> None:
        """Take no place any more, and ask all processes to leave."""
        self._is_draining = True
        for resident in self._residents.values():
            resident.child.ask_to_leave()

    def give_up(self) -> Deferred[None]:
        """End all processes at once and leave their places, in one go."""
        self._is_draining = True
        residents = list(self._residents.values())
        for resident in residents:
            resident.child.kill("its worker was told to end at once")
        return self._contact.call(self._leave_all, residents)

    def refresh_blobs(self) -> Deferred[None]:
        """Give the files of the tasks that run here a new life."""
        shas = {sha for resident in self._residents.values() for sha in resident.child.shas}
        return self._contact.call(self._blobs.refresh, sorted(shas))

    # --- a place

    async def _claim(self, record: TaskRecord, until_ms: int) -> None:
        taskid, worker, epoch = record.taskid, self.worker, self._epoch
        process = f"{worker}.{uuid.uuid4().hex[:12]}"
        self._n_claiming += 1
        try:
            claim = self._workers.claim_home if record.wants_home else self._workers.claim
            number = await self._contact.call(claim, taskid, process, worker, until_ms=until_ms)
        except ProtocolMismatch:  # Since the look; the next one sees it.
            return
        except (StoreUnavailable, StoreRefused):
            self._start(self._give_back(Place(taskid, process, 0, worker), is_late=True))  # It may have happened.
            return
        finally:
            self._n_claiming -= 1
        if number <= 0:
            return
        place = Place(taskid, process, number, worker, is_home=record.wants_home)
        if self._is_draining or epoch != self._epoch:
            self._start(self._give_back(place))
            return
        child = CrawlProcess(self._reactor, place, self._relay, grows=self._wanted)
        child.close_timeout_s = self._options.close_timeout_s
        self._residents[process] = resident = _Resident(child, time.monotonic())
        self._start(self._attend(resident, record))
        self._wanted()

    async def _attend(self, resident: _Resident, record: TaskRecord) -> None:
        """Be with a crawl process from its claim to its release."""
        child = resident.child
        try:
            ending = await self._run(resident, record)
        # Whatever it was, the place must be left.
        except Exception:  # noqa: BLE001
            self._say(f"task {record.taskid}: {traceback.format_exc()}")
            ending = _Ending("crashed", "ended by an error of the worker, which is in its own log")
        await self._leave(child, ending)
        if resident.directory is not None:
            await self._contact.in_thread(self._checkouts.check_in, resident.directory)
        self.n_ended += child.is_launched
        del self._residents[child.place.process]
        if record.taskid not in self.close_timeouts_s:
            self._relay.close(record.taskid)
        self._freed()

    async def _run(self, resident: _Resident, record: TaskRecord) -> _Ending:
        """Run a crawl process until it has ended."""
        child, taskid = resident.child, record.taskid
        try:
            job, key = await self._contact.insist(self._read_job, taskid)
            child.key = key
            if not self._is_chosen(child.place, record, job):
                return _Ending("left")
            _check_python(job)
            child.pulse.timeout_s = float(job.get("request_timeout_s", child.pulse.timeout_s))
            manifest = manifest_from_json(job["manifest"])
            child.shas = sorted({file.sha256 for root in manifest.roots for file in root.files})
            child.close_timeout_s = float(job.get("close_timeout_s", self._options.close_timeout_s))
            if not self._is_wanted(child):
                return _Ending("left")
            resident.directory = await self._check_out(child.place, manifest)
            if not self._is_wanted(child):
                return _Ending("left")
            spawner = await self._spawner(child, job, manifest, resident.directory)
            if spawner is None or not self._is_wanted(child):
                return _Ending("left")
            comparing: list[Deferred[None]] = []
            compare = partial(self._compare, child.place, job)
            child.on_started = lambda: comparing.append(self._start(compare(spawner.versions)))
            child.launch(spawner, self._spec(child.place, record, job, key, resident.directory))
            self._turn_valve(child)
        except (NotVerified, BundleError) as error:
            self.n_refused += 1
            self._say(f"task {taskid} is not run: {error}")
            return _Ending("failed", f"was not started: {error}")
        except EnvironmentFailed as error:
            self._say(f"task {taskid} is not run: no environment with {_source(job)}; its log says why")
            words = f"{error}; '--requirements none' lets it run with what workers have"
            return _Ending("failed", f"was not started: no environment with {_source(job)}: {words}")
        except EnvironmentRefused as error:
            is_new = taskid not in self._unfit
            self._unfit[taskid] = _Unfit(str(error), time.monotonic() + UNFIT_S)
            words = f"was not started: {error}; another worker must"
            return _Ending("left", words if is_new else "")
        except (TaskGone, OSError) as error:
            self._say(f"task {taskid} cannot be run here: {error}")
            if isinstance(error, OSError) and error.errno in _OWN_ERRORS:
                # Not a crash: another worker can run it, or this one, later.
                self._rests_until_s = time.monotonic() + REST_S
                return _Ending("left", f"was not started: {error}; this worker tries again later")
            return _Ending("crashed", f"was not started: {error}")
        code = await child.ended
        if code is None and child.pid is None and self._is_draining:
            # It was never forked.
            return _Ending("left", "was not started: vscrapy was replaced there; the worker ends, start it anew")
        for compared in comparing:  # before its end is the task's
            await compared
        return _ending(child, code)

    async def _spawner(
        self, child: CrawlProcess, job: dict[str, Any], manifest: Manifest, directory: Path
    ) -> Spawner | None:
        """Give what starts crawl processes with all that the project needs; None: it is not wanted any more."""
        data = job.get("requirements")
        try:
            requirements = Requirements("") if data is None else Requirements.from_data(data)
        except ValueError as error:
            raise BundleError(str(error)) from error
        project = manifest.roots[0]
        try:
            return await self._environments.spawner(
                requirements,
                directory / project.name,
                {file.path: file.sha256 for file in project.files},
                taskid=child.place.taskid,
                is_wanted=lambda: self._is_wanted(child),
                tell=lambda words: self._tell(child.place, words),
            )
        except EnvironmentRefused as error:
            raise EnvironmentRefused(f"{requirements.source}: {error}") from error

    def _is_chosen(self, place: Place, record: TaskRecord, job: Mapping[str, Any]) -> bool:
        """Does the task take this worker? The record says so; the job, which is signed, must say the same."""
        choice = Choice(tuple(job.get("on", ())), tuple(job.get("exclude", ())))
        if choice.takes(place.worker, self._options.labels):
            return True
        self.n_refused += 1
        self._misled.add((place.taskid, record.choice))
        self._say(f"task {place.taskid} is not run: it was sent with {choice}, and somebody has changed its record")
        return False

    async def _compare(self, place: Place, job: Mapping[str, Any], here: Mapping[str, str]) -> None:
        """
        Warn when the sender has other versions than what the crawl runs with here: results may differ.

        Each difference is told once in a task, by whichever worker sees it first.
        """
        sent = job.get("versions", {})
        names = differing(sent, here)
        if not names:
            return
        difference = f"has {told(here, names)}; the task was sent with {told(sent, names)}"
        if (place.taskid, difference) in self._warned:
            return
        self._warned.add((place.taskid, difference))
        if await self._contact.insist(self._tasks.may_say, place.taskid, difference, place.process):
            words = f"worker {place.worker} {difference} (see 'vscrapy -l --versions')"
            self._put_in_log(place, f"vscrapy: warning: {words}\n", logging.WARNING)

    @staticmethod
    def _is_wanted(child: CrawlProcess) -> bool:
        return not (child.is_asked_to_leave or child.kill_reason)

    def _read_job(self, taskid: int) -> tuple[dict[str, Any], bytes]:
        """A task's job, and the key that signs its payloads."""
        try:
            job, key = wire.open_job(self._tasks.job(taskid), self._options.endpoint.secret, taskid)
        except ValueError as error:
            raise BundleError(str(error)) from error
        if not isinstance(job.get("manifest"), str):
            raise BundleError("the task has no manifest; was it sent by another version of vscrapy?")
        if sealed := job.pop("sealed_env", ""):
            of_task = task_key(self._options.endpoint.secret, taskid)
            job["env"] = {**job.get("env", {}), **unseal(sealed, of_task, taskid, job["nonce"])}
        return job, key

    async def _check_out(self, place: Place, manifest: Manifest) -> Path:
        return await self._contact.insist(self._checkouts.check_out, place.taskid, place.number, manifest)

    def _spec(
        self, place: Place, record: TaskRecord, job: dict[str, Any], key: bytes, directory: Path
    ) -> dict[str, Any]:
        endpoint, is_home = self._options.endpoint, place.is_home
        return {
            "id": place.process,
            "entry": list(self._options.home_entry if is_home else self._options.entry),
            "taskid": place.taskid,
            "process": place.process,
            "number": place.number,
            "worker": place.worker,
            "url": endpoint.url,
            "source": endpoint.source,
            "insecure": endpoint.is_insecure_allowed,
            # Of this task alone, and not for jobs: the cluster's secret is not for user code.
            "key": key.hex(),
            "directory": str(directory),
            "home": str(self._checkouts.home),
            "job": job,
            "title": f"vscrapy-{'home' if is_home else 'crawl'} task {place.taskid} {record.spider}",
        }

    # --- its end

    async def _leave(self, child: CrawlProcess, ending: _Ending) -> None:
        """Send the process's last lines, give its leases back, and free its place."""
        place = child.place
        if ending.words and not child.is_fenced:
            self._say_in_log(place, ending.words)
        patience_s = CRASHED_FLUSH_S if ending.how == "crashed" else FLUSH_S
        delay_s = BACKOFF_S[0]
        while True:
            await self._relay.flushed(place.taskid, patience_s)
            try:
                await self._contact.call(self._leave_now, place, ending.how, _failure(child, ending))
                return
            except (StoreUnavailable, StoreRefused):
                await self._contact.sleep(delay_s)
                delay_s = min(2 * delay_s, BACKOFF_S[1])

    def _say_in_log(self, place: Place, words: str) -> None:
        """Say something of a process in its task's log."""
        self._put_in_log(place, f"vscrapy: {place.title} on worker {place.worker} {words}\n", logging.CRITICAL)

    def _put_in_log(self, place: Place, text: str, level: int = 0) -> None:
        line = LogLine("err", text, time.time(), level=level, process=place.number, worker=place.worker)
        self._relay.add(place.taskid, [line], worker=place.worker)

    async def _give_back(self, place: Place, *, is_late: bool = False) -> None:
        """
        Leave a place that nothing was started in.

        Args:
            is_late: The claim may arrive after this (a network that was silent delivers late): leave it once more
                when Redis takes it no longer.
        """
        if is_late:
            await self._contact.insist(leave, self._store, place.taskid, place.process, how="left")
            await self._contact.sleep(CLAIM_MS / 1000)
        await self._contact.insist(self._leave_now, place, "left")

    def _leave_now(self, place: Place, how: str, failure: bytes = b"") -> None:
        leave(self._store, place.taskid, place.process, how=how, failure=failure)
        self._workers.release(place.taskid, place.process, place.worker)

    def _leave_all(self, residents: list[_Resident]) -> None:
        for resident in residents:
            self._leave_now(resident.child.place, "left")  # Not a crash: somebody wanted it so.
            if resident.directory is not None:
                self._checkouts.remove(resident.directory)

    def _start(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Let a coroutine run by itself; what it raises is a bug, and told."""
        return ensureDeferred(work).addErrback(lambda failure: self._say(failure.getTraceback()))


def _ending(child: CrawlProcess, code: int | None) -> _Ending:
    """Say what a process's exit means."""
    if code in (0, FENCED_CODE, FEEDS_CODE):
        return _Ending("left")
    if code == FAILED_CODE:
        return _Ending("failed")  # It has said why.
    back = "the feeds are written anew" if child.place.is_home else "what it had in hand goes back"
    is_to_blame = child.is_to_blame and not (child.is_fenced or child.place.is_home)
    if child.kill_reason:
        return _Ending("crashed", f"was killed: {child.kill_reason}", is_to_blame)
    if code is None:
        return _Ending("crashed", f"ended in an unknown way; {back}")
    if code > 0:
        return _Ending("crashed", f"exited with code {code}; {back}", is_to_blame)
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return _Ending("crashed", f"was killed by {name}{hint}; {back}", is_to_blame)


def _check_python(job: Mapping[str, Any]) -> None:
    """See that a task runs with this worker's Python, which is that of its environments, too."""
    if job.get("python") is None:
        return
    try:
        needed = PythonNeeded.from_data(job["python"])
    except ValueError as error:
        raise BundleError(str(error)) from error
    here = platform.python_version()
    if not needed.takes(here):
        raise EnvironmentRefused(
            f"{needed.source} asks for Python {needed.versions}, and this worker has {here} ('--requirements none' "
            "lets it run all the same)"
        )


def _source(job: dict[str, Any]) -> str:
    """The file that says what a project needs."""
    return str(job["requirements"]["source"])


def _failure(child: CrawlProcess, ending: _Ending) -> bytes:
    """What is told of a request whose processes die, if this was the last that it gets; signed. Empty: none did."""
    if not (ending.is_to_blame and child.key):
        return b""
    told = child.suspect or {}
    failure = wire.Failure(
        what=wire.What.PROCESS,
        error=f"{child.place.title} {ending.words.partition(';')[0]}",
        url=str(told.get("url", "(not known)")),
        method=str(told.get("method", "")),
        callback=str(told.get("callback", "")),
        errback=str(told.get("errback", "")),
        tries=MOST_DEATHS,
        status=0,
        time=time.time(),
        worker=child.place.worker,
        process=child.place.number,
    )
    return wire.encode_failure(failure, child.key)
