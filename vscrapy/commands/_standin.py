"""The crawler process of a project's own ``crawl`` command: the crawl that it asks for goes to the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError
from twisted.internet.defer import Deferred

from vscrapy import internals

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.settings import Settings


class CrawlerStandIn:
    """
    The part of ``CrawlerProcess`` that commands use.

    Args:
        start: Called with the spider's class and its arguments; returns at the crawl's end.
    """

    def __init__(self, settings: Settings, start: Callable[[type[Spider], dict[str, Any]], None]) -> None:
        self.settings = settings
        self.spider_loader = internals.spider_loader(settings)
        self.bootstrap_failed = False
        self._start = start
        self._crawls: list[tuple[type[Spider], dict[str, Any], Deferred[None]]] = []

    def create_crawler(self, crawler_or_spidercls: type[Spider] | str | Crawler) -> Crawler:
        """
        Make a crawler, of which only the spider's class counts.

        Raises:
            KeyError: There is no such spider.
        """
        if isinstance(crawler_or_spidercls, Crawler):
            return crawler_or_spidercls
        if isinstance(crawler_or_spidercls, str):
            crawler_or_spidercls = self.spider_loader.load(crawler_or_spidercls)
        return Crawler(crawler_or_spidercls, self.settings)

    def crawl(self, crawler_or_spidercls: type[Spider] | str | Crawler, *args: Any, **kwargs: Any) -> Deferred[None]:
        """
        Note a crawl; fires at its end.

        Raises:
            KeyError: There is no such spider.
            UsageError: It cannot go to the workers.
        """
        if args:
            raise UsageError("the project's crawl command gives spider arguments without names; they cannot travel")
        if self._crawls:
            raise UsageError("the project's crawl command starts several spiders; vscrapy crawl runs one")
        ended: Deferred[None] = Deferred()
        self._crawls.append((self.create_crawler(crawler_or_spidercls).spidercls, kwargs, ended))
        return ended

    def start(self, *_: Any, **__: Any) -> None:
        """Run what was noted, to its end."""
        for spider, kwargs, ended in self._crawls:
            self._start(spider, kwargs)
            ended.callback(None)
