"""
What one crawl process learns and all of its task must know: cookies, the robots.txt of a site, a failed ``start()``.

A fact travels in the commit that carries the requests that come after it, so whoever gets such a request has
the fact. Nothing is sent when nothing has changed. Facts are signed: nobody without the secret logs a crawl in as
somebody else, or lifts a robots.txt.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from http.cookiejar import Cookie
from typing import TYPE_CHECKING, Any, Final

from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.downloadermiddlewares.offsite import OffsiteMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http.cookies import CookieJar

from vscrapy.crawl.robots import SharedRobots
from vscrapy.errors import NotVerified
from vscrapy.wire import decode_fact, encode_fact

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from vscrapy.crawl.session import Session

logger = logging.getLogger("vscrapy")

#: The fact that ``start()`` ended with an exception.
_START_FAILED: Final = "start-failed"
#: Kinds of facts; their names go on with a colon, and what it is about.
_COOKIE: Final = "cookie"
_ROBOTS: Final = "robots"
#: Of such a fact, the first process that tells it is kept: it has met a domain first (OffsiteMiddleware), or it
#: fetches the robots.txt of a site, of which the round and the name follow then.
_FIRST: Final = "first"
_FETCHES: Final = "robots:"
_DOMAINS_STAT: Final = "offsite/domains"
_COOKIE_FIELDS: Final = (
    *("version", "name", "value", "port", "port_specified", "domain", "domain_specified", "domain_initial_dot"),
    *("path", "path_specified", "secure", "expires", "discard", "comment", "comment_url", "rfc2109"),
)


class SharedFacts:
    """
    The cookies and robots.txt of one crawler, kept the same in all processes of the task; and which foreign domains
    were met, so that each is counted once.

    Args:
        key: Signs the facts, as all payloads of the task.
    """

    def __init__(
        self, crawler: Crawler, session: Session, key: bytes, *, on_start_failed: Callable[[], None]
    ) -> None:
        self._crawler = crawler
        self._session = session
        self._key = key
        self._on_start_failed = on_start_failed
        self._jars: _Jars | None = None
        self._robots: SharedRobots | None = None
        self._domains: _Domains | None = None
        #: What this process is called in facts of which the first counts.
        self._name = secrets.token_hex(8)

    def install(self) -> None:
        """Put the hooks into the project's middlewares, where it has them."""
        cookies = self._crawler.get_downloader_middleware(CookiesMiddleware)
        if cookies is not None:
            self._jars = _Jars(self._tell)
            self._jars.update(cookies.jars)
            cookies.jars = self._jars
        robots = self._crawler.get_downloader_middleware(RobotsTxtMiddleware)
        if robots is not None:
            self._robots = SharedRobots(robots, self._name, claim=self._claim_robots, tell=self._tell_robots)
        offsite: Any = self._crawler.get_downloader_middleware(OffsiteMiddleware)
        if isinstance(getattr(offsite, "domains_seen", None), set):
            self._domains = offsite.domains_seen = _Domains(self._on_domain)

    def learn(self, facts: Mapping[str, str]) -> None:
        """Take facts that other processes found."""
        for fact, value in facts.items():
            kind, _, rest = fact.partition(":")
            # The spider's state is a fact, too, and not for here (vscrapy.crawl.spiderstate).
            if kind not in (_COOKIE, _ROBOTS, _START_FAILED, _FIRST):
                continue
            if kind != _FIRST and self._session.knows_better(fact):
                continue
            try:
                self._learn(kind, rest, decode_fact(fact, value, self._key))
            except (NotVerified, LookupError, TypeError, ValueError) as error:
                logger.error("vscrapy: what another crawl process has found is not used: %s", error)
                assert self._crawler.stats is not None
                self._crawler.stats.inc_value("vscrapy/facts_refused")

    def _learn(self, kind: str, rest: str, value: str) -> None:
        if kind == _COOKIE and self._jars is not None:
            self._jars.learn(_jar_of(json.loads(rest)[0]), json.loads(value))
        elif kind == _ROBOTS and self._robots is not None:
            self._robots.learn(rest, value)
        elif kind == _START_FAILED:
            self._on_start_failed()
        elif kind == _FIRST and rest.startswith(_FETCHES):
            if self._robots is not None:
                number, _, site = rest.removeprefix(_FETCHES).partition(":")
                self._robots.learn_claim(site, int(number), value)
        elif kind == _FIRST and value != self._name:
            self._learn_domain(rest)

    def _learn_domain(self, domain: str) -> None:
        if self._domains is not None and self._domains.learn(domain):
            # Both have met it before they could know of each other.
            assert self._crawler.stats is not None
            self._crawler.stats.inc_value(_DOMAINS_STAT, -1)

    def _tell(self, fact: str, value: str) -> None:
        self._session.tell(fact, encode_fact(fact, value, self._key))

    def start_failed(self) -> None:
        """``start()`` has raised an exception here: whoever closes the spider gives that as the reason."""
        self._tell(_START_FAILED, "1")

    def _claim_robots(self, site: str, number: int) -> None:
        self._tell(f"{_FIRST}:{_FETCHES}{number}:{site}", self._name)

    def _tell_robots(self, site: str, value: str) -> None:
        self._tell(f"{_ROBOTS}:{site}", value)

    def _on_domain(self, domain: str) -> None:
        self._tell(f"{_FIRST}:{domain}", self._name)


class _Domains(set[str]):
    """The domains that an OffsiteMiddleware has met, which tells of each new one."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._told: set[str] = set()

    def add(self, domain: str) -> None:
        """Put in one that was met here."""
        if domain not in self:
            super().add(domain)
            self._told.add(domain)
            self._tell(domain)

    def learn(self, domain: str) -> bool:
        """Put in one that another process has met before; was it counted here, too?"""
        super().add(domain)
        was_told = domain in self._told
        self._told.discard(domain)
        return was_told


class _Jars(defaultdict[Any, CookieJar]):
    """The jars of a CookiesMiddleware, which tell of each change."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        super().__init__()
        self._tell = tell

    def __missing__(self, key: Any) -> CookieJar:
        jar = CookieJar()
        inner: Any = jar.jar
        set_cookie, clear = inner.set_cookie, inner.clear

        def on_set(cookie: Cookie) -> None:
            if not _holds(inner, cookie):
                self._say(key, cookie)
            set_cookie(cookie)

        def on_clear(domain: str | None = None, path: str | None = None, name: str | None = None) -> None:
            for cookie in list(inner):
                if _is_in(cookie, domain, path, name):
                    self._say(key, cookie, is_gone=True)
            clear(domain, path, name)

        inner.set_cookie, inner.clear = on_set, on_clear
        inner.set_cookie_quietly, inner.clear_quietly = set_cookie, clear
        self[key] = jar
        return jar

    def _say(self, key: Any, cookie: Cookie, *, is_gone: bool = False) -> None:
        if not _is_shared(key):
            return  # a jar named by an object is this process's own
        # A tuple comes out as a list, which names no jar.
        place = json.dumps([key, cookie.domain, cookie.path, cookie.name])
        fields = {name: getattr(cookie, name) for name in _COOKIE_FIELDS}
        fields["rest"] = {name: str(value) for name, value in getattr(cookie, "_rest", {}).items()}
        self._tell(f"{_COOKIE}:{place}", json.dumps({"is_gone": is_gone, **fields}))

    def learn(self, key: Any, fields: dict[str, Any]) -> None:
        """Take over a cookie that another process got, or lost."""
        inner: Any = self[key].jar
        is_gone = fields.pop("is_gone")
        cookie = Cookie(**fields)
        if not is_gone:
            inner.set_cookie_quietly(cookie)
        elif _find(inner, cookie) is not None:
            inner.clear_quietly(cookie.domain, cookie.path, cookie.name)


def _is_shared(key: Any) -> bool:
    """Is this the name of a jar that means the same in all processes?"""
    if isinstance(key, tuple):
        return all(_is_shared(part) for part in key)
    return isinstance(key, (str, int, float, bool, type(None)))


def _jar_of(name: Any) -> Any:
    """A jar's name, from JSON: what was a tuple is one again."""
    return tuple(_jar_of(part) for part in name) if isinstance(name, list) else name


def _find(jar: Any, cookie: Cookie) -> Cookie | None:
    found: Cookie | None = jar._cookies.get(cookie.domain, {}).get(cookie.path, {}).get(cookie.name)
    return found


def _holds(jar: Any, cookie: Cookie) -> bool:
    """Is this very cookie in the jar? A new expiry alone is not told: the session is the same."""
    found = _find(jar, cookie)
    return found is not None and (found.value, found.secure) == (cookie.value, cookie.secure)


def _is_in(cookie: Cookie, domain: str | None, path: str | None, name: str | None) -> bool:
    return (
        (domain is None or cookie.domain == domain)
        and (path is None or cookie.path == path)
        and (name is None or cookie.name == name)
    )
