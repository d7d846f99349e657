"""
The agent's way to Redis: calls in threads, and one line when Redis goes and when it returns.

The reactor's thread never waits. The threads are daemons, so that a call without a reply cannot keep a worker
that was told to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from vscrapy.errors import StoreRefused, StoreUnavailable, VscrapyError

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from vscrapy.worker.reactor import Reactor

T = TypeVar("T")

#: Waits between two tries (s): the first, and the longest.
BACKOFF_S: Final = (0.1, 5.0)
#: Calls that take long, at a time.
N_LONG: Final = 4
#: Time in which the same refusal is not told again (s).
QUIET_S: Final = 60.0


def _daemon(*args: Any, **named: Any) -> threading.Thread:
    return threading.Thread(*args, **named, daemon=True)


class _Pool(ThreadPool):
    threadFactory = staticmethod(_daemon)  # type: ignore[assignment]


class Contact:
    """
    Calls to Redis from the reactor's thread.

    Args:
        revive: Brings Redis back where it is this machine's own; called in a thread when it is gone.
    """

    def __init__(
        self,
        reactor: Reactor,
        say: Callable[[str], None],
        *,
        n_threads: int,
        revive: Callable[[], object] | None = None,
    ) -> None:
        self._reactor: Any = reactor  # Twisted's functions ask for its zope interfaces.
        self._say = say
        self._pool = _Pool(0, n_threads, "vscrapy-store")
        self._pool.start()
        # Of their own: what takes long must not keep the others from Redis.
        self._long_pool = _Pool(0, N_LONG, "vscrapy-long")
        self._long_pool.start()
        self.is_made = False
        self._has_been_made = False
        self._refusals: dict[str, float] = {}
        self._revive = revive
        self._is_reviving = False

    def call(self, function: Callable[..., T], *args: Any, **named: Any) -> Deferred[T]:
        """Call *function*, which asks Redis, in a thread."""
        called = self.in_thread(function, *args, **named)
        called.addCallbacks(self._succeeded, self._failed)
        return called

    def in_thread(self, function: Callable[..., T], *args: Any, **named: Any) -> Deferred[T]:
        """Call *function*, which says nothing about Redis, in a thread."""
        return deferToThreadPool(self._reactor, self._pool, function, *args, **named)

    def at_length(self, function: Callable[..., T], *args: Any, **named: Any) -> Deferred[T]:
        """Call *function*, which may take minutes, in a thread; what is more than ``N_LONG`` at a time waits."""
        return deferToThreadPool(self._reactor, self._long_pool, function, *args, **named)

    async def insist(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        """Call *function*, whose repeat is harmless, until Redis has done it."""
        delay_s = BACKOFF_S[0]
        while True:
            try:
                return await self.call(function, *args, **named)
            except (StoreUnavailable, StoreRefused):  # Said by call().
                await self.sleep(delay_s)
                delay_s = min(2 * delay_s, BACKOFF_S[1])

    def sleep(self, delay_s: float) -> Deferred[None]:
        """Fire after a while."""
        return deferLater(self._reactor, delay_s, lambda: None)

    def lost(self, error: StoreUnavailable) -> None:
        """Redis did not answer."""
        if self.is_made or not self._has_been_made:
            self._has_been_made = True
            self._say(f"{error}; trying again")
        self.is_made = False
        if self._revive is not None and not self._is_reviving:
            self._is_reviving = True
            self.at_length(self._revive).addErrback(self._not_revived).addBoth(self._revived)

    def _not_revived(self, failure: Failure) -> None:
        error = failure.value
        self._say_now_and_then(str(error) if isinstance(error, VscrapyError) else failure.getTraceback())

    def _revived(self, result: object) -> object:
        self._is_reviving = False
        return result

    def made(self) -> None:
        """Redis answered."""
        if not self.is_made and self._has_been_made:
            self._say("Redis is back")
        self.is_made = self._has_been_made = True

    def refused(self, error: StoreRefused) -> None:
        """Redis answered with a no."""
        self._say_now_and_then(str(error))

    def _say_now_and_then(self, words: str) -> None:
        now_s = time.monotonic()
        if now_s - self._refusals.get(words, -QUIET_S) >= QUIET_S:
            self._refusals[words] = now_s
            self._say(f"{words}; trying again")

    def stop(self) -> None:
        """Start no more calls; those without a reply end with the process."""
        self._pool.adjustPoolsize(0, 0)
        self._long_pool.adjustPoolsize(0, 0)

    def _succeeded(self, result: T) -> T:
        self.made()
        return result

    def _failed(self, failure: Failure) -> Failure:
        if isinstance(failure.value, StoreUnavailable):
            self.lost(failure.value)
        elif isinstance(failure.value, StoreRefused):
            self.refused(failure.value)
        return failure
