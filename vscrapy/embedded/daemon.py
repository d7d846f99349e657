"""A process that outlives us: started in its own session, found by its pid file, ended by signal."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vscrapy.errors import EmbeddedError

if TYPE_CHECKING:
    import subprocess

#: Seconds a process may take to end by itself, before it is killed.
STOP_S = 10.0
#: Seconds to wait for a process that was killed.
KILL_S = 2.0
#: Seconds between two looks.
POLL_S = 0.02
#: Lines of a log that go into an error.
LOG_LINES = 8


def spawn(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    environ: Mapping[str, str],
    stdin: Path = Path(os.devnull),
    keep: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a daemon in its own session, its output appended to *log*, with the descriptors *keep*."""
    import subprocess  # not in each command that only looks for a daemon

    with log.open("ab") as output, stdin.open("rb") as source:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=source,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep,
        )
    # It outlives us, or it ends before us and would be a zombie until we end: somebody has to wait for it.
    threading.Thread(target=process.wait, name=f"vscrapy-wait-{process.pid}", daemon=True).start()
    return process


def end(pid: int, poll: Callable[[], int | None]) -> None:
    """
    End process *pid*: SIGTERM, then SIGKILL to its group; *poll* is None while it lives.

    Raises:
        EmbeddedError: It does not end.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if wait(lambda: poll() is not None, STOP_S):
        return
    with contextlib.suppress(ProcessLookupError):
        # Only a group that it leads: a worker started by hand may share its group with the user's shell script.
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    if not wait(lambda: poll() is not None, KILL_S):
        raise EmbeddedError(f"Process {pid} does not end, not even by SIGKILL.")


def wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until *condition* holds; tell whether it does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def read_pid(path: Path, *names: str) -> int | None:
    """Read a pid file; None unless that process lives and has one of *names* in its command line."""
    try:
        pid = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # The last one: it is being written.
        return None
    return pid if pid > 1 and any(name in _command_line(pid) for name in names) else None


def tail(log: Path, offset: int) -> str:
    """Take the last lines that were written to *log* after *offset*, each on a line of its own."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "".join(f"\n  {line}" for line in lines[-LOG_LINES:])


def _command_line(pid: int) -> str:
    """Read the command line of a process, with blanks; empty if it has ended, or waits for its parent."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # The last one: not one of ours.
            return ""
    import subprocess

    listed = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, check=False)
    return listed.stdout.decode(errors="replace")
