"""
What a site sees of the whole task: no more than one ``scrapy crawl`` would send it.

The lease script gives each crawl process a share of a downloader slot's concurrency, and a slot with a delay to
one process at a time (``_polite.lua``). Here the shares become limits of Scrapy's own downloader, which keeps
them, and the delays, as ever. ``VSCRAPY_POLITENESS = "worker"`` makes all limits per crawl process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vscrapy.errors import ConfigError
from vscrapy.internals import DownloadSlots
from vscrapy.store.frontier import Limits

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

#: Randomness makes a delay longer by this factor at most, where the project does not say otherwise.
MOST_RANDOM: Final = 1.5
#: Concurrency of a slot where the project sets none.
NO_LIMIT: Final = 1_000_000


class Politeness:
    """
    The limits of one crawler, and this process's shares.

    Args:
        is_by_slot: The frontier has a queue for each downloader slot; else it has one for all, and a share of
            that one holds in each slot.

    Raises:
        ConfigError: VSCRAPY_POLITENESS is neither "task" nor "worker".
    """

    def __init__(self, crawler: Crawler, *, is_by_slot: bool) -> None:
        self._slots = DownloadSlots(crawler)
        self._is_by_slot = is_by_slot
        self._shares: dict[str, int] = {}
        #: Shares that were asked for and that more downloads than that still run of.
        self._coming_down: dict[str, int] = {}
        #: Smaller shares that Redis may not know of yet: what it says of these slots is older.
        self._reported: dict[str, int] = {}
        placed = crawler.settings.get("VSCRAPY_POLITENESS") or "task"
        if placed not in ("task", "worker"):
            raise ConfigError(f'VSCRAPY_POLITENESS is {placed!r}; it takes "task" or "worker"')
        self.limits = self._limits(crawler) if placed == "task" else Limits()

    def _limits(self, crawler: Crawler) -> Limits:
        settings = crawler.settings
        most = self._slots.most or NO_LIMIT
        delay_s = float(getattr(crawler.spider, "download_delay", None) or settings.getfloat("DOWNLOAD_DELAY"))
        if settings.getbool("AUTOTHROTTLE_ENABLED"):
            # It finds its delay from what one process sees of a slot, so one process must see all of it.
            delay_s = max(delay_s, settings.getfloat("AUTOTHROTTLE_START_DELAY"), 0.001)
        special = {
            slot: (int(own.get("concurrency", most)), _longest_ms(float(own.get("delay", delay_s)), own))
            for slot, own in self._slots.special.items()
        }
        delay_ms = _longest_ms(delay_s, {})
        if self._is_by_slot:
            return Limits(most, delay_ms, special)
        return Limits(
            min([most, *(limit or most for limit, _ in special.values())]),
            max([delay_ms, *(delay for _, delay in special.values())]),
        )

    def use(self, shares: Mapping[str, int], heard: Mapping[str, int], tell: Callable[[str, int], None]) -> None:
        """
        Use these shares from now on.

        Args:
            heard: Smaller shares that Redis knew of when it gave these.
            tell: Called when no more than a smaller share is in use.
        """
        for slot, share in heard.items():
            if self._reported.get(slot) == share:
                del self._reported[slot]
        for slot, share in shares.items():
            before = self._shares.get(slot, self.limits.most)
            if share == before or slot in self._reported:
                continue
            self._shares[slot] = share
            self._slots.limit(self._slot(slot), share, is_strict=share < self.limits.most)
            if share < before:
                self._coming_down[slot] = share
            else:
                self._coming_down.pop(slot, None)
        self.settle(tell)

    def settle(self, tell: Callable[[str, int], None]) -> None:
        """See whether downloads have come down to the smaller shares."""
        for slot, share in list(self._coming_down.items()):
            if self._slots.running(self._slot(slot)) <= share:
                del self._coming_down[slot]
                self._reported[slot] = share
                tell(slot, share)

    def _slot(self, slot: str) -> str | None:
        return slot if self._is_by_slot else None


def _longest_ms(delay_s: float, own: Mapping[str, Any]) -> int:
    factor = 1 + float(own["jitter"]) if "jitter" in own else MOST_RANDOM
    return int(delay_s * factor * 1000 + 0.999)
