"""What ``vscrapy doctor`` makes of what it has seen: one verdict a check; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vscrapy.config import URL_PASSWORD
from vscrapy.model import PROTOCOL
from vscrapy.store.health import Health
from vscrapy.store.workers import WorkerRecord
from vscrapy.versions import differing, versions_here

#: A round trip that slows crawls down (ms).
SLOW_MS: Final = 50
#: Clocks that differ by more make a log hard to read (ms).
CLOCK_MS: Final = 2000
#: Parts of its memory that Redis may use before it is told, and before it is a problem.
FULL: Final = (0.75, 0.95)
#: Free bytes of a worker's disk below which it is told, and below which it is a problem.
FREE_BYTES: Final = (2 << 30, 200 << 20)
#: Names in one line.
MOST_NAMED: Final = 6


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: Crawls run, and something is not as it should be.
    WARNING = "warning"
    #: Crawls do not run, or can lose something.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check."""

    check: str
    level: Level
    said: str
    #: What to do about it; '': nothing.
    do: str = ""


def of_redis(health: Health, place: str) -> list[Verdict]:
    """Say how the server is."""
    is_slow = health.round_trip_ms > SLOW_MS
    return [
        Verdict("redis", Level.OK, f"{health.server} at {place}"),
        Verdict(
            "round trip",
            Level.WARNING if is_slow else Level.OK,
            f"{health.round_trip_ms:.1f} ms",
            "use a Redis nearer to the workers; crawls go on, with more waits" if is_slow else "",
        ),
        _persistence(health),
        _eviction(health),
        _memory(health),
        _rights(health),
        _clock_here(health),
    ]


def _persistence(health: Health) -> Verdict:
    if not health.is_written:
        return Verdict(
            "persistence",
            Level.PROBLEM,
            "its last write to disk failed",
            "see its log; is its disk full, or read-only?",
        )
    if health.has_append_only:
        return Verdict("persistence", Level.OK, "append-only file")
    if health.has_snapshots:
        return Verdict(
            "persistence",
            Level.WARNING,
            "snapshots only: a crash loses what came after the last one",
            "set appendonly yes",
        )
    return Verdict("persistence", Level.WARNING, "none: when it restarts, its tasks are lost", "set appendonly yes")


def _eviction(health: Health) -> Verdict:
    if health.policy == "noeviction" or not health.most_bytes:
        return Verdict("eviction", Level.OK, "none")
    return Verdict(
        "eviction",
        Level.PROBLEM,
        f"maxmemory-policy {health.policy}: requests and items can get lost",
        "set maxmemory-policy noeviction",
    )


def _memory(health: Health) -> Verdict:
    most = health.most_bytes or health.machine_bytes
    of = "maxmemory" if health.most_bytes else "its machine's memory"
    used = health.used_bytes / most if most else 0.0
    level = Level.PROBLEM if used > FULL[1] else Level.WARNING if used > FULL[0] else Level.OK
    said = f"{_size(health.used_bytes)} used" + (f" of {_size(most)} ({of})" if most else "")
    do = "" if level is Level.OK else "raise maxmemory, or remove what tasks have left: vscrapy clean"
    return Verdict("memory", level, said, do)


def _rights(health: Health) -> Verdict:
    if not health.denied:
        return Verdict("rights", Level.OK, "this user may all that vscrapy needs")
    return Verdict(
        "rights",
        Level.PROBLEM,
        f"this user may not: {', '.join(health.denied)}",
        "give it the rules of docs/security.md (ACL SETUSER); who only looks needs fewer",
    )


def _clock_here(health: Health) -> Verdict:
    if abs(health.clock_ms) <= CLOCK_MS + health.round_trip_ms:
        return Verdict("clock", Level.OK, "as that of Redis")
    return Verdict("clock", Level.WARNING, f"here, it is {_off(health.clock_ms)}", "let both keep time with NTP")


def of_workers(workers: Sequence[WorkerRecord], *, is_embedded: bool) -> list[Verdict]:
    """Say how the workers are; their secret aside."""
    online = [worker for worker in workers if worker.is_alive]
    lost = [worker for worker in workers if not worker.is_alive]
    if not online:
        verdicts = [
            Verdict("workers", Level.OK, "none now; the next crawl starts one here")
            if is_embedded
            else Verdict("workers", Level.PROBLEM, "none is online", "start one: vscrapy worker --redis URL")
        ]
    else:
        slots = sum(worker.slots for worker in online)
        said = f"{len(online)} online with {slots} slots"
        is_ending = all(worker.is_draining for worker in online)
        do = "start another one" if is_ending else ""
        verdicts = [Verdict("workers", Level.PROBLEM if is_ending else Level.OK, said + ", ending" * is_ending, do)]
    if lost:
        said = f"without a sign of life: {_names(lost)}"
        verdicts.append(Verdict("lost workers", Level.WARNING, said, "look whether they run; the list forgets them"))
    if online:
        verdicts += [_versions(online), _clocks(online), _disks(online)]
    return verdicts


def _versions(online: Sequence[WorkerRecord]) -> Verdict:
    foreign = [worker for worker in online if worker.protocol != PROTOCOL]
    if foreign:
        level = Level.PROBLEM if len(foreign) == len(online) else Level.WARNING
        said = f"another protocol than here, so they take no task from here: {_names(foreign)}"
        return Verdict("versions", level, said, "install one version of vscrapy on all sides")
    here = versions_here()
    other = {worker.name: differing(here, worker.versions) for worker in online}
    told = [f"{name} ({', '.join(names)})" for name, names in other.items() if names]
    if told:
        said = f"other minor versions than here: {_some(told)}"
        return Verdict("versions", Level.WARNING, said, "compare them with: vscrapy -l --versions")
    return Verdict("versions", Level.OK, "as here")


def _clocks(online: Sequence[WorkerRecord]) -> Verdict:
    wrong = [worker for worker in online if abs(worker.clock_ms) > CLOCK_MS]
    if not wrong:
        return Verdict("clocks", Level.OK, "those of the workers are as that of Redis")
    told = [f"{worker.name} is {_off(worker.clock_ms)}" for worker in wrong]
    return Verdict(
        "clocks", Level.WARNING, _some(told), "let them keep time with NTP; their log lines are out of order"
    )


def _disks(online: Sequence[WorkerRecord]) -> Verdict:
    known = [worker for worker in online if worker.free_bytes >= 0]
    scarce = [worker for worker in known if worker.free_bytes < FREE_BYTES[0]]
    if not scarce:
        least = min((worker.free_bytes for worker in known), default=-1)
        return Verdict("disks", Level.OK, f"{_size(least)} free at least" if known else "the workers do not say")
    level = Level.PROBLEM if any(worker.free_bytes < FREE_BYTES[1] for worker in scarce) else Level.WARNING
    told = [f"{worker.name} has {_size(worker.free_bytes)} free" for worker in scarce]
    return Verdict("disks", level, _some(told), "make room where their VSCRAPY_HOME is, or put it elsewhere")


def of_secret(source: str, strangers: Sequence[str], refusing: Sequence[str]) -> list[Verdict]:
    """
    Say how the cluster's secret is.

    Args:
        source: Where it comes from; '': there is none.
        strangers: Workers that have another one.
        refusing: Workers that have refused tasks.
    """
    verdicts = []
    if not source:
        verdicts.append(
            Verdict(
                "secret", Level.WARNING, "none: every user of this Redis can run code on the workers", _MAKE_SECRET
            )
        )
    elif source == URL_PASSWORD:
        verdicts.append(Verdict("secret", Level.WARNING, "it is the password of Redis", _MAKE_SECRET))
    else:
        verdicts.append(Verdict("secret", Level.OK, f"set (from: {source})"))
    if strangers:
        said = f"another one than here at: {_some(list(strangers))}"
        verdicts.append(Verdict("secret", Level.PROBLEM, said, "set the same VSCRAPY_SECRET here and there"))
    if refusing and not strangers:
        said = f"tasks that were not signed with it were refused by: {_some(list(refusing))}"
        verdicts.append(Verdict("secret", Level.WARNING, said, "see whether some sender has another VSCRAPY_SECRET"))
    return verdicts


_MAKE_SECRET: Final = "give senders and workers one VSCRAPY_SECRET of their own (docs/security.md)"


def worst(verdicts: Sequence[Verdict]) -> Level:
    """The level of the worst one."""
    order = list(Level)
    return max((verdict.level for verdict in verdicts), key=order.index, default=Level.OK)


def _names(workers: Sequence[WorkerRecord]) -> str:
    return _some([worker.name for worker in workers])


def _some(words: list[str]) -> str:
    more = len(words) - MOST_NAMED
    return ", ".join(words[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _off(clock_ms: int) -> str:
    return f"{abs(clock_ms) / 1000:.1f} s {'ahead of' if clock_ms > 0 else 'behind'} Redis"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / (1 << 30):.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / (1 << 20):.0f} MiB"
