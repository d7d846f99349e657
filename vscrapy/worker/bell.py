"""The bell: a thread that hears on ``keys.WAKE`` that a task was submitted, or what has become of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vscrapy import keys
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.store.base import Store
from vscrapy.store.connection import translate

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Time between two tries to subscribe (s): the agent's ticks find everything without the bell, only later.
RETRY_S: Final = 1.0
#: Longest time to wait for a message before looking whether to end (s).
WAIT_S: Final = 1.0


class Bell:
    """Calls *ring* in its own thread for each message."""

    def __init__(self, endpoint: Endpoint, *, ring: Callable[[], None], say: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._ring = ring
        self._say = say
        self._is_refused = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vscrapy-bell", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; the thread ends soon."""
        self._stopped.set()

    def _run(self) -> None:
        store = Store(self._endpoint, name="vscrapy-worker-bell")
        while not self._stopped.is_set():
            try:
                self._listen(store)
            except StoreUnavailable:  # The agent's own calls say so.
                self._stopped.wait(RETRY_S)
            except StoreRefused as error:
                if not self._is_refused:
                    self._is_refused = True
                    self._say(f"new tasks are seen a little later, because of this: {error}")
                self._stopped.wait(RETRY_S)
        store.close()

    def _listen(self, store: Store) -> None:
        with translate(self._endpoint), store.client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(keys.WAKE)
            self._ring()  # Whatever was said before this is found by looking.
            while not self._stopped.is_set():
                if pubsub.get_message(timeout=WAIT_S) is not None and not self._stopped.is_set():
                    self._ring()
