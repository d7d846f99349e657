"""A customer's orders, behind a login."""

from __future__ import annotations

from collections.abc import Iterator

from scrapy import FormRequest, Request
from scrapy.http import Response, TextResponse

from bookshop.items import Order, Profile
from bookshop.spiders.base import SiteSpider, path_of


class AccountSpider(SiteSpider):
    """Signs in; the cookie middleware then keeps the session."""

    name = "account"
    start_path = "/login"

    def parse(self, response: Response) -> Iterator[Request]:
        """Fill in the login form; its hidden token comes along by itself."""
        assert isinstance(response, TextResponse)  # A login page is HTML.
        # Deprecated in the newest Scrapy; the oldest supported one has nothing else.
        yield FormRequest.from_response(
            response,
            formdata={"username": "reader", "password": "books"},
            callback=self.parse_account,
        )

    def parse_account(self, response: Response) -> Iterator[Profile | Request]:
        """Read the page that the login leads to."""
        if path_of(response) != "/account/":
            self.logger.error("The login failed: %s", response.css("p.message::text").get())
            return
        yield Profile(
            path=path_of(response),
            name=response.css("p.name::text").get(""),
            order_count=int(response.css("p.order-count::text").get("0")),
        )
        yield from response.follow_all(response.css("a.orders::attr(href)").getall(), self.parse_orders)

    def parse_orders(self, response: Response) -> Iterator[Request]:
        """Follow a page of orders."""
        yield from response.follow_all(response.css("ul.orders a::attr(href)").getall(), self.parse_order)
        yield from response.follow_all(response.css("a.next::attr(href)").getall(), self.parse_orders)

    def parse_order(self, response: Response) -> Iterator[Order]:
        """Read an order."""
        yield Order(
            path=path_of(response),
            number=int(response.css("span.number::text").get("0")),
            title=response.css("span.title::text").get(""),
            quantity=int(response.css("span.quantity::text").get("0")),
            price=response.css("span.total::text").get(""),
        )
