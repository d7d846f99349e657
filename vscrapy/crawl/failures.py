"""
Requests that failed for good, noted under the origin whose commit will tell of them.

A request that is retried has not failed; one whose errback took care of it has not, either.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from scrapy import signals
from scrapy.utils.response import response_status_message
from twisted.python.failure import Failure as TwistedFailure

from vscrapy.errors import NotVerified
from vscrapy.internals import hook_failures
from vscrapy.store.frontier import NewFailure
from vscrapy.wire import Failure, What, encode_failure, with_fresh_tries

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from vscrapy.crawl.origin import Origin
    from vscrapy.crawl.place import Place

logger = logging.getLogger("vscrapy")

#: Characters of a traceback that travel: its end. Of an error's line and of a URL: their beginning.
MOST_TRACEBACK: Final = 16_000
MOST_LINE: Final = 2000


class Failures:
    """
    Hears what fails in one crawl process.

    Args:
        find: The request that a response or a failure belongs to, as it was leased, and its origin.
    """

    def __init__(
        self, crawler: Crawler, place: Place, find: Callable[[Any], tuple[Request | None, Origin | None]]
    ) -> None:
        self._crawler = crawler
        self._place = place
        self._find = find
        self._project = f"{place.project}/"

    def install(self) -> None:
        """Begin to hear; the engine must have its scraper."""
        self._crawler.signals.connect(self._on_spider_error, signals.spider_error)
        hook_failures(self._crawler, on_download_error=self._on_download_error, on_ignored=self._on_ignored)

    def _on_spider_error(self, failure: TwistedFailure, response: Any) -> None:
        request, origin = self._find(response)
        if request is not None and origin is not None:
            is_errback = isinstance(response, TwistedFailure) or _passes(failure, request.errback)
            what = What.ERRBACK if is_errback else What.CALLBACK
            self._note(origin, request, what, failure, status=getattr(response, "status", 0))

    def _on_download_error(self, failure: TwistedFailure, request: Request) -> None:
        found, origin = self._find(request)
        if found is not None and origin is not None:
            self._note(origin, found, What.DOWNLOAD, failure)

    def _on_ignored(self, response: Response) -> None:
        request, origin = self._find(response)
        if request is not None and origin is not None:
            self._note(origin, request, What.IGNORED, response_status_message(response.status), response.status)

    def _note(
        self, origin: Origin, request: Request, what: What, error: TwistedFailure | str, status: int = 0
    ) -> None:
        is_raised = isinstance(error, TwistedFailure)
        failure = Failure(
            what=what,
            error=_line_of(error)[:MOST_LINE],
            url=request.url[:MOST_LINE],
            method=request.method,
            callback=_name_of(request.callback),
            errback=_name_of(request.errback),
            tries=_tries(request),
            status=status,
            time=time.time(),
            worker=self._place.worker,
            process=self._place.number,
            traceback=self._traceback(error) if is_raised else "",
        )
        signed = encode_failure(failure, self._place.key)
        root = origin.root or origin
        if origin.lease is None:  # it could not be serialised: there is nothing to put back
            root.failures[request] = NewFailure("", signed)
        else:
            root.failures[request] = NewFailure(origin.lease.id, signed, self._fresh(request, origin.lease.payload))

    def _fresh(self, request: Request, payload: bytes) -> bytes:
        """What is put back: nothing where that is the request as it was leased."""
        if _tries(request) == 1:
            return b""
        try:
            return with_fresh_tries(payload, self._place.key)
        except (NotVerified, ValueError) as error:
            logger.debug("vscrapy: the retries of %s stay counted: %s", request, error)
            return b""

    def _traceback(self, failure: Any) -> str:
        lines = traceback.format_exception(failure.type, failure.value, failure.getTracebackObject())
        return "".join(lines).replace(self._project, "")[-MOST_TRACEBACK:]


def _line_of(error: TwistedFailure | str) -> str:
    if isinstance(error, str):
        return error
    lines = traceback.format_exception_only(error.type, error.value)
    return " ".join(lines[-1].split())


def _name_of(method: Any) -> str:
    return "" if method is None else str(getattr(method, "__name__", method))


def _tries(request: Request) -> int:
    times = request.meta.get("retry_times", 0)
    return times + 1 if isinstance(times, int) else 1


def _passes(failure: TwistedFailure, method: Any) -> bool:
    """Was it raised in this method? An errback that was called for an ignored response is not told otherwise."""
    code = getattr(method, "__code__", None)
    raised: Any = failure
    frames = traceback.walk_tb(raised.getTracebackObject())
    return code is not None and any(frame.f_code is code for frame, _ in frames)
