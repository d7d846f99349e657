"""Passwords and the secret: in no log, list, process list, message, bundle, file of others, or crawl process."""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Server, wait_for, write_project
from vscrapy import cli, keys, wire
from vscrapy.store.base import Store
from vscrapy.store.tasks import Tasks

pytest_plugins = ["tests.integration.machine"]

PASSWORD: Final = "p4ssw0rd-of-redis"
SECRET: Final = "s3cret-of-the-cluster"
#: A spider that looks for them, as far as its own process goes.
SPIDERS: Final = f"""
    import gc, os, sys
    from pathlib import Path
    from scrapy import Spider

    class Nosy(Spider):
        name = "nosy"
        start_urls = ["data:,1"]

        def parse(self, response):
            parts = [*os.environ.items(), sys.argv, Path("/proc/self/environ").read_bytes()]
            parts += [Path("/proc/self/cmdline").read_bytes(), dict(self.settings)]
            parts += [found for found in gc.get_objects() if isinstance(found, (dict, list, tuple))]
            yield {{"found": any("{SECRET[:8]}" + "{SECRET[8:]}" in _shown(part) for part in parts)}}

    def _shown(part):
        try:
            return " ".join(map(str, part.values() if isinstance(part, dict) else part))
        except Exception:
            return ""
"""


@pytest.fixture(scope="module")
def server(shared_machine: Machine) -> Server:
    """A server with that password, and a worker."""
    server = shared_machine.start_server(password=PASSWORD)
    shared_machine.start_worker(redis=server.url, env={"VSCRAPY_SECRET": SECRET})
    return server


@pytest.fixture
def env(server: Server) -> dict[str, str]:
    """What a user has configured."""
    return {"VSCRAPY_REDIS_URL": server.url, "VSCRAPY_SECRET": SECRET}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose spider is nosy, and whose scrapy.cfg has both, as it may."""
    made = write_project(tmp_path_factory.mktemp("nosy") / "project", SPIDERS)
    with (made / "scrapy.cfg").open("a") as file:
        file.write(f"[vscrapy]\nsecret = {SECRET}\nredis = redis://:{PASSWORD}@127.0.0.1:1/0\n")
    return made


def test_crawl_process_does_not_have_the_secret(
    shared_machine: Machine, project: Path, env: dict[str, str], server: Server
) -> None:
    """Neither in its environment nor in what Python holds; and nothing that is sent or said has it."""
    crawl = ["vscrapy", "crawl", "nosy", "-O", "found.jsonl"]
    assert shared_machine.run([*crawl, "-a", f"hint={SECRET}"], project, env=env).exit_code == 0
    assert json.loads((project / "found.jsonl").read_text()) == {"found": True}  # it would find it
    finished = shared_machine.run(crawl, project, env=env)
    assert finished.exit_code == 0, finished.output
    assert json.loads((project / "found.jsonl").read_text()) == {"found": False}
    worker = shared_machine._workers[0]
    listed = [shared_machine.run(["vscrapy", *words], project, env=env).output for words in (["-l"], ["config"])]
    for text in (finished.output, worker.output, *listed):
        assert PASSWORD not in text
        assert SECRET not in text
    with server.client() as client:
        blobs = [client.get(name) for name in client.scan_iter(f"{keys.blob('*')}")]
    assert blobs
    packed = b"".join(zlib.decompress(blob) for blob in blobs)
    assert PASSWORD.encode() not in packed
    assert f"secret = {SECRET}".encode() not in packed


def test_process_list_shows_neither(shared_machine: Machine, server: Server, project: Path) -> None:
    """Not even of a command that was given the password on its command line."""
    running = shared_machine.start(
        ["vscrapy", "crawl", "nosy", "--redis", server.url, "-s", "DOWNLOAD_DELAY=1", "-s", "X=1"], project
    )

    def shown() -> str:
        return Path(f"/proc/{running.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()

    wait_for(lambda: running.is_running and "***" in shown(), what=lambda: f"it hides it: {shown()}")
    assert shown().startswith("vscrapy crawl nosy --redis redis://:***@127.0.0.1:")
    for pid, command in shared_machine.processes().items():
        assert PASSWORD not in command, pid
        assert SECRET not in command, pid
    running.kill()


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["-l", "--redis", "redis://:pw@h/0"], ["-l", "--redis", "redis://:***@h/0"]),
        (["-l", "--redis=redis://u:pw@h/0"], ["-l", "--redis=redis://u:***@h/0"]),
        (["config", "-ho", "h", "-pa", "pw"], ["config", "-ho", "h", "-pa", "***"]),
        (["config", "-papw"], ["config", "-pa***"]),
        (["config", "--password=pw", "--secret", "s"], ["config", "--password=***", "--secret", "***"]),
        (["config", "--secret=s"], ["config", "--secret=***"]),
        (["crawl", "books", "-a", "x=1"], ["crawl", "books", "-a", "x=1"]),
    ],
)
def test_visible_args_hide_what_is_secret(args: list[str], shown: list[str]) -> None:
    """In each way to write an option."""
    assert list(cli.visible_args(args)) == shown


def test_home_in_the_project_does_not_travel(
    machine: Machine, project: Path, env: dict[str, str], server: Server
) -> None:
    """It has the embedded server's password, and the user's configuration."""
    home = project / "home"
    own = {**env, "VSCRAPY_HOME": str(home)}
    assert machine.run(["vscrapy", "config", "--secret", "another"], project, env=own).exit_code == 0
    finished = machine.run(["vscrapy", "crawl", "nosy", "--detach"], project, env=own)
    taskid = int(finished.stdout.split()[1].rstrip(":"))
    store = Store(server.endpoint, name="test")
    job, _ = wire.open_job(Tasks(store).job(taskid), SECRET, taskid)
    store.close()
    paths = [file["path"] for root in json.loads(job["manifest"])["roots"] for file in root["files"]]
    assert (any(path.startswith("home") for path in paths), "scrapy.cfg" in paths) == (False, True)


def test_files_of_a_home_are_their_owners_alone(machine: Machine, server: Server, project: Path) -> None:
    """All that may have a password, a project or an item in it."""
    env = {"VSCRAPY_HOME": str(machine.home)}
    os.umask(0o022)
    assert machine.run(["vscrapy", "config", "--redis", server.url, "--secret", SECRET], env=env).exit_code == 0
    machine.start_embedded()
    assert _open_to_others(machine.home) == set()


def _open_to_others(home: Path) -> set[str]:
    """Files below a directory that somebody else can come to and read, whatever the directory's own mode is."""

    def walk(directory: Path) -> Iterator[Path]:
        for path in directory.iterdir():
            mode = path.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and mode & 0o005:
                yield from walk(path)
            elif stat.S_ISREG(mode) and mode & 0o004 and path.stat().st_size:
                yield path

    return {str(path.relative_to(home)) for path in walk(home)}
