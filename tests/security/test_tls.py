"""``rediss://`` over real TLS: the server's certificate, ours, and what is said when one of them is not right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.machine import Machine, write_project
from tests.security.terminator import Authority, Pair, Terminator
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.model import Endpoint
from vscrapy.store.base import Store

pytest_plugins = ["tests.integration.machine"]

SPIDERS = """
    from scrapy import Spider

    class Short(Spider):
        name = "short"
        start_urls = ["data:,1", "data:,2"]

        def parse(self, response):
            yield {"n": int(response.text)}
"""


@dataclass(frozen=True)
class Setup:
    """A server behind TLS that wants client certificates, and one that does not."""

    mutual: Terminator
    plain: Terminator
    password: str
    ca: Path
    other_ca: Path
    client: Pair
    #: Of another CA with the same name, and of one with another.
    other_client: Pair
    strange_client: Pair

    def url(self, port: int, **options: object) -> str:
        """A URL with options."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://:{self.password}@127.0.0.1:{port}/0{'?' if query else ''}{query}"

    def mutual_url(self, client: Pair | None) -> str:
        """The URL of the server that wants a client certificate."""
        files = {"ssl_certfile": client.certificate, "ssl_keyfile": client.key} if client else {}
        return self.url(self.mutual.port, ssl_ca_certs=self.ca, **files)


@pytest.fixture(scope="module")
def setup(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Both in front of one server."""
    directory = tmp_path_factory.mktemp("tls")
    ca, other = Authority(directory / "one", "ca"), Authority(directory / "other", "ca")
    server = shared_machine.start_server()
    own = ca.issue("server", address="127.0.0.1")
    mutual, plain = Terminator(server.port, own, clients=ca.certificate), Terminator(server.port, own)
    yield Setup(
        mutual,
        plain,
        server.password,
        ca.certificate,
        other.certificate,
        ca.issue("client"),
        other.issue("client"),
        Authority(directory / "strange", "strange").issue("client"),
    )
    mutual.close()
    plain.close()


def refusal(url: str) -> str:
    """What is said of a server."""
    store = Store(Endpoint(url, "test", "secret"), name="test-tls")
    said = ""
    try:
        store.check()
    except (StoreRefused, StoreUnavailable) as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        store.close()
    assert "\n" not in said
    return said


def test_crawl_over_tls_with_client_certificates(shared_machine: Machine, setup: Setup, tmp_path: Path) -> None:
    """Worker, crawl process, sender and commands: all of them get through, and nobody goes past it."""
    url = setup.mutual_url(setup.client)
    before = setup.mutual.n_served
    worker = shared_machine.start_worker(redis=url)
    project = write_project(tmp_path / "project", SPIDERS)
    env = {"VSCRAPY_REDIS_URL": url}
    finished = shared_machine.run(["vscrapy", "crawl", "short", "-O", "items.jsonl"], project, env=env)
    assert finished.exit_code == 0, finished.output
    assert sorted(json.loads(line)["n"] for line in (project / "items.jsonl").open()) == [1, 2]
    listed = shared_machine.run(["vscrapy", "-l"], env=env)
    assert (listed.exit_code, "w1" in listed.stdout, setup.password in listed.stdout.split()) == (0, True, False)
    assert f":{setup.password}@" not in worker.output + finished.output + listed.output
    assert setup.mutual.n_served - before >= 5


def test_server_with_the_right_certificate_is_taken(setup: Setup) -> None:
    """Without client certificates, where none are wanted."""
    assert refusal(setup.url(setup.plain.port, ssl_ca_certs=setup.ca)) == ""


def test_unknown_certificate_is_taken_only_by_who_asks_for_it(setup: Setup) -> None:
    """``ssl_cert_reqs=none`` is what it says; nothing else turns the check off."""
    assert refusal(setup.url(setup.plain.port, ssl_cert_reqs="none")) == ""


def test_wrong_ca_is_refused(setup: Setup) -> None:
    """Whoever stands between is no server of ours; the line says what to do."""
    for url in (setup.url(setup.plain.port, ssl_ca_certs=setup.other_ca), setup.url(setup.plain.port)):
        assert refusal(url).startswith(f"StoreRefused: Redis at rediss://:***@127.0.0.1:{setup.plain.port}/0")
        assert "its certificate is not trusted" in refusal(url)
        assert "ssl_ca_certs" in refusal(url)


def test_certificate_of_another_host_is_refused(setup: Setup) -> None:
    """Also with redis-py before 6, which does not look by itself."""
    url = setup.url(setup.plain.port, ssl_ca_certs=setup.ca).replace("127.0.0.1", "localhost")
    assert "its certificate is not trusted: Hostname mismatch" in refusal(url)
    assert refusal(f"{url}&ssl_check_hostname=false") == ""


def test_missing_client_certificate_is_refused(setup: Setup) -> None:
    """The line says which files the URL has to name, also where the server's own words came too late."""
    said = refusal(setup.mutual_url(None))
    assert re.search(r"wants a client certificate.* name .* in the URL \(.*ssl_certfile.*ssl_keyfile", said), said


def test_client_certificate_of_another_ca_is_refused(setup: Setup) -> None:
    """Any certificate is not enough."""
    for client in (setup.other_client, setup.strange_client):
        said = refusal(setup.mutual_url(client))
        assert re.search("does not trust the client certificate|client certificate, name one that it trusts", said)


@pytest.mark.parametrize("command", [["worker"], ["-l"]])
def test_commands_end_with_one_line(
    shared_machine: Machine, setup: Setup, tmp_path: Path, command: list[str]
) -> None:
    """A worker does not try for ever what cannot come about."""
    url = setup.url(setup.plain.port, ssl_ca_certs=setup.other_ca)
    finished = shared_machine.run(["vscrapy", *command], tmp_path, env={"VSCRAPY_REDIS_URL": url})
    assert (finished.exit_code, finished.stderr.count("\n")) == (5, 1)
    assert "its certificate is not trusted" in finished.stderr
    assert f":{setup.password}@" not in finished.output
