"""Leased requests that wait for the engine, in Scrapy's order."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vscrapy.store.frontier import Lease

if TYPE_CHECKING:
    from vscrapy.crawl.origin import Local

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")


class Buffer:
    """
    As Scrapy's ``DownloaderAwarePriorityQueue``: of the downloader slots, one with the fewest downloads, in turn.

    In a slot: priority first, then the order of the task's queues; with LIFO queues, later batches of leases come
    first.

    Holds leases, and requests that could not be serialised and stay here.

    Args:
        active: How many downloads of a slot wait or run now.
    """

    def __init__(self, *, is_lifo: bool, active: Callable[[str], int]) -> None:
        self._sign = -1 if is_lifo else 1
        self._active = active
        #: By slot; none is empty.
        self._heaps: dict[str, list[tuple[int, bool, int, int, Lease | Local]]] = {}
        self._last_slot = ""
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
        heapq.heappush(self._heaps.setdefault(found.slot, []), (-priority, is_start, batch, index, found))

    def choose(self) -> None:
        """Decide now what :meth:`pop` will take next, whatever comes meanwhile."""
        if self._chosen is None and self._heaps:
            slot = self._next_slot()
            self._last_slot = slot
            self._chosen = heapq.heappop(self._heaps[slot])[-1]
            if not self._heaps[slot]:
                del self._heaps[slot]

    def _next_slot(self) -> str:
        if len(self._heaps) == 1:
            return next(iter(self._heaps))
        active = {slot: self._active(slot) for slot in self._heaps}
        fewest = min(active.values())
        slots = [slot for slot, count in active.items() if count == fewest]
        return min((slot for slot in slots if slot > self._last_slot), default=min(slots))

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
        leases = [lease for heap in self._heaps.values() for *_, lease in heap if isinstance(lease, Lease)]
        stay = {
            slot: [entry for entry in heap if not isinstance(entry[-1], Lease)] for slot, heap in self._heaps.items()
        }
        self._heaps = {slot: heap for slot, heap in stay.items() if heap}
        for heap in self._heaps.values():
            heapq.heapify(heap)
        if isinstance(self._chosen, Lease):
            leases.append(self._chosen)
            self._chosen = None
        self._n_leases = 0
        return leases

    def clear(self) -> list[Lease]:
        """Take out everything; the leases among it."""
        leases = self.take_leases()
        self._heaps.clear()
        self._chosen = None
        return leases

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values())) + (self._chosen is not None)
