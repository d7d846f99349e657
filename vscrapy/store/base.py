"""A client with its endpoint and its scripts: what each part of the store is made from."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from vscrapy.config import require_secure
from vscrapy.store.connection import REPLY_TIMEOUT_S, check_server, connect, translate
from vscrapy.store.scripts import preload, source

if TYPE_CHECKING:
    import redis
    from redis.commands.core import Script

    from vscrapy.model import Endpoint

#: In the first line of a script.
_ONLY_READS: Final = "flags=no-writes"


class Store:
    """
    One client and its scripts. Thread-safe; each call blocks its thread for one round trip.

    Every method of the classes made on it may raise :class:`~vscrapy.errors.StoreUnavailable` (no reply: it
    may have happened) or :class:`~vscrapy.errors.StoreRefused` (it has not happened).

    Raises:
        InsecureStore: No password, and not on this machine.
    """

    def __init__(self, endpoint: Endpoint, *, name: str, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        require_secure(endpoint)
        preload()
        self.endpoint = endpoint
        self._name = name
        self._reply_timeout_s = reply_timeout_s
        self._client: redis.Redis | None = None
        self._lock = threading.Lock()
        self._scripts: dict[str, Script] = {}

    @property
    def client(self) -> Any:
        """
        The client; made when it is first asked for.

        Any: redis-py's annotations cover both protocols and every decoding at once; the types that hold here are
        those of the functions that use it.
        """
        with self._lock:
            if self._client is None:
                self._client = connect(self.endpoint, name=self._name, reply_timeout_s=self._reply_timeout_s)
            return self._client

    def check(self) -> None:
        """
        See that the server is there and new enough.

        Raises:
            StoreUnavailable, StoreRefused: It is not.
        """
        check_server(self.client, self.endpoint)

    def client_names(self) -> set[str]:
        """The names of all clients that are connected now."""
        with translate(self.endpoint):
            return {client["name"] for client in self.client.client_list()}

    def strangers(self) -> set[str]:
        """The names of connected clients that are not a worker: senders, and people who look."""
        return {name for name in self.client_names() if not name.startswith("vscrapy-worker")}

    def run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        """Run one script: one atomic operation."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self.client.register_script(source(script))
        with translate(self.endpoint):
            if _ONLY_READS in source(script).partition("\n")[0]:
                return self._read(registered, keys, args)
            return registered(keys=keys, args=args)

    def _read(self, script: Script, keys: list[str], args: list[Any]) -> Any:
        """Run a script that only reads as such: a user who may do no more than that may do it."""
        from redis.exceptions import NoScriptError

        try:
            return self.client.evalsha_ro(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            self.client.script_load(script.script)
            return self.client.evalsha_ro(script.sha, len(keys), *keys, *args)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def text(value: bytes | None) -> str:
    """Decode a reply; a missing one is an empty text."""
    return "" if value is None else value.decode("utf-8", "replace")


def texts(mapping: dict[bytes, bytes]) -> dict[str, str]:
    """Decode a hash."""
    return {text(name): text(value) for name, value in mapping.items()}
