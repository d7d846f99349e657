"""
A connection for the few commands of a start: importing redis-py takes longer than all of them.

Commands and replies are hiredis's. No TLS, no retries, RESP2; whoever is refused here goes the ordinary way, which
says why.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from vscrapy import config
from vscrapy.model import Endpoint
from vscrapy.store.scripts import source

#: Time for a connection, and for each reply (seconds).
REPLY_S: Final = 5.0
_READ_BYTES: Final = 65536


class Plain:
    """
    One connection.

    Args:
        endpoint: ``redis://`` or ``unix://``.

    Raises:
        OSError: It does not come about.
        ValueError: The server refuses user, password or database, or it is reached by TLS.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("redis", "unix"):
            raise ValueError(f"{parts.scheme} is not spoken here")
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        user = unquote(parts.username or "") or options.get("username", "")
        password = unquote(parts.password or "") or options.get("password", "")
        path = unquote(parts.path)
        database = options.get("db") or (path.strip("/") if parts.scheme == "redis" else "") or "0"
        self._reader = hiredis.Reader()
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            place = (parts.hostname or "localhost", parts.port or config.DEFAULT_PORT)
            self._socket = socket.create_connection(place, REPLY_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.settimeout(REPLY_S)
            if parts.scheme == "unix":
                self._socket.connect(path)
            hello: list[Sequence[str]] = []
            if password:
                hello.append(("AUTH", user, password) if user else ("AUTH", password))
            if database != "0":
                hello.append(("SELECT", database))
            self.run(*hello)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *commands: Sequence[str | bytes | int]) -> list[Any]:
        """
        Send commands, and wait for the reply to each.

        Raises:
            OSError: The connection is gone, or a reply takes too long.
            ValueError: The server refuses one of them; those after it may have been done.
        """
        if not commands:
            return []
        self._socket.sendall(b"".join(_packed(command) for command in commands))
        replies = [self._reply() for _ in commands]
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ValueError(str(reply))
        return replies

    def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        """
        Run one script, as :meth:`vscrapy.store.base.Store.run`: one atomic operation.

        Raises:
            OSError, ValueError: As :meth:`run`.
        """
        code = source(name).encode()
        sha1 = hashlib.sha1(code, usedforsecurity=False).hexdigest()
        call = ("EVALSHA", sha1, len(keys), *keys, *args)
        try:
            [reply] = self.run(call)
        except ValueError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            _, reply = self.run(("SCRIPT", "LOAD", code), call)
        return reply

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:  # with RESP2, no reply is False
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._reader.feed(data)
        return reply

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


def _packed(command: Sequence[str | bytes | int]) -> bytes:
    # Any: hiredis's annotation is that of a tuple with one element.
    words: Any = tuple(command)
    packed: bytes = hiredis.pack_command(words)
    return packed


def require_password(endpoint: Endpoint) -> None:
    """
    See that a server that is not on this machine lets nobody in without a password, as the ordinary way does.

    Raises:
        ValueError: It lets everybody in.
        OSError: It does not answer.
        InsecureStore: No password is known for it.
    """
    config.require_secure(endpoint)
    if endpoint.is_insecure_allowed or config.is_local(endpoint.url):
        return
    with Plain(Endpoint(config.without_password(endpoint.url), endpoint.source, "")) as stranger:
        try:
            stranger.run(("PING",))
        except ValueError:
            return
    raise ValueError("anybody is let in")
