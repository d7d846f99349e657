"""The HTML that all pages share: the frame, links, and the links between pages of a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeVar

from exchange import Reply, html

_T = TypeVar("_T")

_NAVIGATION = (
    ("/", "Home"),
    ("/shop/", "Shop"),
    ("/quotes/", "Quotes"),
    ("/account/", "Account"),
    ("/trouble/", "Trouble"),
)


def link(href: str, text: str, *, css_class: str = "") -> str:
    """Make a link; *href* is root-relative and already percent-encoded."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f'<a{attribute} href="{escape(href)}">{escape(text)}</a>'


def listing(items: Iterable[str], *, css_class: str) -> str:
    """Make an unordered list of HTML fragments."""
    rows = "\n".join(f"  <li>{item}</li>" for item in items)
    return f'<ul class="{css_class}">\n{rows}\n</ul>'


def frame(title: str, *parts: str, encoding: str = "utf-8") -> str:
    """Put HTML fragments under a heading into the frame of every page."""
    navigation = " ".join(link(href, text) for href, text in _NAVIGATION)
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="{encoding}"><title>{escape(title)}</title></head>
<body>
<nav>{navigation}</nav>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def not_found(what: str) -> Reply:
    """Answer 404."""
    return html(frame("Not found", f"<p>There is no {escape(what)} here.</p>"), status=404)


def page_count(total: int, size: int) -> int:
    """Count the pages of *size* that *total* things fill; an empty list has one page."""
    return max(1, -(-total // size))


def page_of(things: Sequence[_T], page: int, size: int) -> Sequence[_T]:
    """Cut page number *page* (from 1) out of *things*; empty beyond the last."""
    return things[(page - 1) * size : page * size]


def pager(page: int, pages: int, href: str) -> str:
    """
    Link the pages around *page*.

    Args:
        page: The page shown, from 1.
        pages: How many there are.
        href: The address of a page, with ``{page}`` where its number goes.
    """
    links = []
    if page > 1:
        links.append(link(href.format(page=page - 1), "Previous", css_class="previous"))
    if page < pages:
        links.append(link(href.format(page=page + 1), "Next", css_class="next"))
    return f'<p class="pager">Page {page} of {pages} {" ".join(links)}</p>'
