"""Quotes, in pages, by author and by tag."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from catalog import Catalog, Quote
from exchange import Call, Groups, Reply, Route, html
from pages import frame, link, listing, not_found, page_count, page_of, pager

#: Quotes on a page.
PAGE_SIZE = 10


class Quotes:
    """The pages under ``/quotes/``."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._by_tag = {tag: tuple(quote for quote in catalog.quotes if tag in quote.tags) for tag in catalog.tags}

    def routes(self) -> list[Route]:
        """List the quotes' pages."""
        return [
            (r"/quotes/(?:page/(?P<page>\d{1,4})/)?", self._all),
            (r"/quotes/tag/(?P<tag>[a-z]+)/(?:page/(?P<page>\d{1,4})/)?", self._tag),
            (r"/quotes/author/(?P<slug>[a-z-]+)/", self._author),
        ]

    def _quote(self, quote: Quote) -> str:
        tags = " ".join(link(f"/quotes/tag/{tag}/", tag, css_class="tag") for tag in quote.tags)
        author = link(f"/quotes/author/{quote.author.slug}/", "(about)", css_class="about")
        return (
            f'<div class="quote" data-number="{quote.number}">'
            f'<span class="text">{escape(quote.text)}</span> '
            f'<small class="author">{escape(quote.author.name)}</small> {author} {tags}</div>'
        )

    def _list(self, title: str, path: str, quotes: Sequence[Quote], page: int) -> Reply:
        pages = page_count(len(quotes), PAGE_SIZE)
        if not 1 <= page <= pages:
            return not_found("page")
        shown = (self._quote(quote) for quote in page_of(quotes, page, PAGE_SIZE))
        return html(frame(title, *shown, pager(page, pages, path + "page/{page}/")))

    def _all(self, call: Call, groups: Groups) -> Reply:
        page = int(groups["page"] or 1)
        return self._list("Quotes", "/quotes/", self._catalog.quotes, page)

    def _tag(self, call: Call, groups: Groups) -> Reply:
        tag = groups["tag"]
        if tag not in self._by_tag:
            return not_found("tag")
        page = int(groups["page"] or 1)
        return self._list(f"Tag: {tag}", f"/quotes/tag/{tag}/", self._by_tag[tag], page)

    def _author(self, call: Call, groups: Groups) -> Reply:
        author = self._catalog.authors.get(groups["slug"])
        if author is None:
            return not_found("author")
        facts = (
            f'<span class="born">{escape(author.born)}</span>',
            f'<span class="place">{escape(author.place)}</span>',
        )
        return html(frame(author.name, listing(facts, css_class="author")))
