"""
The attached sender's sign of life, and the sign that somebody follows a task.

A subscription to the task's channel shows at once when this process is gone; a heartbeat covers a network that
just falls silent. Both come back by themselves after Redis was away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from vscrapy import keys
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.labels import Choice
from vscrapy.model import Endpoint
from vscrapy.sender.waiting import why_waiting
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.tasks import Subscription, Tasks
from vscrapy.store.workers import Workers

#: Time between two heartbeats (seconds).
HEARTBEAT_S: Final = 2.0
#: Time between two tries when Redis is away (seconds): well below the grace that agents give.
RETRY_S: Final = 0.2
#: Time to wait for the subscription to be there (seconds).
SEEN_S: Final = 1.0
#: A task without a crawl process for so long is told about (seconds).
PATIENCE_S: Final = 2.0


class Presence:
    """
    Keeps the subscription and the heartbeat, in threads of its own, until :meth:`stop`.

    Args:
        choice: Which workers the task takes.
        tell: Shows one line to the user.
        on_gone: Called when the task is not on Redis any more.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        taskid: int,
        *,
        choice: Choice,
        tell: Callable[[str], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._taskid = taskid
        self._choice = choice
        self._tell = tell
        self._on_gone = on_gone
        self._ended = threading.Event()
        self._subscribed = threading.Event()
        self._store = Store(endpoint, name=f"vscrapy-sender-{taskid}")
        self._tasks = Tasks(self._store)
        self._workers = Workers(self._store)
        self._subscription = Subscription(self._store, keys.sender(taskid))
        self._is_refused = False
        self._told = ""
        self._threads = [
            threading.Thread(target=self._subscribe, name="vscrapy-subscription", daemon=True),
            threading.Thread(target=self._beat, name="vscrapy-heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin; returns when the workers can see the sender, or after ``SEEN_S``."""
        for thread in self._threads:
            thread.start()
        self._subscribed.wait(SEEN_S)

    def stop(self) -> None:
        """Give it up: the task has ended."""
        self._ended.set()

    def _subscribe(self) -> None:
        while not self._ended.is_set():
            try:
                self._subscription.keep(wait_s=0.5)
                self._subscribed.set()
            except (StoreUnavailable, StoreRefused):
                # The follower tells the user that Redis is away; here it is only tried again.
                self._ended.wait(RETRY_S)
        self._subscription.close()

    def _beat(self) -> None:
        pause_s = PATIENCE_S
        while not self._ended.wait(pause_s):
            try:
                life = self._tasks.sign_of_life(self._taskid)
                if life is None:
                    self._on_gone()
                    return
                self._taken()
                self._watch_waiting(*life)
                pause_s = HEARTBEAT_S
            except StoreUnavailable:
                pause_s = RETRY_S  # the follower tells
            except StoreRefused as error:
                self._refused(error)
                pause_s = RETRY_S

    def _refused(self, error: StoreRefused) -> None:
        """The follower only reads, which a Redis that is full, or whose disk is, allows: it sees nothing of this."""
        if not self._is_refused:
            self._is_refused = True
            self._tell(f"{error}; task {self._taskid} waits for it")

    def _taken(self) -> None:
        if self._is_refused:
            self._is_refused = False
            self._tell("Redis takes writes again")

    def _watch_waiting(self, state: TaskState, processes: int, ever: int) -> None:
        """Say why nothing happens yet, once for each reason."""
        if processes or state not in (TaskState.QUEUED, TaskState.RUNNING):
            self._told = ""
            return
        why = why_waiting(self._workers.list(), self._choice, has_begun=bool(ever))
        if why and why != self._told:
            self._told = why
            self._tell(f"task {self._taskid} waits: {why}")


class Following:
    """
    Lets the workers know, in a thread of its own, that somebody reads the logs of these tasks.

    As long as it does, all lines of a detached task are relayed (:mod:`vscrapy.valve`).
    """

    def __init__(self, endpoint: Endpoint, taskids: Sequence[int]) -> None:
        self._ended = threading.Event()
        self._store = Store(endpoint, name="vscrapy-following")
        self._subscription = Subscription(self._store, *map(keys.followers, taskids))
        self._thread = threading.Thread(target=self._subscribe, name="vscrapy-following", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._ended.set()
        self._thread.join(1)

    def _subscribe(self) -> None:
        is_told = False
        while not self._ended.is_set():
            try:
                self._subscription.keep(wait_s=0.2)
                if not is_told:
                    Tasks(self._store).wake()  # The agents count at once.
                    is_told = True
            except (StoreUnavailable, StoreRefused):
                self._ended.wait(RETRY_S)
        self._subscription.close()
        self._store.close()
