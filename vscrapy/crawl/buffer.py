"""Leased requests that wait for the engine, in Scrapy's order."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vscrapy.store.frontier import Lease

if TYPE_CHECKING:
    from scrapy import Request

    from vscrapy.crawl.origin import Origin


class Buffer:
    """
    Priority first, then the order of the task's queues: with LIFO queues, later batches of leases come first.

    Holds leases, and requests that could not be serialised and stay here.
    """

    def __init__(self, *, is_lifo: bool) -> None:
        self._sign = -1 if is_lifo else 1
        self._heap: list[tuple[int, bool, int, int, Lease | tuple[Request, Origin]]] = []
        self._batch = 0
        self._n_leases = 0

    def add(self, leases: Sequence[Lease]) -> None:
        """Put in a batch of leases."""
        self._batch += 1
        self._n_leases += len(leases)
        for index, lease in enumerate(leases):
            is_start = lease.queue.endswith("s")
            priority = int(lease.queue.removesuffix("s"))
            batch = self._batch if is_start else self._sign * self._batch
            heapq.heappush(self._heap, (-priority, is_start, batch, index, lease))

    def add_local(self, request: Request, origin: Origin) -> None:
        """Put in a request that stays here."""
        self._batch += 1
        heapq.heappush(self._heap, (-request.priority, False, self._sign * self._batch, 0, (request, origin)))

    def pop(self) -> Lease | tuple[Request, Origin] | None:
        """Take the next one."""
        if not self._heap:
            return None
        found = heapq.heappop(self._heap)[-1]
        if isinstance(found, Lease):
            self._n_leases -= 1
        return found

    @property
    def n_leases(self) -> int:
        """Leases that wait."""
        return self._n_leases

    def clear(self) -> list[Lease]:
        """Take out everything; the leases among it."""
        leases = [found[-1] for found in self._heap if isinstance(found[-1], Lease)]
        self._heap.clear()
        self._n_leases = 0
        return leases

    def __len__(self) -> int:
        return len(self._heap)
