"""
The JSON API of the reviews, paged by a cursor.

A cursor is opaque: the position is signed, so that a client can neither make one nor
count with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from catalog import Catalog, Review
from exchange import Call, Groups, Reply, Route, json_reply
from pages import page_of

#: Reviews in one answer.
PAGE_SIZE = 20
_SIGNATURE_BYTES = 8


class Reviews:
    """The API under ``/api/``."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._key = f"cursors {catalog.seed}".encode()

    def routes(self) -> list[Route]:
        """List the API's addresses."""
        return [(r"/api/reviews", self._reviews)]

    def _sign(self, text: bytes) -> bytes:
        return hmac.new(self._key, text, hashlib.sha256).digest()[:_SIGNATURE_BYTES]

    def _cursor(self, stars: int, page: int) -> str:
        text = f"{stars}:{page}".encode()
        return base64.urlsafe_b64encode(self._sign(text) + text).decode().rstrip("=")

    def _position(self, stars: int, cursor: str) -> int | None:
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            return None
        signature, text = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(text)):
            return None
        signed_stars, _, page = text.decode().partition(":")
        return int(page) if int(signed_stars) == stars else None

    def _reviews(self, call: Call, groups: Groups) -> Reply:
        """Answer with 20 reviews, of one number of stars when the query has ``stars``."""
        stars = call.number("stars", 0)
        page = self._position(stars, call.query["cursor"]) if "cursor" in call.query else 1
        if page is None:
            return json_reply({"error": "no such cursor"}, status=400)
        reviews = [r for r in self._catalog.reviews if stars in (0, r.stars)]
        has_more = page * PAGE_SIZE < len(reviews)
        return json_reply(
            {
                "reviews": [_as_json(r) for r in page_of(reviews, page, PAGE_SIZE)],
                "next": self._cursor(stars, page + 1) if has_more else None,
            }
        )


def _as_json(review: Review) -> dict[str, int | str]:
    return {
        "number": review.number,
        "product": review.product,
        "stars": review.stars,
        "customer": review.customer,
        "text": review.text,
    }
