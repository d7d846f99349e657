"""Which page answers which path."""

from __future__ import annotations

import re

from accesslog import AccessLog
from account import Account
from catalog import Catalog
from directions import Directions
from exchange import Call, Groups, Page, Reply, Route, html, json_reply
from failures import Failures
from latency import Latency
from mirror import Mirror
from pages import frame, not_found
from quotes import Quotes
from reviews import Reviews
from sessions import Sessions
from shop import Shop
from trouble import Trouble


class Routes:
    """All pages of the site."""

    def __init__(self, catalog: Catalog, log: AccessLog, latency: Latency) -> None:
        self._log = log
        self._latency = latency
        self._failures = Failures()
        routes: list[Route] = [
            (r"/", self._home),
            *Shop(catalog).routes(),
            *Quotes(catalog).routes(),
            *Account(catalog, Sessions(catalog.seed)).routes(),
            *Reviews(catalog).routes(),
            *Trouble(self._failures).routes(),
            *Directions(catalog).routes(),
            *Mirror().routes(),
            (r"/_log", self._show_log),
            (r"/_reset", self._reset),
            (r"/_latency", self._set_latency),
        ]
        self._routes: list[tuple[re.Pattern[str], Page]] = [
            (re.compile(pattern, re.ASCII), page) for pattern, page in routes
        ]

    def answer(self, call: Call) -> Reply:
        """Answer a call; 404 when no page has its path."""
        for pattern, page in self._routes:
            match = pattern.fullmatch(call.path)
            if match is not None:
                return page(call, match.groupdict())
        return not_found("page")

    def _home(self, call: Call, groups: Groups) -> Reply:
        return html(frame("Bookshop", "<p>A shop for practice.</p>"))

    def _show_log(self, call: Call, groups: Groups) -> Reply:
        return json_reply(self._log.as_json())

    def _reset(self, call: Call, groups: Groups) -> Reply:
        if call.method != "POST":
            return Reply(status=405, headers=(("Allow", "POST"),))
        self._log.clear()
        self._failures.reset()
        self._latency.reset()
        return json_reply({})

    def _set_latency(self, call: Call, groups: Groups) -> Reply:
        if call.method != "POST":
            return Reply(status=405, headers=(("Allow", "POST"),))
        self._latency.ms = call.number("ms", self._latency.ms)
        return json_reply({})
