"""The connection of a start, which does without redis-py: what it takes, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.machine import Server
from tests.integration.proxy import Proxy
from vscrapy.errors import InsecureStore
from vscrapy.model import Endpoint
from vscrapy.store.base import Store
from vscrapy.store.plain import Plain, require_password


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[Endpoint]:
    """A server on a port, with a password that has to be quoted in a URL."""
    server = Server(tmp_path / "data", password="p%40:w")
    server.start()
    yield server.endpoint
    server.kill()


def at(endpoint: Endpoint, *, credentials: str | None = None, path: str = "/0") -> Endpoint:
    """The same server by another URL."""
    parts = urlsplit(endpoint.url)
    netloc = parts.netloc if credentials is None else f"{credentials}{parts.netloc.rpartition('@')[2]}"
    return Endpoint(f"redis://{netloc}{path}", "the test", "secret")


def test_replies_come_in_the_order_of_the_commands(store: Store) -> None:
    """Whatever they are: numbers, nothing, large values, lists in lists."""
    large = os.urandom(1_000_000)
    with Plain(store.endpoint) as plain:
        commands = [("SET", "{vs}:a", large, "EX", 60), ("INCR", "{vs}:n"), ("GET", "{vs}:none"), ("GET", "{vs}:a")]
        assert plain.run(*commands) == [b"OK", 1, None, large]
        [cursor, missing] = plain.run(("XADD", "{vs}:s", "*", "field", "é"), ("EXISTS", "{vs}:none"))
        assert missing == 0
        [[[name, [[found, fields]]]]] = plain.run(("XREAD", "STREAMS", "{vs}:s", "0-0"))
        assert (name, found, fields) == (b"{vs}:s", cursor, [b"field", "é".encode()])
        assert plain.run(("XREAD", "BLOCK", 1, "STREAMS", "{vs}:s", cursor)) == [None]
        assert plain.run() == []
        plain.run(("DEL", "{vs}:a", "{vs}:n", "{vs}:s"))


def test_refusal_is_an_error_and_the_connection_goes_on(store: Store) -> None:
    """The replies after a refusal belong to their own commands."""
    with Plain(store.endpoint) as plain:
        with pytest.raises(ValueError, match="wrong number of arguments"):
            plain.run(("PING",), ("GET",), ("ECHO", "after"))
        assert plain.run(("ECHO", "next")) == [b"next"]


def test_url_is_read_as_redis_py_reads_it(tcp: Endpoint) -> None:
    """The password is unquoted, and the database is chosen, by the path or by an option."""
    store = Store(at(tcp, path="/3"), name="vscrapy-test")
    store.client.set("where", "three")
    store.close()
    password = tcp.url.partition("//:")[2].partition("@")[0]
    for endpoint in (
        at(tcp, path="/3"),
        at(tcp, path="?db=3"),
        at(tcp, credentials=f"default:{password}@", path="/3"),
        at(tcp, credentials="", path=f"/3?password={password}"),
        at(tcp, credentials="", path=f"/3?username=default&password={password}"),
    ):
        with Plain(endpoint) as plain:
            assert plain.run(("GET", "where")) == [b"three"]


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
def test_wrong_password_is_refused(tcp: Endpoint, credentials: str) -> None:
    """At the first command, if not before."""
    with pytest.raises(ValueError, match=r"NOAUTH|WRONGPASS"):
        Plain(at(tcp, credentials=credentials)).run(("PING",))


def test_tls_and_silence_are_left_to_the_ordinary_way(tcp: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not speak TLS, and it waits for no reply for ever."""
    with pytest.raises(ValueError, match="rediss"):
        Plain(Endpoint("rediss://localhost:1/0", "the test", ""))
    monkeypatch.setattr("vscrapy.store.plain.REPLY_S", 0.2)
    with Proxy(tcp) as proxy:
        plain = Plain(Endpoint(proxy.url, "the test", ""))
        proxy.fall_silent()
        with pytest.raises(TimeoutError):
            plain.run(("PING",))
        plain.close()
        proxy.refuse()
        with pytest.raises(ConnectionError):
            Plain(Endpoint(proxy.url, "the test", "")).run(("PING",))


def test_server_that_lets_everybody_in_is_refused_beyond_this_machine(
    tmp_path: Path, tcp: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the ordinary way refuses it: with no password in the URL, and with one that nobody asks for."""
    open_server = Server(tmp_path / "open", password="")
    open_server.start()
    try:
        require_password(open_server.endpoint)  # on this machine, everybody is the user
        monkeypatch.setattr("vscrapy.config.is_local", lambda url: False)
        require_password(tcp)
        with pytest.raises(InsecureStore):
            require_password(open_server.endpoint)
        with pytest.raises(ValueError, match="anybody is let in"):
            require_password(at(open_server.endpoint, credentials=":unasked@"))
    finally:
        open_server.kill()
