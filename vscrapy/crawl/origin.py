"""Where requests and items come from: a leased request, or an output of ``start()``; and when that is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vscrapy.store.frontier import Lease, NewRequest

if TYPE_CHECKING:
    from scrapy import Request


@dataclass(eq=False, slots=True)
class Origin:
    """Collects what comes of one leased request, or of one output of ``start()``, until it is done."""

    #: None: an output of ``start()``, or a request that could not be serialised.
    lease: Lease | None = None
    #: A request that stays on this process: the origin that its lease hangs on.
    root: Origin | None = None
    requests: list[NewRequest] = field(default_factory=list)
    #: The requests themselves, in the same order, until it is known which of them were filtered.
    sources: list[Request] = field(default_factory=list)
    #: Pickled items.
    items: list[bytes] = field(default_factory=list)
    #: Requests that came of it and stay on this process.
    n_local: int = 0
    is_finished: bool = False

    @property
    def size(self) -> int:
        """Number of outputs that wait."""
        return len(self.requests) + len(self.items)

    @property
    def is_complete(self) -> bool:
        """Is all that comes of it known?"""
        return self.is_finished and self.n_local == 0


class StartOutputs:
    """
    The outputs of ``start()``, committed in their order.

    The number of committed outputs is where another process goes on when this one dies, so an output is
    committed only together with, or after, all those before it.

    Args:
        commit: Called with the outputs that can be committed now.
        on_exhausted: Called once, when ``start()`` is exhausted and all its outputs were handed over.
    """

    def __init__(self, commit: Callable[[list[Origin]], None], on_exhausted: Callable[[], None]) -> None:
        self._commit = commit
        self._on_exhausted = on_exhausted
        self._open: deque[Origin] = deque()
        self._is_exhausted = False

    def new(self) -> Origin:
        """The next output."""
        origin = Origin()
        self._open.append(origin)
        return origin

    def exhausted(self) -> None:
        """There are no more."""
        self._is_exhausted = True
        self.settle()

    def settle(self) -> None:
        """Commit the outputs at the head that are complete."""
        ready = []
        while self._open and self._open[0].is_complete:
            ready.append(self._open.popleft())
        if ready:
            self._commit(ready)
        if self._is_exhausted and not self._open:
            self._is_exhausted = False
            self._on_exhausted()
