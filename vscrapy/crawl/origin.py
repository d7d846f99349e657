"""Where requests and items come from: a leased request, or an output of ``start()``; and when that is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vscrapy.store.frontier import Lease, NewFailure, NewRequest

if TYPE_CHECKING:
    from scrapy import Request


@dataclass(eq=False, slots=True)
class Origin:
    """Collects what comes of one leased request, or of one output of ``start()``, until it is done."""

    #: None: an output of ``start()``, a request that could not be serialised, or nobody in particular.
    lease: Lease | None = None
    #: Set for a request that stays on this process.
    local: Local | None = None
    requests: list[NewRequest] = field(default_factory=list)
    #: The requests themselves, in the same order, until it is known which of them were filtered.
    sources: list[Request] = field(default_factory=list)
    #: Pickled items.
    items: list[bytes] = field(default_factory=list)
    #: Requests that came of it, stay on this process and are not done.
    n_local: int = 0
    #: What ends the claims of those that are done.
    settled: list[NewRequest] = field(default_factory=list)
    #: An output of ``start()``: it is committed in its turn.
    is_start: bool = False
    #: Of these, and of the request itself: what failed for good.
    failures: dict[Request, NewFailure] = field(default_factory=dict)
    is_finished: bool = False
    #: What was counted on its behalf; None: that has left, and what comes later travels by itself.
    stats: dict[str, int | float] | None = field(default_factory=dict)

    def take_stats(self, *, is_last: bool) -> dict[str, int | float]:
        """Take out what was counted; *is_last*: it is done."""
        taken, self.stats = self.stats or {}, None if is_last else {}
        return taken

    @property
    def root(self) -> Origin:
        """The origin whose lease keeps this one; itself, for one that does not stay on its process."""
        return self.local.root if self.local is not None else self

    @property
    def size(self) -> int:
        """Number of outputs that wait."""
        return len(self.requests) + len(self.items)

    def take_filtered(self) -> tuple[list[NewRequest], list[Request]]:
        """Take out the requests that the task filters: they may be committed early, and again, without harm."""
        pairs = list(zip(self.requests, self.sources, strict=True))
        taken = [pair for pair in pairs if pair[0].seen is not None]
        kept = [pair for pair in pairs if pair[0].seen is None]
        self.requests, self.sources = [new for new, _ in kept], [source for _, source in kept]
        return [new for new, _ in taken], [source for _, source in taken]

    def take_over(self, other: Origin) -> None:
        """Put what waits under *other* here."""
        self.requests += other.requests
        self.sources += other.sources
        self.items += other.items
        if self.stats is not None:
            add_stats(self.stats, other.take_stats(is_last=True))

    @property
    def is_complete(self) -> bool:
        """Is all that comes of it known?"""
        return self.is_finished and self.n_local == 0


def add_stats(stats: dict[str, int | float], more: Mapping[str, int | float]) -> None:
    """Count *more*."""
    for name, number in more.items():
        stats[name] = stats.get(name, 0) + number


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """A request that cannot be serialised: it stays on the process that made it."""

    request: Request
    #: Of the downloader, as in a lease.
    slot: str
    #: Priority, and ``s`` for a start request, as in a lease.
    queue: str
    #: Where it comes from, at last: what its lease, or its turn among the outputs of ``start()``, hangs on.
    root: Origin
    #: It is done here, and nowhere else, from when Redis has granted this.
    claim: NewRequest


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
        origin = Origin(is_start=True)
        self._open.append(origin)
        return origin

    @property
    def n_open(self) -> int:
        """Outputs that were not handed over yet."""
        return len(self._open)

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
