"""All faults, each a small class; the plan chooses among them by name."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from contextlib import suppress
from typing import Final

from tests.chaos.fault import Fault, ServerFault, WorkerFault
from tests.chaos.stage import LEFT_S, Worker, signal_all
from tests.integration.machine import wait_for
from vscrapy.store.workers import WORKER_TTL_MS

#: A worker that was suspended for so long has been given up for dead, if another one lives (seconds).
DEAD_S: Final = WORKER_TTL_MS / 1000 + 4
#: Time for a worker that was told to leave (seconds): what is in flight is finished, Redis may be away meanwhile.
LEAVE_S: Final = 60.0


# --- processes


class CrawlProcessKilled(WorkerFault):
    """``kill -9`` of one crawl process."""

    name = "crawl process killed"

    def is_suitable(self, worker: Worker) -> bool:
        """It must have one."""
        return bool(worker.crawl_processes)

    def do(self) -> str | None:
        """Kill it."""
        pids = self.worker.crawl_processes
        if not pids:
            return None
        pid = self.chance.choice(pids)
        signal_all([pid], signal.SIGKILL)
        return str(pid)


class TemplateKilled(WorkerFault):
    """``kill -9`` of the process that crawl processes are forked from."""

    name = "template killed"

    def do(self) -> str | None:
        """Kill it."""
        pids = self.worker.titled("vscrapy-template")
        signal_all(pids, signal.SIGKILL)
        return str(pids[0]) if pids else None


class AgentKilled(WorkerFault):
    """``kill -9`` of an agent alone: its processes end by themselves. Another worker joins some time later."""

    name = "agent killed"

    def do(self) -> str:
        """Kill it."""
        return self.end({self.worker.running.pid})

    def end(self, pids: set[int]) -> str:
        """Kill some processes of a worker, the agent among them."""
        self.worker.is_gone = True
        # The template first: it would tell the agent of its children's ends.
        signal_all(sorted(pids, reverse=True), signal.SIGKILL)
        return f"{len(pids)} processes"

    def hold(self) -> None:
        """Let it be missed, or not yet."""
        self.stage.hold(self.chance.uniform(0, DEAD_S))

    def undo(self) -> None:
        """Let another one come."""
        if not self.stage.is_over:
            self.stage.join_worker(self.chance.choice((1, 2)))


class WorkerKilled(AgentKilled):
    """``kill -9`` of an agent with all its processes. Another worker joins some time later."""

    name = "worker killed with all"

    def do(self) -> str:
        """Kill them."""
        return self.end(self.worker.everyone())


class Suspended(WorkerFault):
    """SIGSTOP to some of a worker's processes; SIGCONT later."""

    pids: list[int]

    def do(self) -> str | None:
        """Stop them."""
        self.pids = self.chosen()
        signal_all(self.pids, signal.SIGSTOP)
        return f"{len(self.pids)} processes" if self.pids else None

    def chosen(self) -> list[int]:
        """All of them."""
        return sorted(self.worker.everyone())

    def undo(self) -> None:
        """Let them go on; the crawl processes first: nobody but Redis tells them that they are late."""
        crawling = set(self.worker.crawl_processes)
        signal_all([pid for pid in self.pids if pid in crawling], signal.SIGCONT)
        self.stage.hold(self.chance.choice((0, 0.5)))
        signal_all(self.pids, signal.SIGCONT)


class SuspendedLong(Suspended):
    """A worker sleeps past its deadline; what it commits then must be refused."""

    name = "worker suspended past its deadline"

    def leaves_gap(self) -> bool:
        """Without another worker nobody gives it up."""
        return True

    def hold(self) -> None:
        """Wait until others have what it had."""
        gone = self.worker.name
        self.stage.hold(DEAD_S + 4, lambda: bool(self.stage.places()) and gone not in self.stage.places().values())


class AgentSuspendedLong(SuspendedLong):
    """Only the agent sleeps past its deadline: its crawl processes go on, and are refused."""

    name = "agent suspended past its deadline"

    def chosen(self) -> list[int]:
        """The agent."""
        return [self.worker.running.pid]


class SuspendedShortly(Suspended):
    """A worker sleeps, and wakes up before its deadline."""

    name = "worker suspended shortly"

    def hold(self) -> None:
        """For up to four seconds."""
        self.stage.hold(self.chance.uniform(0.2, 4))


class CrawlProcessSuspended(Suspended):
    """One crawl process sleeps for some time, its agent does not."""

    name = "crawl process suspended"

    def is_suitable(self, worker: Worker) -> bool:
        """It must have one."""
        return bool(worker.crawl_processes)

    def chosen(self) -> list[int]:
        """One crawl process."""
        pids = self.worker.crawl_processes
        return [self.chance.choice(pids)] if pids else []

    def hold(self) -> None:
        """For up to twelve seconds."""
        self.stage.hold(self.chance.uniform(0.2, 12))


# --- workers


class WorkerJoins(Fault):
    """One more worker comes."""

    name = "worker joins"

    def inject(self) -> str | None:
        """Start it."""
        return self.stage.join_worker(self.chance.choice((1, 2))).name


class WorkerLeaves(WorkerFault):
    """A worker is told to end (SIGTERM), and another one comes later."""

    name = "worker leaves"

    def do(self) -> str:
        """Tell it."""
        self.worker.running.signal(signal.SIGTERM)
        return "SIGTERM"

    def hold(self) -> None:
        """Wait for its end."""
        with suppress(subprocess.TimeoutExpired):
            self.worker.running.process.wait(LEAVE_S)

    def undo(self) -> None:
        """Let another one come."""
        self.worker.is_gone = self.worker.running.process.poll() == 0
        if not self.stage.is_over:
            self.stage.join_worker(self.chance.choice((1, 2)))


class DiskFull(WorkerFault):
    """No file can be written on a worker's disk, and one of its crawl processes is killed, so that it wants to."""

    name = "disk full"
    needs_small_disk = True

    def is_suitable(self, worker: Worker) -> bool:
        """It must have a disk that can be full."""
        return worker.disk is not None

    def do(self) -> str:
        """Fill it; without a disk of its own, let no file of its processes become larger than nothing."""
        assert self.worker.disk is not None
        if os.path.ismount(self.worker.disk):
            self.fill()
        else:
            self.limit(0)
        signal_all(self.worker.crawl_processes[:1], signal.SIGKILL)
        return "not a byte more"

    def fill(self) -> None:
        """Write until the disk refuses."""
        assert self.worker.disk is not None
        with open(self.worker.disk / "ballast", "wb", buffering=0) as ballast:
            for size in (4096, 1):
                try:
                    while ballast.write(bytes(size)) == size:
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def limit(self, size_bytes: int) -> None:
        """Limit the size of files, for the processes that are there."""
        for pid in self.worker.everyone():
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def hold(self) -> None:
        """For up to twelve seconds."""
        self.stage.hold(self.chance.uniform(2, 12))

    def undo(self) -> None:
        """Make room."""
        assert self.worker.disk is not None
        (self.worker.disk / "ballast").unlink(missing_ok=True)
        self.limit(resource.RLIM_INFINITY)


class ClocksDiffer(Fault):
    """Two workers' clocks are an hour apart, from the beginning to the end."""

    name = "clocks an hour apart"
    needs_clocks = True

    def inject(self) -> str | None:
        """See that they are."""
        return ", ".join(f"{name} {shift_s:+g} s" for name, shift_s in self.stage.layout.clocks) or None


# --- the server


class ServerKilled(ServerFault):
    """``kill -9`` of the server, which is started again from its append-only file."""

    name = "Redis killed and restarted"

    def inject(self) -> str | None:
        """Not while the sender could not come back."""
        if not self.stage.take_sender():
            return None
        words = super().inject()
        if words is None:
            self.stage.leave_sender()
        return words

    def do(self) -> str:
        """Kill it."""
        self.stage.server.kill()
        return "SIGKILL"

    def hold(self) -> None:
        """It is away for up to four seconds."""
        self.stage.hold(self.chance.choice((0, self.chance.uniform(0, 4))))

    def undo(self) -> None:
        """Start it again."""
        self.stage.server.start()
        self.stage.leave_sender()


class ServerSuspended(ServerFault):
    """The server does not answer for some time, and goes on then."""

    name = "Redis suspended"

    def do(self) -> str:
        """Stop it."""
        self.stage.server.signal(signal.SIGSTOP)
        return "SIGSTOP"

    def hold(self) -> None:
        """For up to twelve seconds."""
        self.stage.hold(self.chance.choice((self.chance.uniform(0.2, 4), self.chance.uniform(4, 12))))

    def undo(self) -> None:
        """Let it go on."""
        self.stage.server.signal(signal.SIGCONT)


class OutOfMemory(ServerFault):
    """The server answers OOM to what needs memory."""

    name = "Redis answers OOM"

    def do(self) -> str:
        """Give it no memory."""
        self.configure(("maxmemory-policy", "noeviction"), ("maxmemory", "1"))
        return "maxmemory 1"

    def configure(self, *settings: tuple[str, str]) -> None:
        """Change its configuration."""
        with self.stage.server.client() as client:
            for name, value in settings:
                client.config_set(name, value)

    def hold(self) -> None:
        """For up to twelve seconds."""
        self.stage.hold(self.chance.uniform(0.5, 12))

    def undo(self) -> None:
        """Give it memory."""
        self.configure(("maxmemory", "0"))


class Misconf(OutOfMemory):
    """The server cannot write its snapshot, and answers MISCONF to every write (and to PING)."""

    name = "Redis answers MISCONF"

    def do(self) -> str:
        """Put a directory where its snapshot belongs, and let it write one."""
        (self.stage.server.directory / "dump.rdb").mkdir(exist_ok=True)
        self.configure(("save", "3600 1"))
        with self.stage.server.client() as client:
            client.bgsave()
            wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok", LEFT_S)
        return "its snapshot fails"

    def undo(self) -> None:
        """Want no snapshots any more."""
        self.configure(("save", ""))
        (self.stage.server.directory / "dump.rdb").rmdir()


# --- the network


class NetworkFault(Fault):
    """One that is done to the way of one worker, of the sender, or of all."""

    needs_proxies = True
    names: list[str]

    def inject(self) -> str | None:
        """Choose whose."""
        proxies = sorted(self.stage.proxies)
        everybody = [[name] for name in proxies]
        self.names = self.chance.choice([*everybody, proxies] if proxies else [[]])
        if "sender" in self.names and not self.stage.take_sender():
            self.names = [name for name in self.names if name != "sender"]
        if not self.names:
            return None
        for name in self.names:
            self.do(name)
        return ", ".join(self.names)

    def do(self, name: str) -> None:
        """Do it to one way."""
        raise NotImplementedError

    def heal(self) -> None:
        """Undo it to all."""
        for name in self.names:
            self.undo(name)
        if "sender" in self.names:
            self.stage.leave_sender()

    def undo(self, name: str) -> None:
        """Undo it to one way, as far as there is something to undo."""


class ConnectionReset(NetworkFault):
    """All connections are reset; new ones come about."""

    name = "connections reset"

    def do(self, name: str) -> None:
        """Reset them."""
        self.stage.proxies[name].reset()


class NetworkSilent(NetworkFault):
    """Packets are swallowed for up to half a minute; what was sent arrives after it, late."""

    name = "network silent"

    def do(self, name: str) -> None:
        """Let nothing through."""
        self.stage.proxies[name].fall_silent()

    def hold(self) -> None:
        """For three, or twelve, or thirty seconds."""
        self.stage.hold(self.chance.choice((3, 12, 30)))

    def undo(self, name: str) -> None:
        """Let everything through."""
        self.stage.proxies[name].pass_on()


class NetworkSilentThenReset(NetworkSilent):
    """Packets are swallowed, and then the connections are reset: what was sent may have arrived, or not."""

    name = "network silent, then reset"

    def undo(self, name: str) -> None:
        """Reset, and let everything through."""
        self.stage.proxies[name].reset()
        self.stage.proxies[name].pass_on()


class NetworkSlow(NetworkFault):
    """Everything arrives later."""

    name = "network slow"

    def do(self, name: str) -> None:
        """Delay it."""
        self.stage.proxies[name].delay(self.chance.choice((0.02, 0.2, 0.5)))

    def hold(self) -> None:
        """For up to ten seconds."""
        self.stage.hold(self.chance.uniform(1, 10))

    def undo(self, name: str) -> None:
        """Be as fast as before."""
        self.stage.proxies[name].delay(0)


# --- the sender


class SenderSuspended(Fault):
    """The sender sleeps, for less than its timeout."""

    name = "sender suspended"
    needs_sender = True
    pids: list[int]

    def inject(self) -> str | None:
        """Stop it."""
        if not self.stage.take_sender():
            return None
        self.pids = self.chosen()
        if not self.pids:
            self.stage.leave_sender()
            return None
        signal_all(self.pids, signal.SIGSTOP)
        return f"{len(self.pids)} processes"

    def chosen(self) -> list[int]:
        """The sender."""
        assert self.stage.sender is not None
        running = self.stage.sender.running
        return [running.pid] if running.is_running else []

    def hold(self) -> None:
        """For up to eight seconds."""
        self.stage.hold(self.chance.uniform(0.2, 8))

    def heal(self) -> None:
        """Let it go on."""
        signal_all(self.pids, signal.SIGCONT)
        self.stage.leave_sender()


class SlowTerminal(SenderSuspended):
    """Nobody reads what the sender says, for some time."""

    name = "slow terminal"

    def chosen(self) -> list[int]:
        """Those who read it."""
        assert self.stage.sender is not None
        return self.stage.sender.readers()


FAULTS: Final[dict[str, type[Fault]]] = {
    fault.name: fault
    for fault in (
        *(CrawlProcessKilled, TemplateKilled, AgentKilled, WorkerKilled),
        *(SuspendedLong, AgentSuspendedLong, SuspendedShortly, CrawlProcessSuspended),
        *(WorkerJoins, WorkerLeaves, DiskFull, ClocksDiffer),
        *(ServerKilled, ServerSuspended, OutOfMemory, Misconf),
        *(ConnectionReset, NetworkSilent, NetworkSilentThenReset, NetworkSlow),
        *(SenderSuspended, SlowTerminal),
    )
}
