"""A downloader that downloads nothing: what it runs ends when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

MOST: Final = 3
DELAY_S: Final = 0.01
SPECIAL: Final[Mapping[str, dict[str, Any]]] = {
    "one": {"concurrency": 1, "delay": 0},
    "slow": {"concurrency": 2, "delay": DELAY_S, "jitter": 0},
}
#: A queue for each slot; not Scrapy's default in all versions.
BY_SLOT: Final = {"SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.DownloaderAwarePriorityQueue"}
#: Slot -> downloads at once.
LIMITS: Final = {"a": MOST, "one": 1, "slow": 2}


class Downloads:
    """What :class:`~vscrapy.internals.DownloadSlots` is of Scrapy's downloader; starts are noted."""

    most = MOST
    special = SPECIAL

    def __init__(self, on_start: Callable[[str], None]) -> None:
        self.queue: dict[str, int] = dict.fromkeys(LIMITS, 0)
        self.begun: dict[str, int] = dict.fromkeys(LIMITS, 0)
        self.limits: dict[str | None, int] = {}
        self._on_start = on_start
        self.listen(lambda _: None, lambda _: None)

    def listen(self, on_put: Callable[[str], None], on_left: Callable[[str], None]) -> None:
        self.on_put, self.on_left = on_put, on_left

    def most_of(self, slot: str) -> int:
        return LIMITS[slot]

    def active(self, slot: str) -> int:
        return self.queue[slot] + self.begun[slot]

    def running(self, slot: str) -> int:
        return self.begun[slot]

    def watch(self, slot: str) -> None:
        """Everything is told here."""

    def limit(self, slot: str, most: int | None) -> None:
        self.limits.pop(slot, None)
        if most is not None:
            self.limits[slot] = most
        self._fill(slot)

    def _fill(self, slot: str) -> None:
        while self.queue[slot] and self.begun[slot] < self.limits.get(slot, LIMITS[slot]):
            self.queue[slot] -= 1
            self.begun[slot] += 1
            self._on_start(slot)

    def put(self, slot: str) -> None:
        """Download something."""
        self.on_put(slot)
        self.queue[slot] += 1
        self._fill(slot)

    def end(self, slot: str) -> None:
        """A download is over."""
        self.begun[slot] -= 1
        self._fill(slot)
        self.on_left(slot)
