"""The demo site, over real HTTP: what the example project's spiders rely on."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any
from urllib.parse import urlencode

import pytest

EXAMPLE_PROJECT = Path(__file__).resolve().parents[2] / "example_project"
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 10


@dataclass(frozen=True)
class Answer:
    """A response of the site."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, as UTF-8."""
        return self.body.decode()

    @property
    def session(self) -> str:
        """The session that the response sets, as a Cookie header."""
        return self.headers["Set-Cookie"].partition(";")[0]


class Client:
    """One connection to the site."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)

    def get(self, path: str, **headers: str) -> Answer:
        """Send a GET."""
        return self._send("GET", path, None, headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        """Send a form."""
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._send("POST", path, urlencode(form or {}), headers)

    def log(self) -> dict[str, Any]:
        """Read the access log."""
        log: dict[str, Any] = json.loads(self.get("/_log").body)
        return log

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with DefaultSelector() as selector:
        selector.register(process.stdout, EVENT_READ)
        assert selector.select(START_TIMEOUT_S), "the site has printed nothing"
    return process.stdout.readline()


@contextmanager
def _site(*arguments: str) -> Iterator[int]:
    """Run the site on a free port, yield the port, and end it as an operator would."""
    command = [sys.executable, str(EXAMPLE_PROJECT / "site" / "serve.py"), "--port", "0"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = _first_line(process)
            match = re.fullmatch(r"demo site: http://127\.0\.0\.1:(\d+)/\n", line)
            assert match, f"not the line that was promised: {line!r}"
            yield int(match[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_TIMEOUT_S) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Run one site for the tests that need nothing special."""
    with _site() as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    """Connect to the site, as it is after a reset."""
    client = Client(port)
    client.post("/_reset")
    yield client
    client.close()


def _digests(seed: int) -> dict[str, str]:
    """Follow all links of the site of *seed*; return the digest of each page, by address."""
    digests: dict[str, str] = {}
    with _site("--seed", str(seed)) as port:
        client = Client(port)
        waiting = deque(["/"])
        seen = {"/", "/trouble/"}
        while waiting:
            path = waiting.popleft()
            answer = client.get(path)
            digests[path] = hashlib.sha256(answer.body).hexdigest()
            for href in re.findall(r'<a[^>]* href="([^"]+)"', answer.text):
                if href not in seen:
                    seen.add(href)
                    waiting.append(href)
        client.close()
    return digests


def test_site_has_a_thousand_pages_same_for_the_same_seed() -> None:
    """More than 1,000 different pages are linked, and a seed always makes the same ones."""
    pages = _digests(seed=1)

    assert len(set(pages.values())) > 1_000
    assert _digests(seed=1) == pages
    assert _digests(seed=2) != pages


def test_site_prints_pictures_as_png(client: Client) -> None:
    """A product's picture is a PNG."""
    answer = client.get("/shop/image/1.png")

    assert answer.headers["Content-Type"] == "image/png"
    assert answer.body.startswith(b"\x89PNG\r\n\x1a\n")


def _sign_in(client: Client, **changes: str) -> Answer:
    form = client.get("/login")
    token = re.search(r'name="csrf_token" value="(\w+)"', form.text)
    assert token
    fields = {"csrf_token": token[1], "username": "reader", "password": "books"}
    return client.post("/login", fields | changes, Cookie=form.session)


def test_login_opens_private_pages_with_token_and_password(client: Client) -> None:
    """The right form leads to a session that sees the orders."""
    answer = _sign_in(client)

    assert (answer.status, answer.headers["Location"]) == (302, "/account/")
    assert client.get("/account/orders/1001/", Cookie=answer.session).status == 200


def test_login_is_refused_with_a_wrong_token(client: Client) -> None:
    """A token that is not the session's is answered with 403."""
    assert _sign_in(client, csrf_token="0" * 32).status == 403


def test_login_is_refused_with_a_wrong_password(client: Client) -> None:
    """A wrong password shows the form again."""
    answer = _sign_in(client, password="films")

    assert answer.status == 200
    assert "Wrong name or password" in answer.text


@pytest.mark.parametrize("cookie", ["", "session=made-up"])
def test_private_page_leads_to_login_without_session(client: Client, cookie: str) -> None:
    """Without a signed-in session, a private page redirects to the login."""
    answer = client.get("/account/", Cookie=cookie)

    assert (answer.status, answer.headers["Location"]) == (302, "/login")


def test_reviews_are_complete_along_the_cursors(client: Client) -> None:
    """The chain of cursors passes each review once."""
    numbers: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        query = f"?{urlencode({'cursor': cursor})}" if cursor else ""
        page = json.loads(client.get(f"/api/reviews{query}").body)
        numbers += [review["number"] for review in page["reviews"]]
        cursor = page["next"]

    assert numbers == list(range(1, 401))


@pytest.mark.parametrize("cursor", ["2", "AAAAAAAAAAAwOjI", "é", ""])
def test_reviews_refuse_a_cursor_that_is_made_up(client: Client, cursor: str) -> None:
    """A cursor that the site did not sign is answered with 400."""
    assert client.get(f"/api/reviews?{urlencode({'cursor': cursor})}").status == 400


def test_ill_page_heals_after_the_demanded_failures(client: Client) -> None:
    """The first N requests of a path fail, and the path stays well until a reset."""
    path = "/trouble/heal/1?fails=2"

    assert [client.get(path).status for _ in range(4)] == [500, 500, 200, 200]
    client.post("/_reset")
    assert client.get(path).status == 500


def test_redirect_chain_ends_at_its_own_page(client: Client) -> None:
    """A chain of three redirects ends at a page that nothing links to."""
    path, statuses = "/trouble/chain/3/1", []
    while (answer := client.get(path)).status in {301, 302}:
        statuses.append(answer.status)
        path = answer.headers["Location"]

    assert (path, statuses) == ("/trouble/landed/chain-1", [301, 301, 302])


def test_robots_forbid_the_staff_pages_that_the_shop_links(client: Client) -> None:
    """robots.txt forbids what a crawler would otherwise follow, and names the sitemap."""
    robots = client.get("/robots.txt").text.splitlines()

    assert "Disallow: /shop/staff/" in robots
    assert f"Sitemap: http://127.0.0.1:{client.port}/sitemap.xml" in robots
    assert 'href="/shop/staff/"' in client.get("/shop/").text


def test_access_log_tells_who_asked_what_and_when(client: Client) -> None:
    """An entry has the request, the connection, the client, and both ends in time."""
    headers = {"Cookie": "session=abc", "User-Agent": "tester"}
    client.get("/shop/all/?page=2", **headers)
    client.get("/nothing", **headers)

    first, second = client.log()["entries"]
    assert (first["method"], first["path"], first["query"]) == ("GET", "/shop/all/", "page=2")
    assert (first["session"], first["user_agent"]) == ("abc", "tester")
    assert (first["status"], second["status"]) == (200, 404)
    assert first["connection"] == second["connection"] > 0
    assert first["start_monotonic_s"] <= first["end_monotonic_s"] <= second["start_monotonic_s"]
    assert first["start_wall_s"] > 1_700_000_000


def test_access_log_counts_the_requests_at_once(port: int, client: Client) -> None:
    """The peak is the number of slow pages that were asked for together."""

    def ask(number: int) -> int:
        one = Client(port)
        try:
            return one.get(f"/slow/{number}?ms=1000").status
        finally:
            one.close()

    with ThreadPoolExecutor(5) as pool:
        statuses = list(pool.map(ask, range(5)))

    log = client.log()
    assert statuses == [200] * 5
    assert (log["peak"], log["active"]) == (5, 0)
    assert all(e["end_monotonic_s"] - e["start_monotonic_s"] >= 0.9 for e in log["entries"])


def test_access_log_marks_a_connection_closed_without_an_answer(client: Client) -> None:
    """A page that hangs up is logged with status 0."""
    with pytest.raises(ConnectionError):
        client.get("/trouble/hangup/1")
    client.close()

    (entry,) = client.log()["entries"]
    assert (entry["status"], entry["is_aborted"]) == (0, True)


def test_serve_writes_log_and_port_to_files(tmp_path: Path) -> None:
    """The files have the port, and a JSON line for each request that is not the observer's."""
    log, port_file = tmp_path / "access.jl", tmp_path / "port"
    with _site("--log", str(log), "--port-file", str(port_file), "--delay-ms", "50") as port:
        client = Client(port)
        client.get("/quotes/")
        client.get("/_log")
        client.close()
        assert port_file.read_text() == f"{port}\n"

    (entry,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert entry["path"] == "/quotes/"
    assert entry["end_monotonic_s"] - entry["start_monotonic_s"] >= 0.05


def test_mirror_shows_what_it_was_sent(client: Client) -> None:
    """Method, query, form, and the headers that are the request's own."""
    shown = json.loads(client.post("/mirror/echo?a=1", {"b": "ü"}, Referer="http://there.test/").body)

    assert (shown["method"], shown["query"], shown["form"]) == ("POST", {"a": "1"}, {"b": "ü"})
    assert shown["headers"]["referer"] == "http://there.test/"
    assert shown["body_bytes"] == len("b=%C3%BC")


def test_mirror_sets_and_shows_cookies(client: Client) -> None:
    """Cookies of the query are set, those without a value are deleted, those that came are shown."""
    answer = client.get("/mirror/cookies/7?a=1", Cookie="b=2")

    assert json.loads(answer.body) == {"number": 7, "cookies": {"b": "2"}}
    assert answer.headers["Set-Cookie"] == "a=1; Path=/"
    assert "Max-Age=0" in client.get("/mirror/cookies/8?b=").headers["Set-Cookie"]


def test_mirror_is_as_large_as_asked_for(client: Client) -> None:
    """A page has so many kilobytes, and is its own."""
    one, two = (client.get(f"/mirror/large/{number}?kb=300").body for number in (1, 2))

    assert len(one) == len(two) == 300 * 1024
    assert one != two


def test_latency_is_changed_by_an_observer_until_a_reset(client: Client) -> None:
    """Pages take as long as the observer says; after a reset, as long as at the start."""
    client.post("/_latency?ms=80")
    client.get("/quotes/")
    (slow,) = client.log()["entries"]
    client.post("/_reset")
    client.get("/quotes/")
    (fast,) = client.log()["entries"]

    lasted = [entry["end_monotonic_s"] - entry["start_monotonic_s"] for entry in (slow, fast)]
    assert lasted[0] >= 0.08 > lasted[1]


def test_example_project_does_not_mention_the_package_under_test() -> None:
    """The example is a plain Scrapy project: that is what makes it an example."""
    files = [p for p in EXAMPLE_PROJECT.rglob("*") if p.is_file() and p.suffix != ".pyc"]

    assert files
    assert [p for p in files if b"vscrapy" in p.read_bytes().lower()] == []
