"""What is used of Twisted's reactor, as types: mypy cannot read Twisted's own zope interfaces without a plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A call that is planned."""

    def active(self) -> bool:
        """Is it still to come?"""

    def cancel(self) -> None:
        """Call it off; an error when it is not active."""

    def getTime(self) -> float:
        """When it comes (s)."""


class Clock(Protocol):
    """Time; in tests ``twisted.internet.task.Clock``."""

    def seconds(self) -> float:
        """The present time (s)."""

    def callLater(self, delay: float, callable: Callable[..., Any], /, *args: Any) -> Timer:
        """Plan a call."""


class Reactor(Clock, Protocol):
    """A reactor with descriptors, processes and threads."""

    def callFromThread(self, callable: Callable[..., Any], /, *args: Any) -> None:
        """Let the reactor's thread call; safe from any thread, and from a signal handler."""

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """Make a transport of a copy of a connected socket."""

    def spawnProcess(self, processProtocol: Any, executable: str, args: list[str], **options: Any) -> Any:
        """Start a process."""


def cancel(timer: Timer | None) -> None:
    """Call off what may be planned."""
    if timer is not None and timer.active():
        timer.cancel()
