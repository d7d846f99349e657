"""Quotes, the pages of their authors, and how often each tag is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scrapy import Request
from scrapy.http import Response

from bookshop.spiders.base import SiteSpider, path_of


class QuotesSpider(SiteSpider):
    """
    Follows links with `response.follow`, and tells callbacks why with ``cb_kwargs``.

    Many pages link to one author or tag, and only the first request of each is made:
    what goes into ``cb_kwargs`` must be the same on all of them.
    """

    name = "quotes"
    start_path = "/quotes/"

    def parse(self, response: Response) -> Iterator[dict[str, Any] | Request]:
        """Read a page of quotes."""
        for quote in response.css("div.quote"):
            author = quote.css("small.author::text").get()
            yield {
                "kind": "quote",
                "number": int(quote.attrib["data-number"]),
                "text": quote.css("span.text::text").get(),
                "author": author,
                "tags": quote.css("a.tag::text").getall(),
            }
            yield from response.follow_all(
                quote.css("a.about::attr(href)").getall(),
                self.parse_author,
                cb_kwargs={"name": author},
            )
            for tag in quote.css("a.tag"):
                yield response.follow(tag.attrib["href"], self.parse_tag, cb_kwargs={"tag": tag.css("::text").get()})
        yield from response.follow_all(response.css("a.next::attr(href)").getall(), self.parse)

    def parse_author(self, response: Response, name: str) -> Iterator[dict[str, Any]]:
        """Read the page of the author called *name*."""
        yield {
            "kind": "author",
            "path": path_of(response),
            "name": name,
            "born": response.css("span.born::text").get(),
            "place": response.css("span.place::text").get(),
        }

    def parse_tag(self, response: Response, tag: str) -> Iterator[dict[str, Any] | Request]:
        """Read a page of the quotes that have *tag*."""
        yield {
            "kind": "tag",
            "path": path_of(response),
            "tag": tag,
            "quotes": [int(n) for n in response.css("div.quote::attr(data-number)").getall()],
        }
        yield from response.follow_all(
            response.css("a.next::attr(href)").getall(), self.parse_tag, cb_kwargs={"tag": tag}
        )
