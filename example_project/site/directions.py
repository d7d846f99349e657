"""What the site tells robots: robots.txt and the sitemaps."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from html import escape

from catalog import Catalog
from exchange import XML, Call, Groups, Reply, Route
from shop import product_path

_NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
_LAST_CHANGED = "2024-05-01"


def _document(root: str, entry: str, urls: Iterable[str]) -> bytes:
    rows = "\n".join(f"<{entry}><loc>{escape(url)}</loc><lastmod>{_LAST_CHANGED}</lastmod></{entry}>" for url in urls)
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {_NAMESPACE}>\n{rows}\n</{root}>\n'
    return text.encode()


class Directions:
    """The files that robots read; the protocol demands absolute addresses in them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[Route]:
        """List the files."""
        return [
            (r"/robots\.txt", self._robots),
            (r"/sitemap\.xml", self._index),
            (r"/sitemap-products\.xml", self._products),
            (r"/sitemap-authors\.xml\.gz", self._authors),
        ]

    def _robots(self, call: Call, groups: Groups) -> Reply:
        lines = (
            "User-agent: *",
            "Disallow: /shop/staff/",
            "",
            f"Sitemap: {call.origin}/sitemap.xml",
            "",
        )
        return Reply("\n".join(lines).encode(), content_type="text/plain; charset=utf-8")

    def _index(self, call: Call, groups: Groups) -> Reply:
        names = ("sitemap-products.xml", "sitemap-authors.xml.gz")
        urls = (f"{call.origin}/{name}" for name in names)
        return Reply(_document("sitemapindex", "sitemap", urls), content_type=XML)

    def _products(self, call: Call, groups: Groups) -> Reply:
        products = self._catalog.products.values()
        urls = (call.origin + product_path(product) for product in products)
        return Reply(_document("urlset", "url", urls), content_type=XML)

    def _authors(self, call: Call, groups: Groups) -> Reply:
        urls = (f"{call.origin}/quotes/author/{slug}/" for slug in self._catalog.authors)
        body = gzip.compress(_document("urlset", "url", urls), mtime=0)
        return Reply(body, content_type="application/gzip")
