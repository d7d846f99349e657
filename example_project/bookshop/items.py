"""
The items that have a fixed shape.

Each has the path of its page, not the address, so that the items of two crawls are the
same wherever the site is served.
"""

from __future__ import annotations

from dataclasses import dataclass

import scrapy


class Book(scrapy.Item):
    """A product of the shop."""

    path = scrapy.Field()
    number = scrapy.Field()
    title = scrapy.Field()
    category = scrapy.Field()
    #: Text as the shop writes it; pounds, as a number, once the price pipeline has seen it.
    price = scrapy.Field()
    stock = scrapy.Field()
    rating = scrapy.Field()
    image = scrapy.Field()
    description = scrapy.Field()
    related = scrapy.Field()


@dataclass
class Profile:
    """The signed-in customer."""

    path: str
    name: str
    order_count: int


@dataclass
class Order:
    """An order of the signed-in customer."""

    path: str
    number: int
    title: str
    quantity: int
    #: As in `Book`.
    price: str | float
