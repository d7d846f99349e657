"""
All that goes wrong on real sites: redirects, errors, slowness, odd encodings.

No redirect ends at a page that is also linked directly: a crawler that drops
duplicates would otherwise see one or the other, as the order has it.
"""

from __future__ import annotations

import gzip
from urllib.parse import quote

from exchange import HTML, Call, Groups, Reply, Route, html, redirect
from failures import Failures
from pages import frame, link, listing

#: Requests of a healing page that fail, when the query does not say.
DEFAULT_FAILS = 2
DEFAULT_WAIT_MS = 300
MAX_WAIT_MS = 60_000

_GREETING = "Grüße aus Zürich, 東京 and Москва"


def _value(text: str) -> str:
    return f'<p class="value">{text}</p>'


class Trouble:
    """The pages under ``/trouble/`` and ``/slow/``."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def routes(self) -> list[Route]:
        """List the troublesome pages."""
        return [
            (r"/trouble/", self._index),
            (r"/trouble/fine/(?P<number>\d+)", self._fine),
            (r"/trouble/broken/(?P<number>\d+)", self._broken),
            (r"/trouble/heal/(?P<number>\d+)", self._heal),
            (r"/trouble/dead/(?P<number>\d+)", self._dead),
            (r"/trouble/missing/(?P<number>\d+)", self._missing),
            (r"/trouble/gone/(?P<number>\d+)", self._gone),
            (r"/trouble/hangup/(?P<number>\d+)", self._hangup),
            (r"/trouble/moved/(?P<status>30[12378])/(?P<number>\d+)", self._moved),
            (r"/trouble/chain/(?P<left>\d)/(?P<number>\d+)", self._chain),
            (r"/trouble/landed/(?P<name>[a-z0-9-]+)", self._landed),
            (r"/trouble/encoding/naïve-東京", self._non_ascii),
            (r"/trouble/encoding/latin-1", self._latin_1),
            (r"/trouble/encoding/gzip", self._gzip),
            (r"/slow/(?P<number>\d+)", self._slow),
        ]

    def _index(self, call: Call, groups: Groups) -> Reply:
        paths = [
            *(f"/trouble/fine/{n}" for n in range(1, 21)),
            *(f"/trouble/broken/{n}" for n in range(1, 6)),
            *(f"/trouble/heal/{n}?fails={n % 2 + 1}" for n in range(1, 11)),
            *(f"/trouble/dead/{n}" for n in range(1, 4)),
            *(f"/trouble/missing/{n}" for n in range(1, 6)),
            *(f"/trouble/gone/{n}" for n in range(1, 4)),
            *(f"/trouble/hangup/{n}" for n in range(1, 3)),
            *(f"/trouble/moved/301/{n}" for n in range(1, 4)),
            *(f"/trouble/moved/302/{n}" for n in range(1, 4)),
            *(f"/trouble/chain/3/{n}" for n in range(1, 4)),
            *(f"/slow/{n}?ms=300" for n in range(1, 6)),
            quote("/trouble/encoding/naïve-東京"),
            "/trouble/encoding/latin-1",
            "/trouble/encoding/gzip",
        ]
        links = listing((link(path, path) for path in paths), css_class="troubles")
        return html(frame("Trouble", links))

    def _fine(self, call: Call, groups: Groups) -> Reply:
        return html(frame(f"Fine {groups['number']}", _value(groups["number"])))

    def _broken(self, call: Call, groups: Groups) -> Reply:
        """Answer 200 without the value that every other page has."""
        return html(frame(f"Broken {groups['number']}", '<p class="value"></p>'))

    def _heal(self, call: Call, groups: Groups) -> Reply:
        number = groups["number"]
        if self._failures.is_due(call.path, call.number("fails", DEFAULT_FAILS)):
            status = 503 if int(number) % 3 == 0 else 500
            return html(frame("Server error", "<p>Try again.</p>"), status=status)
        return html(frame(f"Healed {number}", _value(number)))

    def _dead(self, call: Call, groups: Groups) -> Reply:
        return html(frame("Server error", "<p>Do not try again.</p>"), status=500)

    def _missing(self, call: Call, groups: Groups) -> Reply:
        return html(frame("Not found", _value(f"no {groups['number']}")), status=404)

    def _gone(self, call: Call, groups: Groups) -> Reply:
        return html(frame("Gone", "<p>It was here once.</p>"), status=410)

    def _hangup(self, call: Call, groups: Groups) -> Reply:
        return Reply(hangs_up=True)

    def _moved(self, call: Call, groups: Groups) -> Reply:
        target = f"/trouble/landed/{groups['status']}-{groups['number']}"
        return redirect(target, status=int(groups["status"]))

    def _chain(self, call: Call, groups: Groups) -> Reply:
        left, number = int(groups["left"]), groups["number"]
        if left > 1:
            return redirect(f"/trouble/chain/{left - 1}/{number}", status=301)
        return redirect(f"/trouble/landed/chain-{number}")

    def _landed(self, call: Call, groups: Groups) -> Reply:
        return html(frame(f"Landed {groups['name']}", _value(groups["name"])))

    def _non_ascii(self, call: Call, groups: Groups) -> Reply:
        return html(frame("Naïve 東京", _value(_GREETING)))

    def _latin_1(self, call: Call, groups: Groups) -> Reply:
        page = frame("Café", _value("Déjà vu, £5, ñandú"), encoding="iso-8859-1")
        return Reply(page.encode("latin-1"), content_type="text/html; charset=iso-8859-1")

    def _gzip(self, call: Call, groups: Groups) -> Reply:
        page = frame("Compressed", _value("gzip"), f"<p>{'again ' * 2000}</p>")
        body = gzip.compress(page.encode(), mtime=0)
        return Reply(body, content_type=HTML, headers=(("Content-Encoding", "gzip"),))

    def _slow(self, call: Call, groups: Groups) -> Reply:
        wait_ms = min(call.number("ms", DEFAULT_WAIT_MS), MAX_WAIT_MS)
        page = frame(f"Slow {groups['number']}", _value(groups["number"]))
        return Reply(page.encode(), wait_ms=wait_ms)
