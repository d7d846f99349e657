"""One command to the server, as raw RESP over its socket, because only vscrapy/store may import redis."""

from __future__ import annotations

import enum
import socket
from pathlib import Path

#: Seconds to wait for one reply.
REPLY_S = 1.0


class State(enum.Enum):
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


def look(path: Path, password: str) -> State:
    """Ask for a PING, and read the answer as a state."""
    try:
        reply = ask(path, password, "PING")
    except (FileNotFoundError, ConnectionError):
        return State.ABSENT
    except (TimeoutError, BlockingIOError):  # The second one: its backlog is full.
        return State.SILENT
    if reply.startswith("+PONG"):
        return State.READY
    if reply.startswith("-LOADING"):
        return State.LOADING
    if reply.startswith(("-WRONGPASS", "-NOAUTH", "-ERR AUTH")):
        return State.DENIED
    # -BUSY a script, -MISCONF a full disk: it lives, and takes no command now.
    return State.SILENT if reply else State.ABSENT


def ask(path: Path, password: str, *words: str) -> str:
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
