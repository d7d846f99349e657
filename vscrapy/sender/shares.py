"""
Home's shares of what the sites may see of its task, asked for in a thread of its own while home downloads.

All of home's needs are told each time: neither a reply that was lost does harm, nor a Redis that has lost its last
moments. Without Redis home goes on with the shares that it has.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.store.base import Store
from vscrapy.store.frontier import HOME, share

if TYPE_CHECKING:
    from vscrapy.model import Endpoint
    from vscrapy.politeness import Politeness

#: Time between two questions, while there are downloads (seconds).
ASK_S: Final = 0.03
#: A share is kept for so long after the last download (seconds): the next items are often on their way.
LINGER_S: Final = 0.05
#: Time between two tries when Redis is away (seconds).
RETRY_S: Final = 0.2


class Shares:
    """
    The :class:`~vscrapy.politeness.Channel` of home.

    Args:
        politeness: Gets the answers, in home's thread.
        call: Runs a function in home's thread.
    """

    def __init__(self, endpoint: Endpoint, taskid: int, politeness: Politeness, call: Callable[..., Any]) -> None:
        self._store = Store(endpoint, name=f"vscrapy-shares-{taskid}")
        self._taskid = taskid
        self._politeness = politeness
        self._call = call
        self._condition = threading.Condition()
        self._needs: dict[str, int] = {}
        #: Slots without downloads -> when it is told (monotonic seconds).
        self._ended: dict[str, float] = {}
        self._lowered: dict[str, int] = {}
        #: The next question is asked then (monotonic seconds).
        self._next_s = math.inf
        self._thread = threading.Thread(target=self._run, name="vscrapy-shares", daemon=True)

    def start(self) -> None:
        """Begin; nothing is asked before there is a need."""
        self._thread.start()

    # Called in home's thread.

    def lower_share(self, slot: str, share: int) -> None:
        """Say that no more than *share* downloads of this slot run here any more."""
        with self._condition:
            self._lowered[slot] = share
            self._ask_at(0.0)

    def need(self, slot: str, demand: int, *, is_again: bool = False) -> None:
        """Say how many downloads of a slot there are; 0: none any more."""
        with self._condition:
            if demand:
                self._ended.pop(slot, None)
                self._needs[slot] = demand
                self._ask_at(time.monotonic() + ASK_S if is_again else 0.0)
            else:
                self._needs.pop(slot, None)
                self._ended[slot] = time.monotonic() + LINGER_S
                self._ask_at(self._ended[slot])

    def keep_need(self, slot: str) -> bool:
        """Unsay that there are no more downloads of a slot; False: it has left."""
        with self._condition:
            if self._ended.pop(slot, None) is None:
                return False
            self._needs[slot] = 1
            return True

    def _ask_at(self, moment_s: float) -> None:
        self._next_s = min(self._next_s, moment_s)
        self._condition.notify()

    # Runs in a thread of its own.

    def _run(self) -> None:
        while True:
            with self._condition:
                while (pause_s := self._next_s - time.monotonic()) > 0:
                    self._condition.wait(min(pause_s, threading.TIMEOUT_MAX))
                now_s = time.monotonic()
                needs = self._needs | {slot: 0 for slot, due_s in self._ended.items() if due_s <= now_s}
                lowered, self._lowered = self._lowered, {}
                self._ended = {slot: due_s for slot, due_s in self._ended.items() if due_s > now_s}
                self._next_s = now_s + ASK_S if self._needs or self._ended else math.inf
            try:
                found = share(
                    self._store,
                    self._taskid,
                    HOME,
                    shares=lowered,
                    needs=needs,
                    limits=self._politeness.limits,
                )
            except (StoreUnavailable, StoreRefused):
                # The follower tells the user that Redis is away; here it is only tried again.
                with self._condition:
                    self._ended |= {
                        slot: 0.0 for slot, demand in needs.items() if not demand and slot not in self._needs
                    }
                    self._lowered = lowered | self._lowered
                    self._next_s = time.monotonic() + RETRY_S
                time.sleep(RETRY_S)
                continue
            if found is None:
                self._call(self._politeness.end)
                self._store.close()
                return
            self._call(self._politeness.use, found, lowered, needs)
