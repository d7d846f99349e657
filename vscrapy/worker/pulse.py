"""
The worker's heartbeat, in a thread with a connection of its own: nothing that blocks elsewhere stops it.

As long as it beats, the leases of all crawl processes here stand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.store.base import Store
from vscrapy.store.workers import HEARTBEAT_S, Workers

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Time for a reply (s): two tries must fit into a worker's time to live.
REPLY_TIMEOUT_S: Final = 3.0
#: Time between two tries while Redis is away (s).
RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Identity:
    """What an agent is registered as."""

    name: str
    token: str


class Listener(Protocol):
    """Who is told by the pulse; called in the pulse's thread."""

    def beat_failed(self, error: StoreUnavailable | StoreRefused) -> None:
        """A heartbeat did not arrive."""

    def found_dead(self, names: list[str]) -> None:
        """These workers are past their deadline."""

    def told_to_drain(self) -> None:
        """Somebody wants this worker to finish and end; said with each heartbeat from then on."""

    def declared_dead(self) -> None:
        """The name is not ours any more; there is no heartbeat until ``beat_as``."""


class Pulse:
    """The thread."""

    def __init__(self, endpoint: Endpoint, listener: Listener, fields: Callable[[], Mapping[str, Any]]) -> None:
        self._store = Store(endpoint, name="vscrapy-worker-pulse", reply_timeout_s=REPLY_TIMEOUT_S)
        self._workers = Workers(self._store)
        self._listener = listener
        self._fields = fields
        self._identity: Identity | None = None
        self._is_stopped = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vscrapy-pulse", daemon=True)

    def beat_as(self, identity: Identity) -> None:
        """Beat for this registration from now on."""
        self._identity = identity
        self._changed.set()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Beat no more. Waits for a beat that is on its way, no longer than for its reply."""
        self._is_stopped = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(REPLY_TIMEOUT_S)

    def _run(self) -> None:
        while not self._is_stopped:
            self._changed.clear()
            identity = self._identity
            delay_s = HEARTBEAT_S if identity is None else self._beat(identity)
            if not self._is_stopped:
                self._changed.wait(delay_s)
        self._store.close()

    def _beat(self, identity: Identity) -> float:
        """Beat once; give the time until the next beat."""
        try:
            heard = self._workers.beat(identity.name, identity.token, dict(self._fields()))
        except (StoreUnavailable, StoreRefused) as error:
            self._listener.beat_failed(error)
            return RETRY_S
        if heard is None:
            if self._identity is identity:
                self._identity = None
                self._listener.declared_dead()
            return HEARTBEAT_S
        if heard.dead:
            self._listener.found_dead(heard.dead)
        if heard.is_to_drain:
            self._listener.told_to_drain()
        return HEARTBEAT_S
