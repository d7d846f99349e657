"""Reviews, from the site's JSON API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from scrapy import Request
from scrapy.http import JsonResponse, Response

from bookshop.spiders.base import SiteSpider


class ReviewsSpider(SiteSpider):
    """Follows one chain of cursors for each number of stars."""

    name = "reviews"

    def _page(self, stars: int, cursor: str | None) -> Request:
        query: dict[str, int | str] = {"stars": stars}
        if cursor is not None:
            query["cursor"] = cursor
        url = f"{self.base}/api/reviews?{urlencode(query)}"
        return Request(url, self.parse, cb_kwargs={"stars": stars})

    async def start(self) -> AsyncIterator[Request]:
        """Ask for the first page of each number of stars."""
        for stars in range(1, 6):
            yield self._page(stars, None)

    async def parse(self, response: Response, stars: int) -> AsyncIterator[dict[str, Any] | Request]:
        """Read a page, and ask for the one after it."""
        assert isinstance(response, JsonResponse)  # The API answers in JSON only.
        page = response.json()
        for review in page["reviews"]:
            # A callback that waits lets others run in between, as one that asks a
            # database does.
            await asyncio.sleep(0)
            yield dict(review)
        if page["next"] is not None:
            yield self._page(stars, page["next"])
