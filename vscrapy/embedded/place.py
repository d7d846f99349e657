"""
Where the things of one home are, whose they are, and who may touch them now: paths, privacy, locks, pids.

Invariant: a lock file is never removed, for then two could hold it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vscrapy import config
from vscrapy.embedded.daemon import read_pid, wait
from vscrapy.errors import EmbeddedError

#: Seconds to wait for another process that is starting or ending the same thing.
LOCK_S = 60.0
#: Bytes of a unix socket's path: macOS has room for 104, Linux for 108, both with a zero at the end.
SOCKET_PATH_BYTES = 103


@dataclass(frozen=True, slots=True)
class Place:
    """Where the things of one home are; the home is resolved, so that a symlink to it is the same place."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "valkey"

    @property
    def config(self) -> Path:
        return self.data / "valkey.conf"

    @property
    def append_only(self) -> Path:
        return self.data / "appendonlydir"

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
    def worker_pid_file(self) -> Path:
        return self.home / "worker.pid"

    @property
    def worker_log(self) -> Path:
        return self.home / "worker.log"

    @property
    def socket(self) -> Path:
        """The server's socket: in its data directory, or in a directory of ours in /tmp if that is too long."""
        path = self.data / "valkey.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        # Not tempfile.gettempdir(): TMPDIR may differ between two shells of one user, and may be long itself.
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(f"/tmp/vscrapy-{os.getuid()}-{digest}/valkey.sock")

    def server_pid(self) -> int | None:
        """Read the server's pid; None unless that process is a Valkey server."""
        return read_pid(self.pid, "valkey-server")

    def worker_pid(self) -> int | None:
        """Read the local worker's pid; None unless that process is a worker of vscrapy."""
        return read_pid(self.worker_pid_file, "vscrapy-worker", "vscrapy worker")

    def ensure_password(self) -> str:
        """Read the server's password, or make one: it survives restarts, as the secret of all payloads."""
        password = self.read_password()
        if password is None:
            import secrets

            password = secrets.token_urlsafe(32)
            config.write_private(self.password, password + "\n")
        return password

    def read_password(self) -> str | None:
        """Read the server's password; None if there is none yet."""
        try:
            return self.password.read_text(encoding="utf-8", errors="replace").strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EmbeddedError(f"{self.password} cannot be read ({error.strerror}); is this home yours?") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at *path*."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be opened ({error.strerror}); is this home yours?") from error
    try:
        if not wait(lambda: try_lock(lock), LOCK_S):
            raise EmbeddedError(f"Another vscrapy has held {path} for {LOCK_S:g} s; is it suspended?")
        yield
    finally:
        os.close(lock)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_private(directory: Path) -> None:
    """Create a directory for us only, or make sure that it is one."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    is_private(directory)


def is_private(directory: Path) -> bool:
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


def size_bytes(path: Path) -> int:
    """Add up the sizes of the files at or below *path*; 0 if there are none."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for file in path.glob("*"):
        # The server replaces its files while we look.
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
