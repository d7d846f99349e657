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
        self._remembered: set[str] = set()
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

    def fingerprint(self, request: Request) -> str | None:
        """The request's fingerprint (hexadecimal digits); None: it is not filtered on Redis."""
        if request.dont_filter or not self._is_shared:
            return None
        fingerprint: str = self.filter.request_fingerprint(request)
        return fingerprint

    def is_duplicate(self, request: Request, fingerprint: str | None) -> bool:
        """Is it known here, without asking, that the request was seen? Otherwise Redis decides."""
        if fingerprint is None:
            return not (request.dont_filter or self._is_off) and bool(self.filter.request_seen(request))
        if fingerprint in self._remembered:
            return True
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered.add(fingerprint)
        return False

    def place(self, fingerprint: str | None) -> tuple[str, str] | None:
        """Where a fingerprint stands on Redis."""
        return None if fingerprint is None else fingerprint_place(bytes.fromhex(fingerprint))

    def forget(self, fingerprint: str | None) -> None:
        """Ask Redis again: the request stays on this process, and counts as seen only when it is done."""
        if fingerprint is not None:
            self._remembered.discard(fingerprint)

    def log(self, request: Request) -> None:
        """Log and count a filtered request, as the project's filter does."""
        self.filter.log(request, self._crawler.spider)
