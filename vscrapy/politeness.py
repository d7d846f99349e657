"""
What a site sees of the whole task: no more than one ``scrapy crawl`` would send it.

Each process that downloads, home among them, has a share of a downloader slot's concurrency, and a slot with a delay
is one process's at a time (``_polite.lua``). Here the shares become limits of Scrapy's own downloader, which keeps
them, and the delays, as ever. A process has a share as long as it has leases of the slot; a download that is put into
a slot of which there is none is held until it is given one. ``VSCRAPY_POLITENESS = "worker"`` makes all limits per
process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from scrapy.pqueues import DownloaderAwarePriorityQueue
from scrapy.utils.misc import load_object

from vscrapy.errors import ConfigError
from vscrapy.internals import DownloadSlots
from vscrapy.store.frontier import Lease, Limits, Result

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

#: Randomness makes a delay longer by this factor at most, where the project does not say otherwise.
MOST_RANDOM: Final = 1.5
#: Concurrency of a slot where the project sets none.
NO_LIMIT: Final = 1_000_000


class Channel(Protocol):
    """What takes a process's words to Redis; they leave in the order in which they were said, or together."""

    def lower_share(self, slot: str, share: int) -> None:
        """Say that no more than *share* downloads of this slot run here any more; 0: and none will."""

    def need(self, slot: str, demand: int, *, is_again: bool = False) -> None:
        """
        Say how many downloads of a slot there are, perhaps without a lease; the last word on a slot counts.

        Args:
            demand: 0: none any more; it may wait until there is something else to say.
            is_again: It was said before, and may wait a while.
        """

    def keep_need(self, slot: str) -> bool:
        """Unsay that there are no more downloads of a slot; False: it has left."""


def is_by_slot(settings: BaseSettings) -> bool:
    """Has the frontier a queue for each downloader slot? Else it has one for all."""
    return issubclass(load_object(settings["SCHEDULER_PRIORITY_QUEUE"]), DownloaderAwarePriorityQueue)


def is_of_task(settings: BaseSettings) -> bool:
    """
    Do limits hold for the whole task? Else for each process.

    Raises:
        ConfigError: VSCRAPY_POLITENESS is neither "task" nor "worker".
    """
    placed = settings.get("VSCRAPY_POLITENESS") or "task"
    if placed not in ("task", "worker"):
        raise ConfigError(f'VSCRAPY_POLITENESS is {placed!r}; it takes "task" or "worker"')
    return bool(placed == "task")


class Politeness:
    """
    The limits of one crawler, and this process's shares.

    Where the frontier has one queue for all downloader slots, a share of that one holds in each slot.

    Args:
        is_alone: No other crawl process shares the task: with the whole of a slot, downloads begin just as Scrapy
            lets them, which with asyncio starts some more than the limit.

    Raises:
        ConfigError: VSCRAPY_POLITENESS is neither "task" nor "worker".
    """

    def __init__(
        self, slots: DownloadSlots, settings: BaseSettings, spider: Spider | None, *, is_alone: bool = False
    ) -> None:
        self._slots = slots
        self._is_alone = is_alone
        self._is_by_slot = is_by_slot(settings)
        #: Slots with another limit than Scrapy's own.
        self._shares: dict[str, int] = {}
        #: Slots that this process has a share of.
        self._granted: set[str] = set()
        #: Lease -> slot, and how many of each slot.
        self._leases: dict[str, str] = {}
        self._n_leases: dict[str, int] = {}
        #: Slots with downloads that may have no lease -> how many, as it was told.
        self._needs: dict[str, int] = {}
        #: Slots with a share of which it was told that there are no more such downloads; it may not have left yet.
        self._ending: set[str] = set()
        #: Shares that were asked for and that more downloads than that still run of.
        self._coming_down: dict[str, int] = {}
        #: Smaller shares that Redis may not know of yet: what it says of these slots is older.
        self._reported: dict[str, int] = {}
        self.limits = self._limits(settings, spider) if is_of_task(settings) else Limits()
        self._is_kept = bool(self.limits.most)

    @classmethod
    def of(cls, crawler: Crawler, *, is_alone: bool = False) -> Politeness:
        """Make it for a crawler that has its engine."""
        return cls(DownloadSlots(crawler), crawler.settings, crawler.spider, is_alone=is_alone)

    def _limits(self, settings: BaseSettings, spider: Spider | None) -> Limits:
        most = self._slots.most or NO_LIMIT
        # The engine has no more requests than that in flight, for whatever site.
        in_flight = settings.getint("CONCURRENT_REQUESTS") or NO_LIMIT
        delay_s = float(getattr(spider, "download_delay", None) or settings.getfloat("DOWNLOAD_DELAY"))
        if settings.getbool("AUTOTHROTTLE_ENABLED"):
            # It finds its delay from what one process sees of a slot, so one process must see all of it.
            delay_s = max(delay_s, settings.getfloat("AUTOTHROTTLE_START_DELAY"), 0.001)
        is_random = settings.getbool("RANDOMIZE_DOWNLOAD_DELAY")
        special = {
            slot: (
                min(int(own.get("concurrency", most)) or most, in_flight),
                _longest_ms(float(own.get("delay", delay_s)), own, is_random=is_random),
            )
            for slot, own in self._slots.special.items()
        }
        most = min(most, in_flight)
        delay_ms = _longest_ms(delay_s, {}, is_random=is_random)
        if self._is_by_slot:
            return Limits(most, delay_ms, special)
        return Limits(
            min([most, *(limit for limit, _ in special.values())]),
            max([delay_ms, *(delay for _, delay in special.values())]),
        )

    def begin(self, channel: Channel) -> None:
        """Hold downloads without a share from now on."""
        self._channel = channel
        if self._is_kept:
            self._slots.listen(self._on_put, self._on_left)

    def end(self) -> None:
        """There is nobody to ask any more, or nobody else who downloads: let Scrapy's own limits be all."""
        self._is_kept = False
        self._slots.listen(lambda _: None, lambda _: None)
        for slot in self._needs:
            self._channel.need(slot, 0)
        for slot in list(self._shares):
            self._slots.limit(self._place(slot), None)
        for kept in (self._shares, self._needs, self._coming_down, self._reported, self._n_leases, self._leases):
            kept.clear()
        self._granted.clear()
        self._ending.clear()

    def active(self, slot: str) -> int:
        """Downloads of the frontier's slot that wait or run here."""
        return self._slots.active(self._place(slot))

    # Leases.

    def add_leases(self, leases: Iterable[Lease]) -> None:
        """These leases are this process's; before their shares are used."""
        if self._is_kept:
            for lease in leases:
                self._leases[lease.id] = lease.slot
                self._n_leases[lease.slot] = self._n_leases.get(lease.slot, 0) + 1

    def end_leases(self, results: Iterable[Result]) -> None:
        """These results are about to be handed over: the leases that they end may be gone at any moment."""
        for result in results:
            slot = self._leases.pop(result.id, None) if result.what in ("done", "back") else None
            if slot is None:
                continue
            self._n_leases[slot] -= 1
            if not self._n_leases[slot]:
                del self._n_leases[slot]
                self._go_on_without(slot)

    def _go_on_without(self, slot: str) -> None:
        """The last lease of a slot goes: its share goes as well, or is kept for downloads that are there."""
        if slot in self._needs:
            return
        demand = self.active(slot)
        if slot in self._granted and demand:
            self._slots.watch(self._place(slot))
            self._needs[slot] = demand
            self._channel.need(slot, demand)
            return
        self._granted.discard(slot)
        self._forget(slot)

    # Shares.

    def use(self, shares: Mapping[str, int], heard: Mapping[str, int], needs: Mapping[str, int]) -> None:
        """
        Use these shares from now on.

        Args:
            heard: Smaller shares that Redis knew of when it gave these.
            needs: Needs that it had just been told of then.
        """
        for slot, share in heard.items():
            if self._reported.get(slot) == share:
                del self._reported[slot]
        for slot, share in shares.items():
            if slot in self._granted or (share and self._is_due(slot, needs)):
                self._use_share(slot, share)
        for slot, demand in needs.items():
            if not demand and slot not in self._needs:
                self._ending.discard(slot)
                if slot not in self._granted:
                    self._forget(slot)
        self._ask_again()
        self.settle()

    def answer(self, shares: Mapping[str, int], heard: Mapping[str, int], needs: Mapping[str, int]) -> None:
        """As :meth:`use`, while commits are refused: shares that such a commit would give back are given back."""
        self.use(shares, heard, needs)
        for slot in shares:
            if not (slot in self._granted or slot in self._needs or slot in self._reported):
                self._reported[slot] = 0
                self._channel.lower_share(slot, 0)

    def _is_due(self, slot: str, needs: Mapping[str, int]) -> bool:
        """Is a share given for what is here now? An older one may be gone with its leases."""
        return slot in self._n_leases or bool(slot in self._needs and needs.get(slot))

    def _use_share(self, slot: str, share: int) -> None:
        if slot in self._reported:
            share = min(share, self._reported[slot])
            if not share:
                return
        before = self._shares.get(slot, self._whole(slot))
        if share:
            self._granted.add(slot)
        if share == before and (self._is_alone or slot in self._shares):
            return
        self._limit(slot, share)
        if share < before:
            self._coming_down[slot] = share
        else:
            self._coming_down.pop(slot, None)

    def settle(self) -> None:
        """See whether downloads have come down to the smaller shares."""
        for slot, share in list(self._coming_down.items()):
            place = self._place(slot)
            if self._slots.running(place) > share:
                continue
            del self._coming_down[slot]
            self._reported[slot] = share
            self._channel.lower_share(slot, share)
            if not share:
                self._granted.discard(slot)
                demand = self._slots.active(place)
                if demand:
                    self._needs[slot] = demand
                    self._channel.need(slot, demand)

    def _ask_again(self) -> None:
        """Of slots that wait, and of those in which there is more or less to do than was told."""
        for slot, told in self._needs.items():
            demand = self.active(slot)
            if demand and (slot not in self._granted or demand != told):
                self._needs[slot] = demand
                self._channel.need(slot, demand, is_again=True)

    # What the downloader tells.

    def _on_put(self, key: str) -> None:
        slot = self._slot(key)
        if slot in self._granted:
            return
        demand = self.active(slot) + 1
        is_known = slot in self._needs
        self._needs[slot] = demand
        if slot in self._ending:
            self._ending.discard(slot)
            if self._channel.keep_need(slot):
                self._granted.add(slot)
                return
        if not is_known:
            self._limit(slot, 0)
        self._channel.need(slot, demand, is_again=is_known)

    def _on_left(self, key: str) -> None:
        slot = self._slot(key)
        if slot in self._coming_down:
            self.settle()
        if slot in self._needs and not self.active(slot):
            del self._needs[slot]
            self._channel.need(slot, 0)
            if slot in self._granted and slot not in self._n_leases:
                self._granted.discard(slot)
                self._coming_down.pop(slot, None)
                self._ending.add(slot)

    # Limits.

    def _limit(self, slot: str, share: int) -> None:
        """Keep to a share; to the whole of it as well, for what was held would else begin all at once."""
        self._shares[slot] = share
        most = max(share, self._slots.most_of(slot)) if share >= self._whole(slot) else share
        self._slots.limit(self._place(slot), most)

    def _forget(self, slot: str) -> None:
        """Nothing is here of a slot: its limit need not be remembered, unless Redis does not know of it yet."""
        self._coming_down.pop(slot, None)
        if slot in self._shares and slot not in self._reported:
            del self._shares[slot]
            self._slots.limit(self._place(slot), None)

    def _whole(self, slot: str) -> int:
        return self.limits.special.get(slot, (self.limits.most, 0))[0]

    def _slot(self, key: str) -> str:
        """The frontier's name for a slot of the downloader."""
        return key.replace("\n", " ") if self._is_by_slot else ""

    def _place(self, slot: str) -> str | None:
        return slot if self._is_by_slot else None


def _longest_ms(delay_s: float, own: Mapping[str, Any], *, is_random: bool) -> int:
    if "jitter" in own:
        factor = 1 + float(own["jitter"])
    else:
        factor = MOST_RANDOM if own.get("randomize_delay", is_random) else 1.0
    return int(delay_s * factor * 1000 + 0.999)
