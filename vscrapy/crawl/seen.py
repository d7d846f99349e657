"""Which requests are duplicates: decided on Redis for the whole task, remembered here to ask less often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from scrapy.dupefilters import BaseDupeFilter
from scrapy.utils.misc import build_from_crawler, load_object

from vscrapy.internals import counts_as_scrapy, decides_alone
from vscrapy.wire import fingerprint_place

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler

logger = logging.getLogger("vscrapy")

#: Fingerprints remembered here at most; then the memory starts anew. It is only a cache.
REMEMBERED: Final = 500_000


class Seen:
    """
    The project's DUPEFILTER_CLASS, for the whole task.

    Scrapy's own filter, and subclasses that only change its fingerprint, are shared. ``BaseDupeFilter`` filters
    nothing. Any other filter works in each crawl process by itself, and a warning says so.

    Args:
        has_others: The task may have several crawl processes.
    """

    def __init__(self, crawler: Crawler, *, has_others: bool) -> None:
        cls = load_object(crawler.settings["DUPEFILTER_CLASS"])
        self.filter: Any = build_from_crawler(cls, crawler)
        self._crawler = crawler
        self._remembered: set[tuple[int, str]] = set()
        self._is_off = cls is BaseDupeFilter
        is_alone = decides_alone(crawler.settings)
        self._is_shared = not (self._is_off or is_alone)
        if is_alone and has_others:
            logger.warning(
                "vscrapy: %s decides in each crawl process by itself; use --workers 1 if it must see all requests",
                f"{cls.__module__}.{cls.__qualname__}",
            )

    @property
    def is_counted_on_redis(self) -> bool:
        """Does Redis count what it filters? If not, the project's filter counts in a way of its own."""
        return self._is_shared and counts_as_scrapy(self.filter)

    def place(self, request: Request) -> tuple[int, str] | None:
        """Where the request's fingerprint stands on Redis; None: it is not filtered there."""
        if request.dont_filter or not self._is_shared:
            return None
        fingerprint = bytes.fromhex(self.filter.request_fingerprint(request))
        return fingerprint_place(fingerprint)

    def is_duplicate(self, request: Request, place: tuple[int, str] | None) -> bool:
        """Is it known here, without asking, that the request was seen? Otherwise Redis decides."""
        if place is None:
            return not (request.dont_filter or self._is_off) and bool(self.filter.request_seen(request))
        if place in self._remembered:
            return True
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered.add(place)
        return False

    def forget(self, place: tuple[int, str] | None) -> None:
        """Ask Redis again: the request stays on this process, and counts as seen only when it is done."""
        if place is not None:
            self._remembered.discard(place)

    def log(self, request: Request) -> None:
        """Log and count a filtered request, as the project's filter does."""
        self.filter.log(request, self._crawler.spider)
