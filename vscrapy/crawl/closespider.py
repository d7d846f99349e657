"""
CLOSESPIDER_* for the whole task: Scrapy's own extension, which is told what the other crawl processes have counted.

Each process closes the task as soon as it knows of enough; it hears of the others with each reply to a commit. Near a
limit, counts leave at once, and no request is begun before they are answered: when a limit is reached, nothing is
begun any more, and what is too much was in flight. Pages since the last item are counted on Redis, in the order of
the commits: an item of any process begins them anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from scrapy import signals
from scrapy.extensions.closespider import CloseSpider

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from vscrapy.crawl.session import Session

#: The extension's conditions, in the order in which it looks at them: reason, counter, what is counted for it.
_CONDITIONS: Final = (
    ("errorcount", "errorcount", "errors"),
    ("pagecount", "pagecount", "pages"),
    ("pagecount_no_item", "pagecount_since_last_item", ""),
    ("itemcount", "itemcount", "items"),
)
#: What is counted since the last item.
_BARREN: Final = "pages_since_item"


class TaskCloseSpider:
    """The project's CloseSpider extension, if it has one, and what is counted for it."""

    def __init__(self, crawler: Crawler, session: Session) -> None:
        self._session = session
        self._extension: Any = crawler.get_extension(CloseSpider)
        #: What this process has counted; what of it was answered; and what others had counted at the last reply.
        self._counted: Counter[str] = Counter()
        self._own: Counter[str] = Counter()
        self._others: dict[str, int] = {}
        #: What the whole task has in flight could reach a limit, and is not all this process's.
        self._is_near = False
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
        self._count("items")
        self._session.restart(_BARREN)

    def _on_page(self) -> None:
        self._count("pages")
        self._session.count(_BARREN)

    def _on_error(self) -> None:
        self._count("errors")

    def _count(self, what: str) -> None:
        self._counted[what] += 1
        self._session.count(what, is_urgent=self._is_near)

    @property
    def is_waiting(self) -> bool:
        """Is a limit so near that no request may begin until what was counted here is answered?"""
        return self._is_near and self._counted != self._own

    def begin(self, elapsed_s: float) -> None:
        """The task's first spider was opened so long ago; this process's is about to open."""
        if self._extension is not None and self._extension.close_on["timeout"]:
            # Zero would mean: no limit.
            self._extension.close_on["timeout"] = max(0.001, self._extension.close_on["timeout"] - elapsed_s)

    def learn(self, counted: Mapping[str, int], by_us: Mapping[str, int], leased: int) -> str | None:
        """
        Take what the whole task has counted.

        Args:
            by_us: What this process has counted, in the commit that was answered.
            leased: Requests that the whole task has in flight, or is about to begin.

        Returns:
            The reason to close the spider, if there is one now.
        """
        if self._extension is None:
            return None
        self._own.update({name: count for name, count in by_us.items() if name != _BARREN})
        others = {name: count - self._own[name] for name, count in counted.items() if name != _BARREN}
        news = {name: count - self._others.get(name, 0) for name, count in others.items()}
        self._others.update(others)
        reason = self._add(news, counted.get(_BARREN, 0)) if any(news.values()) else None
        self._is_near = any(others.values()) and self._could_reach(leased)
        return reason

    def _could_reach(self, leased: int) -> bool:
        counter, close_on = self._extension.counter, self._extension.close_on
        n_pages = self._counted["pages"] + self._others.get("pages", 0)
        items_a_page = max(1.0, counter["itemcount"] / max(1, n_pages))
        return any(
            close_on[reason] - counter[name] <= leased * (items_a_page if name == "itemcount" else 1)
            for reason, name, _ in _CONDITIONS
            if close_on[reason]
        )

    def _add(self, news: Mapping[str, int], n_barren: int) -> str | None:
        extension = self._extension
        counter, close_on = extension.counter, extension.close_on
        for _, name, what in _CONDITIONS:
            counter[name] += news.get(what, 0)
        if self._counted["items"] == self._own["items"]:
            # Else an item of ours that is still on its way begins them anew, which the extension knows.
            counter["pagecount_since_last_item"] = n_barren + self._counted["pages"] - self._own["pages"]
        if close_on["timeout_no_item"]:
            extension.items_in_period += news.get("items", 0)
        for reason, name, _ in _CONDITIONS:
            if close_on[reason] and counter[name] >= close_on[reason]:
                return f"closespider_{reason}"
        return None
