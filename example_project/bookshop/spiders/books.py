"""Every book of the shop, found by rules."""

from __future__ import annotations

from scrapy.http import Response
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

from bookshop.items import Book
from bookshop.spiders.base import SiteSpider, path_of


class BooksSpider(SiteSpider, CrawlSpider):
    """Follows categories and lists, and the related books of each book."""

    name = "books"
    start_path = "/shop/"
    rules = (
        Rule(LinkExtractor(allow=r"/product/\d+-"), callback="parse_book", follow=True),
        # The staff's pages are linked too: only robots.txt keeps a crawler out.
        Rule(LinkExtractor(allow=r"/shop/(?:category|all|staff)/")),
    )

    def parse_book(self, response: Response) -> Book:
        """Read a product page."""
        book = response.css("article.product")
        return Book(
            path=path_of(response),
            number=int(book.attrib["data-number"]),
            title=response.css("h1::text").get(),
            category=book.css("a.category::text").get(),
            price=book.css("p.price::text").get(),
            stock=int(book.css("p.stock::text").re_first(r"\d+") or 0),
            rating=int(book.css("p.rating::text").re_first(r"\d+") or 0),
            image=book.css("img::attr(src)").get(),
            description=book.css("div.description p::text").get(),
            related=response.css("ul.related a::attr(href)").getall(),
        )
