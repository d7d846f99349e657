"""
Where items go after the spiders.

The *spider* parameters are optional: Scrapy passes the spider up to 2.13, and leaves it
out from 2.14 on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy.exceptions import DropItem

if TYPE_CHECKING:
    from typing import Self, TextIO

    from scrapy import Spider
    from scrapy.crawler import Crawler

#: Prices outside this range, in pounds, are mistakes of the shop.
PRICE_RANGE = (0.01, 2_000.00)

_AMOUNT = re.compile(r"\d[\d,]*(?:\.\d+)?")


class PricePipeline:
    """Turns the price of an item into a number; drops the item when it cannot be true."""

    def process_item(self, item: Any, spider: Spider | None = None) -> Any:
        """Normalise ``price`` where an item has one."""
        adapter = ItemAdapter(item)
        text = adapter.get("price")
        if not isinstance(text, str):
            return item
        amount = _AMOUNT.search(text)
        if amount is None:
            raise DropItem(f"no amount in the price {text!r}")
        price = float(amount.group().replace(",", ""))
        if not PRICE_RANGE[0] <= price <= PRICE_RANGE[1]:
            raise DropItem(f"the price {text!r} is out of range")
        adapter["price"] = price
        return item


class JsonLinesPipeline:
    """Writes the items to ``items-<spider name>.jl`` in the working directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Name the file after the crawler's spider."""
        assert crawler.spider is not None  # Scrapy makes pipelines after the spider.
        return cls(Path(f"items-{crawler.spider.name}.jl"))

    def open_spider(self, spider: Spider | None = None) -> None:
        """Start an empty file."""
        self._file = self._path.open("w", encoding="utf-8")

    def close_spider(self, spider: Spider | None = None) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def process_item(self, item: Any, spider: Spider | None = None) -> Any:
        """Write one line; keys are sorted, so that equal items are equal lines."""
        if self._file is not None:
            line = json.dumps(ItemAdapter(item).asdict(), ensure_ascii=False, sort_keys=True)
            self._file.write(line + "\n")
        return item
