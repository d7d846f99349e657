"""Leased requests that wait for the engine, in Scrapy's order."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vscrapy.store.frontier import Lease

if TYPE_CHECKING:
    from vscrapy.crawl.origin import Local

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")


class Buffer:
    """
    Priority first, then the order of the task's queues: with LIFO queues, later batches of leases come first.

    Holds leases, and requests that could not be serialised and stay here.
    """

    def __init__(self, *, is_lifo: bool) -> None:
        self._sign = -1 if is_lifo else 1
        self._heap: list[tuple[int, bool, int, int, Lease | Local]] = []
        self._batch = 0
        self._n_leases = 0
        self._chosen: Lease | Local | None = None

    def add(self, leases: Sequence[Lease]) -> None:
        """Put in a batch of leases."""
        self._batch += 1
        self._n_leases += len(leases)
        for index, lease in enumerate(leases):
            self._push(lease, index)

    def add_local(self, local: Local) -> None:
        """Put in a request that stays here."""
        self._batch += 1
        self._push(local, 0)

    def _push(self, found: Lease | Local, index: int) -> None:
        is_start = found.queue.endswith("s")
        queue = found.queue.removesuffix("s")
        # The name of a queue is not signed: one that is no number is none of ours, nor is what was in it.
        priority = int(queue) if _NUMBER.fullmatch(queue) else 0
        batch = self._batch if is_start else self._sign * self._batch
        heapq.heappush(self._heap, (-priority, is_start, batch, index, found))

    def choose(self) -> None:
        """Decide now what :meth:`pop` will take next, whatever comes meanwhile."""
        if self._chosen is None and self._heap:
            self._chosen = heapq.heappop(self._heap)[-1]

    def pop(self) -> Lease | Local | None:
        """Take the next one."""
        self.choose()
        found, self._chosen = self._chosen, None
        if isinstance(found, Lease):
            self._n_leases -= 1
        return found

    @property
    def n_leases(self) -> int:
        """Leases that wait."""
        return self._n_leases

    def take_leases(self) -> list[Lease]:
        """Take out the leases; requests that stay here stay."""
        all_ = [entry[-1] for entry in self._heap]
        self._heap = [entry for entry in self._heap if not isinstance(entry[-1], Lease)]
        heapq.heapify(self._heap)
        if isinstance(self._chosen, Lease):
            all_.append(self._chosen)
            self._chosen = None
        self._n_leases = 0
        return [found for found in all_ if isinstance(found, Lease)]

    def clear(self) -> list[Lease]:
        """Take out everything; the leases among it."""
        leases = self.take_leases()
        self._heap.clear()
        self._chosen = None
        return leases

    def __len__(self) -> int:
        return len(self._heap) + (self._chosen is not None)
