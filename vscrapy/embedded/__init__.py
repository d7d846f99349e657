"""
The embedded Valkey server and its local worker, for a user who has configured no Redis.

Both are daemons that outlive the process that started them. Everything they keep is below one home directory::

    embedded.lock    held while a server is looked for, started or ended
    worker.lock      the same for the worker; taken before embedded.lock, never after
    worker.pid       written by the worker itself
    worker.log
    valkey/          mode 0700; valkey.conf, valkey.log, valkey.pid, password, the append-only file
    valkey/server.lock   held by the server itself, from its first to its last moment
    valkey/valkey.sock   elsewhere (``Place.socket``) where this path is too long

One server writes to one data directory, or the data is lost. A socket can be stale and a pid can be another
process's by now, so neither decides: the kernel keeps ``server.lock`` locked exactly as long as a server lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vscrapy import config
from vscrapy.embedded import raw, server, worker
from vscrapy.embedded.place import Place, is_private, locked, make_private, size_bytes
from vscrapy.errors import EmbeddedError
from vscrapy.model import Endpoint

#: Characters of what ``describe`` says.
_DESCRIPTION_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Running:
    """What of the embedded pair is running now."""

    server_pid: int | None
    worker_pid: int | None


def ensure(home: Path) -> Endpoint:
    """
    Find the embedded server of *home*, or start it; wait until it answers.

    Safe to call from many processes at once: they get the same server. Its data and its password survive
    restarts.

    Raises:
        EmbeddedError: It did not start (with the last lines of its log), or its directory is not safe.
        ConfigError: *home* cannot be created.
    """
    place = Place(config.ensure_home(home).resolve())
    try:
        with locked(place.embedded_lock):
            make_private(place.data)
            make_private(place.socket.parent)
            password = place.ensure_password()
            if raw.look(place.socket, password) is not raw.State.READY:
                server.start(place, password)
            return server.endpoint(place, password)
    except OSError as error:
        raise EmbeddedError(f"The embedded server in {place.data} cannot be started: {error}") from error


def find(home: Path) -> Endpoint | None:
    """
    Find the running embedded server of *home* without starting one; also one that is still loading or busy.

    Raises:
        EmbeddedError: Its directory is not safe.
    """
    place = Place(home.resolve())
    password = place.read_password()
    if password is None or not is_private(place.socket.parent):
        return None
    is_there = raw.look(place.socket, password) in (raw.State.READY, raw.State.LOADING, raw.State.SILENT)
    return server.endpoint(place, password) if is_there else None


def running(home: Path) -> Running:
    """Tell which processes of *home* run, by their pid files, without waiting for any lock."""
    place = Place(home.resolve())
    return Running(server_pid=place.server_pid(), worker_pid=place.worker_pid())


def describe(home: Path) -> str:
    """
    Say in one line of 100 characters at most whether the embedded server runs, how much it keeps, and where.

    The beginning of a long path gives way to an ellipsis.

    Raises:
        EmbeddedError: The server's directory is not safe.
    """
    place = Place(home.resolve())
    state = "not running" if find(home) is None else f"running, pid {place.server_pid()}"
    logs = size_bytes(place.log) + size_bytes(place.worker_log)
    said = f"embedded server: {state}, {_size(size_bytes(place.append_only))} of data, {_size(logs)} of logs in "
    where, room = str(place.home), _DESCRIPTION_CHARACTERS - len(said)
    return said + (where if len(where) <= room else f"…{where[len(where) - room + 1 :]}")


def ensure_worker(
    home: Path, endpoint: Endpoint, *, slots: int, idle_exit_s: float, is_live: Callable[[], bool]
) -> bool:
    """
    Start the local worker of *home* unless one is live; wait until it is, and tell whether it was started.

    Args:
        endpoint: The embedded server's, for messages; the worker finds it by itself.
        slots: Crawl processes at a time.
        idle_exit_s: Seconds without work after which the worker ends.
        is_live: Looks for a live worker's heartbeat in the store.

    Raises:
        EmbeddedError: It did not become live; with the last lines of its log.
    """
    place = Place(config.ensure_home(home).resolve())
    with locked(place.worker_lock):
        if is_live():
            return False
        worker.start(place, endpoint, slots=slots, idle_exit_s=idle_exit_s, is_live=is_live)
        return True


def shutdown(home: Path) -> bool:
    """
    End the local worker, then the embedded server of *home*; tell whether any of them was running.

    The worker comes first: it gives its leases back while there is a server to give them to.

    Raises:
        EmbeddedError: One of them could not be ended, or its directory is not safe.
    """
    place = Place(home.resolve())
    if not place.home.is_dir():
        return False
    try:
        with locked(place.worker_lock):
            had_worker = worker.end(place)
            with locked(place.embedded_lock):
                return server.end(place) or had_worker
    except OSError as error:
        raise EmbeddedError(f"The embedded server in {place.data} cannot be ended: {error}") from error


def end_unused(home: Path, *, is_used: Callable[[], bool]) -> bool:
    """
    End the embedded server of *home* if it has no worker and nobody uses it; tell whether it was ended.

    For the local worker, which has ended because there was nothing to do. While this looks, nobody can start
    another worker.

    Args:
        is_used: Looks for tasks and clients.

    Raises:
        EmbeddedError: The server could not be ended.
    """
    place = Place(home.resolve())
    try:
        with locked(place.worker_lock):
            if place.worker_pid() is not None:
                return False
            with locked(place.embedded_lock):
                return not is_used() and server.end(place)
    except OSError as error:
        raise EmbeddedError(f"The embedded server in {place.data} cannot be ended: {error}") from error


def _size(number_bytes: int) -> str:
    """Write a size for a person, in three digits or four."""
    size = float(number_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
