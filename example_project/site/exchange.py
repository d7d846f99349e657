"""
One HTTP exchange as the site's pages see it: a `Call` comes in, a `Reply` goes out.

Nothing here knows the server: a page is a function from a call to a reply, so its
content depends on the seed and the call alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HTML = "text/html; charset=utf-8"
JSON = "application/json"
XML = "application/xml; charset=utf-8"


@dataclass(frozen=True)
class Call:
    """A request, parsed."""

    #: The HTTP method, in capitals.
    method: str
    #: The path, percent-decoded, without the query.
    path: str
    #: The fields of the query; the last one wins when a name is repeated.
    query: Mapping[str, str] = field(default_factory=dict)
    #: The fields of a urlencoded body; the last one wins.
    form: Mapping[str, str] = field(default_factory=dict)
    #: The body as it came.
    body: bytes = b""
    #: The headers by their names in small letters; the last one wins when a name is repeated.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The session cookie's value, None without the cookie.
    session: str | None = None
    #: ``http://host:port`` as the client addressed the site.
    origin: str = ""

    def number(self, name: str, default: int) -> int:
        """Read a whole number of the query; *default* when it is absent or malformed."""
        text = self.query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else default


@dataclass(frozen=True)
class Reply:
    """A response, before the server writes it."""

    #: The body, encoded.
    body: bytes = b""
    #: The HTTP status.
    status: int = 200
    #: The Content-Type header.
    content_type: str = HTML
    #: Further headers, in order.
    headers: tuple[tuple[str, str], ...] = ()
    #: How long the server waits before it answers.
    wait_ms: int = 0
    #: Whether the server closes the connection instead of answering.
    hangs_up: bool = False


#: What the named groups of a route's pattern matched.
Groups = Mapping[str, str]
#: A page: the call and what its path's named groups matched.
Page = Callable[[Call, Groups], Reply]
#: A regular expression that a whole path must match, and its page.
Route = tuple[str, Page]


def html(text: str, *, status: int = 200) -> Reply:
    """Answer with an HTML page."""
    return Reply(text.encode(), status)


def json_reply(value: Any, *, status: int = 200) -> Reply:
    """Answer with a JSON document."""
    body = json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
    return Reply(body, status, JSON)


def redirect(location: str, *, status: int = 302, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Answer with a redirect to *location*, a root-relative path."""
    return Reply(b"", status, HTML, (("Location", location), *headers))
