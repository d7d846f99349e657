"""Books and authors, found through the sitemaps that robots.txt names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scrapy.http import Response
from scrapy.spiders import SitemapSpider as ScrapySitemapSpider

from bookshop.spiders.base import SiteSpider, path_of


class SitemapSpider(SiteSpider, ScrapySitemapSpider):
    """Reads robots.txt, the sitemap index, and a callback for each kind of page."""

    name = "sitemap"
    sitemap_rules = (
        ("/shop/product/", "parse_book"),
        ("/quotes/author/", "parse_author"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sitemap_urls = [f"{self.base}/robots.txt"]

    def parse_book(self, response: Response) -> Iterator[dict[str, Any]]:
        """Read a product page."""
        yield {
            "kind": "book",
            "path": path_of(response),
            "title": response.css("h1::text").get(),
            "price": response.css("p.price::text").get(),
        }

    def parse_author(self, response: Response) -> Iterator[dict[str, Any]]:
        """Read an author's page."""
        yield {
            "kind": "author",
            "path": path_of(response),
            "name": response.css("h1::text").get(),
            "place": response.css("span.place::text").get(),
        }
