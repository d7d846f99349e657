"""Who fetches the robots.txt of a site, and what the other processes do meanwhile."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http import Response
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred, succeed

from vscrapy.crawl import robots
from vscrapy.crawl.robots import ROBOTS_BYTES, SharedRobots

SITE = "site.test"
FORBIDS = b"User-agent: *\nDisallow: /secret\n"


class Engine:
    """Downloads robots.txt, when it is let."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.n_asked = 0

    def download(self, request: Request) -> Deferred[Response]:
        """What Scrapy 2.13 asks."""
        self.n_asked += 1
        return succeed(Response(request.url, body=self._body))

    async def download_async(self, request: Request) -> Response:
        """What later ones ask."""
        found: Response = await self.download(request)
        return found


class Process:
    """One crawl process: what it tells is kept until the task hands it on."""

    def __init__(self, name: str, body: bytes) -> None:
        self.claims: list[tuple[str, int]] = []
        self.told: list[tuple[str, str]] = []
        crawler = get_crawler(settings_dict={"ROBOTSTXT_OBEY": True})
        crawler.engine = self.engine = Engine(body)  # type: ignore[assignment]
        self._middleware = RobotsTxtMiddleware.from_crawler(crawler)
        self.robots = SharedRobots(
            self._middleware,
            name,
            claim=lambda *claim: self.claims.append(claim),
            tell=lambda *told: self.told.append(told),
        )

    def ask(self, path: str = "/") -> Any:
        """A request to the site comes by; what it waits for."""
        find: Callable[..., Any] = self._middleware.robot_parser
        found = find(Request(f"http://{SITE}{path}"))
        return ensureDeferred(found) if inspect.iscoroutine(found) else maybeDeferred(lambda: found)


@pytest.fixture(autouse=True)
def _without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Scrapy wait for Deferreds as with a reactor that is not asyncio's; there is none here."""
    for module in ("defer", "signal"):
        monkeypatch.setattr(f"scrapy.utils.{module}.is_asyncio_available", lambda: False)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What was to be called later, and has not been taken back."""
    found: list[Callable[[], object]] = []

    def call_later(_delay_s: float, function: Callable[[], object]) -> Callable[[], object]:
        found.append(function)
        return lambda: found.remove(function)

    monkeypatch.setattr(robots, "call_later", call_later)
    return found


def test_robots_who_claims_first_fetches_and_the_other_waits(timers: list[Callable[[], object]]) -> None:
    """Each of a process's requests waits; one claim is made, one fetch, and all go on."""
    first, second = Process("one", FORBIDS), Process("two", FORBIDS)
    asked = [first.ask(), first.ask("/secret"), second.ask()]
    assert (first.claims, second.claims, first.engine.n_asked) == ([(SITE, 1)], [(SITE, 1)], 0)
    first.robots.learn_claim(SITE, 1, "one")
    second.robots.learn_claim(SITE, 1, "one")
    assert [each.called for each in asked] == [True, True, False]
    assert (first.engine.n_asked, second.engine.n_asked) == (1, 0)
    second.robots.learn(*first.told[0])
    assert asked[2].called
    assert not asked[2].result.allowed(f"http://{SITE}/secret", "anybody")
    assert (second.engine.n_asked, second.told, timers) == (0, [], [])


def expire(timers: list[Callable[[], object]]) -> None:
    """The time is up that the only process waits."""
    [timer] = timers
    timers.clear()
    timer()


def test_robots_that_nobody_tells_of_are_claimed_anew(timers: list[Callable[[], object]]) -> None:
    """The one whose turn it was may be dead: one of the others takes it, and the rest wait for that one."""
    second, third = Process("two", FORBIDS), Process("three", FORBIDS)
    asked = [second.ask(), third.ask()]
    for process in (second, third):
        process.robots.learn_claim(SITE, 1, "one")
    for timer in timers[:]:
        timers.remove(timer)
        timer()
    assert (second.claims, third.claims) == ([(SITE, 1), (SITE, 2)], [(SITE, 1), (SITE, 2)])
    for process in (second, third):
        process.robots.learn_claim(SITE, 2, "three")
    assert [each.called for each in asked] == [False, True]
    assert (second.engine.n_asked, third.engine.n_asked) == (0, 1)
    second.robots.learn(*third.told[0])
    assert asked[0].called
    assert (second.engine.n_asked, timers) == (0, [])


def test_robots_are_fetched_where_redis_does_not_say_by_whom(timers: list[Callable[[], object]]) -> None:
    """What is heard later changes nothing."""
    process = Process("two", FORBIDS)
    asked = process.ask()
    expire(timers)
    assert asked.called
    assert process.engine.n_asked == 1
    process.robots.learn_claim(SITE, 1, "one")
    process.robots.learn(SITE, "")
    assert not process.ask().result.allowed(f"http://{SITE}/secret", "anybody")


def test_robots_wait_anew_for_who_took_the_turn_over(timers: list[Callable[[], object]]) -> None:
    """Of a later round that another process began, the time counts from when it is heard of."""
    process = Process("two", FORBIDS)
    process.ask()
    process.robots.learn_claim(SITE, 1, "one")
    before = timers[:]
    process.robots.learn_claim(SITE, 2, "three")
    assert (len(timers), timers != before) == (1, True)
    expire(timers)
    assert process.claims == [(SITE, 1), (SITE, 3)]


def test_robots_that_are_too_large_are_fetched_by_each(timers: list[Callable[[], object]]) -> None:
    """They are not passed on, but nobody waits for them longer than for others."""
    body = FORBIDS + b"#" * ROBOTS_BYTES
    first, second = Process("one", body), Process("two", body)
    asked = [first.ask(), second.ask()]
    first.robots.learn_claim(SITE, 1, "one")
    second.robots.learn_claim(SITE, 1, "one")
    assert [len(value) for _, value in first.told] == [1]
    second.robots.learn(*first.told[0])
    assert [each.called for each in asked] == [True, True]
    assert (first.engine.n_asked, second.engine.n_asked, timers) == (1, 1, [])


def test_robots_that_no_process_tells_are_refused() -> None:
    """They are signed, and come from another process all the same."""
    with pytest.raises(ValueError, match="not base64"):
        Process("one", FORBIDS).robots.learn(SITE, "?")
