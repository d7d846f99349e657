"""All that goes wrong: failing callbacks, errors, redirects, slow pages, output by print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from scrapy import Request
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.python.failure import Failure

from bookshop.spiders.base import SiteSpider, path_of


class TroubleSpider(SiteSpider):
    """
    Yields one item for each troublesome page, whatever becomes of the page.

    ===========  ====================================================================
    fine, slow   an item
    broken       an item, and then the callback raises
    heal         an item, after the retries that the site demands
    dead, gone   an item from the errback: 500 for ever, 410
    hangup       an item from the errback: no answer at all
    missing      an item from the callback, which handles 404
    moved, chain an item of the page where the redirects end
    ===========  ====================================================================
    """

    name = "trouble"
    start_path = "/trouble/"
    handle_httpstatus_list: ClassVar[list[int]] = [404]

    def parse(self, response: Response) -> Iterator[Request]:
        """Follow all links of the list."""
        print("trouble: looking for it")
        self.logger.debug("The list is at %s", response.url)
        for href in response.css("ul.troubles a::attr(href)").getall():
            yield response.follow(href, self.parse_page, errback=self.give_up)

    def parse_page(self, response: Response) -> Iterator[dict[str, Any]]:
        """Read a page that has arrived, even if with a 404."""
        path = path_of(response)
        if response.status == 404:
            self.logger.warning("Missing: %s", path)
        value = response.css("p.value::text").get()
        yield {
            "kind": "page",
            "path": path,
            "status": response.status,
            "title": response.css("title::text").get(),
            "redirects": [unquote(urlsplit(url).path) for url in response.meta.get("redirect_urls", [])],
        }
        if value is None:
            raise ValueError(f"no value on {path}")
        print(f"trouble: read {path}")
        self.logger.info("Read %s", path)
        yield {"kind": "value", "path": path, "value": value.strip()}

    def give_up(self, failure: Failure) -> Iterator[dict[str, Any]]:
        """Record a page that did not arrive."""
        request: Request = failure.request  # type: ignore[attr-defined]  # Scrapy sets it.
        path = unquote(urlsplit(request.url).path)
        error = failure.value
        status = error.response.status if isinstance(error, HttpError) else None
        self.logger.error("Gave up %s: status %s", path, status)
        yield {"kind": "failure", "path": path, "status": status}
