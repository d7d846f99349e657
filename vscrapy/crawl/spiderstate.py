"""
The spider's ``state``, where the crawl has a JOBDIR: on Redis, from the end of one run to the begin of the next.

Scrapy's SpiderState extension does this with a file. With several crawl processes, the one that closes last has the
last word.
"""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any, Final

from vscrapy.errors import NotVerified
from vscrapy.wire import decode_state, encode_state

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from vscrapy.crawl.place import Place
    from vscrapy.crawl.session import Session

logger = logging.getLogger("vscrapy")

#: The fact that holds it.
FACT: Final = "state"


class SpiderState:
    """The ``state`` of one crawler's spider; nothing, without a JOBDIR."""

    def __init__(self, crawler: Crawler, place: Place, session: Session) -> None:
        self._spider: Any = crawler.spider
        self._stats: Any = crawler.stats
        self._place = place
        self._session = session

    def begin(self, kept: str) -> None:
        """The spider is about to open; *kept* is what was kept of an earlier run, or nothing."""
        if not self._place.has_job_dir:
            return
        self._spider.state = {}
        if kept:
            try:
                self._spider.state = decode_state(base64.b64decode(kept), self._place.key)
            except (NotVerified, ValueError) as error:
                logger.error("vscrapy: the spider's state of the last run is lost: %s", error)
                self._stats.inc_value("vscrapy/states_refused")

    def end(self) -> None:
        """The spider is closed: keep its state."""
        state = getattr(self._spider, "state", None)
        if not self._place.has_job_dir or not state:
            return
        try:
            encoded = encode_state(state, self._place.key)
        except ValueError as error:
            logger.error("vscrapy: the spider's state is not kept: %s", error)
        else:
            self._session.tell(FACT, base64.b64encode(encoded).decode())
