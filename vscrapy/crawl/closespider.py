"""
CLOSESPIDER_* for the whole task: Scrapy's own extension, which is told what the other crawl processes have counted.

Each process closes the task as soon as it knows of enough; it hears of the others with each reply to a commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from scrapy import signals
from scrapy.extensions.closespider import CloseSpider

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from vscrapy.crawl.session import Session

#: The extension's conditions, in the order in which it looks at them: reason, counter, what is counted.
_CONDITIONS: Final = (
    ("errorcount", "errorcount", "errors"),
    ("pagecount", "pagecount", "pages"),
    ("pagecount_no_item", "pagecount_since_last_item", "pages"),
    ("itemcount", "itemcount", "items"),
)


class TaskCloseSpider:
    """The project's CloseSpider extension, if it has one, and what is counted for it."""

    def __init__(self, crawler: Crawler, session: Session) -> None:
        self._session = session
        self._extension: Any = crawler.get_extension(CloseSpider)
        #: What this process's answered commits have counted, and what others had at the last reply.
        self._own: dict[str, int] = {}
        self._others: dict[str, int] = {}
        if self._extension is None:
            return
        session.counts_for_task()
        for handler, signal in (
            (self._on_item, signals.item_scraped),
            (self._on_page, signals.response_received),
            (self._on_error, signals.spider_error),
        ):
            crawler.signals.connect(handler, signal)

    def _on_item(self) -> None:
        self._session.count("items")

    def _on_page(self) -> None:
        self._session.count("pages")

    def _on_error(self) -> None:
        self._session.count("errors")

    def begin(self, elapsed_s: float) -> None:
        """The task's first spider was opened so long ago; this process's is about to open."""
        if self._extension is not None and self._extension.close_on["timeout"]:
            # Zero would mean: no limit.
            self._extension.close_on["timeout"] = max(0.001, self._extension.close_on["timeout"] - elapsed_s)

    def learn(self, counted: Mapping[str, int], by_us: Mapping[str, int]) -> str | None:
        """
        Take what the whole task has counted.

        Args:
            by_us: What this process has counted, in the commit that was answered.

        Returns:
            The reason to close the spider, if there is one now.
        """
        if self._extension is None:
            return None
        for name, count in by_us.items():
            self._own[name] = self._own.get(name, 0) + count
        others = {name: count - self._own.get(name, 0) for name, count in counted.items()}
        news = {name: count - self._others.get(name, 0) for name, count in others.items()}
        self._others.update(others)
        return self._add(news) if any(news.values()) else None

    def _add(self, news: Mapping[str, int]) -> str | None:
        extension = self._extension
        counter, close_on = extension.counter, extension.close_on
        for _, name, what in _CONDITIONS:
            counter[name] += news.get(what, 0)
        if news.get("items"):
            counter["pagecount_since_last_item"] = 0
            if close_on["timeout_no_item"]:
                extension.items_in_period += news["items"]
        for reason, name, _ in _CONDITIONS:
            if close_on[reason] and counter[name] >= close_on[reason]:
                return f"closespider_{reason}"
        return None
