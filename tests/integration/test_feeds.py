"""Feeds of a detached task that are no local files: written once, by a worker, when all is crawled."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from tests.integration.support import Process, running, submit
from vscrapy import keys
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import FEED_WAIT_MS, MOST_FEED_TRIES, Result
from vscrapy.store.looks import Looks
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers

pytest_plugins = ["tests.integration.machine"]

SPIDER = """
    import scrapy


    class Numbers(scrapy.Spider):
        name = "numbers"
        n = "20"

        async def start(self):
            for number in range(int(self.n)):
                yield scrapy.Request(f"{self.base}/quotes/page/1/?n={number}", cb_kwargs={"number": number})

        def parse(self, response, number):
            yield {"number": number}
"""

#: A storage that notes each store, and can be held up or made to fail.
VAULT = """
import os
import time
from pathlib import Path
from urllib.parse import urlparse

from scrapy.extensions.feedexport import BlockingFeedStorage


class Vault(BlockingFeedStorage):
    def __init__(self, uri, *, feed_options=None):
        self.path = Path(urlparse(uri).path)

    def _store_in_thread(self, file):
        directory = self.path.parent
        with open(directory / "begun", "a") as begun:
            begun.write(f"{os.getpid()}\\n")
        while (directory / "hold").exists():
            time.sleep(0.01)
        if (directory / "fail").exists():
            (directory / "fail").unlink()
            raise OSError("the vault is shut")
        file.seek(0)
        self.path.write_bytes(file.read())
        with open(directory / "stores", "a") as stores:
            stores.write(f"{self.path.name}\\n")
"""


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """The directory that the storage writes to."""
    made = tmp_path / "vault"
    made.mkdir()
    return made


@pytest.fixture
def numbers(tmp_path: Path, vault: Path) -> Path:
    """A project with one feed in the vault, and one in a local file."""
    made = write_project(
        tmp_path / "project",
        SPIDER,
        settings=f"""
        FEED_STORAGES = {{"vault": "shop.vault.Vault"}}
        FEEDS = {{
            "vault://{vault}/items.jl": {{"format": "jsonlines"}},
            "local.jl": {{"format": "jsonlines"}},
        }}
        """,
    )
    (made / "shop" / "vault.py").write_text(VAULT)
    return made


def detach(machine: Machine, project: Path, site: Site, *args: str) -> int:
    """Submit a detached task; its id."""
    finished = machine.run(["vscrapy", "crawl", "numbers", "-a", f"base={site.base}", "--detach", *args], project)
    assert finished.exit_code == 0, finished.output
    return machine.last_taskid()


def state(machine: Machine, taskid: int) -> TaskState:
    """A task's state."""
    return machine.tasks.record(taskid).state


def lines(path: Path) -> list[str]:
    """The lines of a file; none when it is not there yet."""
    return path.read_text().split() if path.exists() else []


def wait_for_end(machine: Machine, taskid: int, timeout: float = 40) -> None:
    """Wait until a task has ended."""
    wait_for(lambda: state(machine, taskid) is TaskState.FINISHED, timeout, f"task {taskid} has ended")


def test_feeds_of_a_detached_task_are_stored_once(machine: Machine, numbers: Path, vault: Path, site: Site) -> None:
    """
    The remote feeds have all items, also one that an add-on puts in, and the local one is not written; the items
    stay, and the log tells of it.
    """
    (numbers / "shop" / "addons.py").write_text(
        textwrap.dedent(
            f"""
            class More:
                def update_settings(self, settings):
                    feeds = {{**settings["FEEDS"], "vault://{vault}/more.jl": {{"format": "jsonlines"}}}}
                    settings.set("FEEDS", feeds, "project")
            """
        )
    )
    with (numbers / "shop" / "settings.py").open("a") as settings:
        settings.write('ADDONS = {"shop.addons.More": 1}\n')
    (vault / "hold").touch()
    taskid = detach(machine, numbers, site)
    following = machine.start(["vscrapy", "-c", str(taskid)])
    wait_for(lambda: Looks(machine.store).audience([], [taskid]).followers[taskid] == 1, what="somebody follows")
    since_ms = machine.tasks.now_ms()
    wait_for(lambda: machine.tasks.now_ms() - since_ms > 2000, what="the worker knows that")
    (vault / "hold").unlink()
    followed = following.wait()
    assert followed.exit_code == 0
    assert "Stored jsonlines feed (20 items) in: vault:/" in followed.stderr
    assert "'feedexport/success_count/Vault': 2" in followed.stderr
    assert sorted(lines(vault / "stores")) == ["items.jl", "more.jl"]
    for name in ("items.jl", "more.jl"):
        found = sorted(json.loads(line)["number"] for line in (vault / name).read_text().splitlines())
        assert found == list(range(20))
    assert not (numbers / "local.jl").exists()
    assert machine.tasks.record(taskid).feeds == "written"
    shown = machine.run(["vscrapy", "items", str(taskid)], numbers).stdout
    assert len(shown.splitlines()) == 20


def test_feeds_are_seen_while_they_are_written(machine: Machine, numbers: Path, vault: Path, site: Site) -> None:
    """The task is storing, not archived, and a graceful stop does not keep it from that."""
    (vault / "hold").touch()
    taskid = detach(machine, numbers, site)
    wait_for((vault / "begun").exists)
    assert "storing" in machine.run(["vscrapy", "-l"]).stdout
    assert taskid in machine.tasks.live_ids()
    assert "storing" in machine.run(["vscrapy", "stop", str(taskid)]).stdout
    (vault / "hold").unlink()
    wait_for_end(machine, taskid)
    assert lines(vault / "stores") == ["items.jl"]


def test_feeds_are_stored_once_when_home_is_killed(machine: Machine, numbers: Path, vault: Path, site: Site) -> None:
    """Another process takes over at once."""
    (vault / "hold").touch()
    taskid = detach(machine, numbers, site)
    wait_for(lambda: len(lines(vault / "begun")) == 1)
    os.kill(int(lines(vault / "begun")[0]), signal.SIGKILL)
    wait_for(lambda: len(lines(vault / "begun")) == 2)
    (vault / "hold").unlink()
    wait_for_end(machine, taskid)
    assert lines(vault / "stores") == ["items.jl"]
    assert len((vault / "items.jl").read_text().splitlines()) == 20
    followed = machine.run(["vscrapy", "-c", str(taskid)])
    assert "home on worker" in followed.output
    assert "was killed by SIGKILL" in followed.output


def test_feeds_are_stored_once_when_home_s_worker_dies(
    machine: Machine, numbers: Path, vault: Path, site: Site
) -> None:
    """Another worker takes over when it has been missed."""
    workers: list[Running] = [machine.start_worker(name="w1")]
    (vault / "hold").touch()
    taskid = detach(machine, numbers, site)
    wait_for(lambda: len(lines(vault / "begun")) == 1)
    machine.start_worker(name="w2")
    workers[0].kill()
    wait_for(lambda: len(lines(vault / "begun")) == 2, 40)
    (vault / "hold").unlink()
    wait_for_end(machine, taskid)
    assert lines(vault / "stores") == ["items.jl"]


@pytest.mark.long
def test_feeds_that_cannot_be_stored_are_tried_again(
    machine: Machine, numbers: Path, vault: Path, site: Site
) -> None:
    """An error of the storage is in the log, and the second try is the one that counts."""
    (vault / "fail").touch()
    taskid = detach(machine, numbers, site)
    followed = machine.run(["vscrapy", "-c", str(taskid)])
    assert "the vault is shut" in followed.stderr
    assert f"not all feeds of task {taskid} are stored" in followed.stderr
    assert lines(vault / "stores") == ["items.jl"]


def test_feeds_of_the_command_line_are_written_with_the_project_s(
    machine: Machine, numbers: Path, vault: Path, site: Site
) -> None:
    """``-O`` with a remote URI is for home; Scrapy writes the project's beside it, which need not be plain data."""
    with (numbers / "shop" / "settings.py").open("a") as settings:
        settings.write("FEEDS = {uri: {**options, 'item_classes': [dict]} for uri, options in FEEDS.items()}\n")
    taskid = detach(machine, numbers, site, "-O", f"vault://{vault}/%(name)s-%(n)s.csv:csv", "-a", "n=3")
    wait_for_end(machine, taskid)
    assert sorted(lines(vault / "stores")) == ["items.jl", "numbers-3.csv"]
    assert len(lines(vault / "items.jl")) == 6  # a space in each
    assert sorted((vault / "numbers-3.csv").read_text().split()) == ["0", "1", "2", "number"]


def test_feeds_are_given_up_when_the_task_is_ended_by_force(
    machine: Machine, numbers: Path, vault: Path, site: Site
) -> None:
    """The process that stores is killed, and -l says that the feeds are not stored."""
    (vault / "hold").touch()
    taskid = detach(machine, numbers, site)
    wait_for((vault / "begun").exists)
    machine.run(["vscrapy", "stop", "--force", str(taskid)])
    wait_for_end(machine, taskid)
    assert "feeds not" in machine.run(["vscrapy", "-l"]).stdout
    assert lines(vault / "stores") == []


class Ftp:
    """An FTP server with one user, in a thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.stored: list[str] = []
        authorizer = DummyAuthorizer()
        authorizer.add_user("user", "pass", str(directory), perm="elradfmwMT")
        handler = type("Handler", (FTPHandler,), {"on_file_received": lambda _, path: self.stored.append(path)})
        handler.authorizer = authorizer  # type: ignore[attr-defined]
        self._server = FTPServer(("127.0.0.1", 0), handler)
        self.url = f"ftp://user:pass@127.0.0.1:{self._server.address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.close_all()


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[Ftp]:
    """An FTP server for one test."""
    made = Ftp(tmp_path / "ftp")
    yield made
    made.stop()


def test_feeds_on_an_ftp_server_are_stored_once(machine: Machine, tmp_path: Path, site: Site, ftp: Ftp) -> None:
    """Scrapy's own storage does it; the password is not shown."""
    project = write_project(tmp_path / "project", SPIDER)
    output = machine.run(
        ["vscrapy", "crawl", "numbers", "-a", f"base={site.base}", "--detach", "-O", f"{ftp.url}/a/items.json"],
        project,
    ).output
    assert "pass@" not in output
    wait_for_end(machine, machine.last_taskid())
    assert sorted(item["number"] for item in json.loads((ftp.directory / "a" / "items.json").read_text())) == [
        *range(20)
    ]
    assert len(ftp.stored) == 1


# On Redis alone.


def storing(store: Store) -> int:
    """A detached task that has been crawled, and has feeds."""
    process = running(store, submit(store, has_feeds=True))
    process.commit(Result("started", items=[b"items"]))
    Tasks(store).stop(process.taskid, reason="finished", mode=StopMode.GRACEFUL)
    assert process.leave() is TaskState.STORING
    return process.taskid


def claim_home(store: Store, taskid: int) -> Process | None:
    """Take home's place, if it is to be had."""
    process = Process(store, taskid)
    number = Workers(store).claim_home(taskid, process.name, process.worker)
    assert number == Workers(store).claim_home(taskid, process.name, process.worker)
    return process if number else None


def test_home_is_one_process_at_a_time(store: Store) -> None:
    """Nobody else gets the place while one has it, nor is anything to do when it has stored the feeds."""
    taskid = storing(store)
    home = claim_home(store, taskid)
    assert home is not None
    assert claim_home(store, taskid) is None
    assert Tasks(store).stored(taskid, home.name)
    assert home.leave() is TaskState.FINISHED
    assert claim_home(store, taskid) is None


def test_home_that_was_given_up_stores_nothing(store: Store) -> None:
    """It learns that the place is another's."""
    taskid = storing(store)
    home = claim_home(store, taskid)
    assert home is not None
    home.leave("crashed")
    assert claim_home(store, taskid) is not None
    assert not Tasks(store).is_home(taskid, home.name)
    assert not Tasks(store).stored(taskid, home.name)


def test_home_is_tried_a_bounded_number_of_times_with_longer_waits(store: Store) -> None:
    """A crash is followed by the next try at once, another failure after a while; the last one ends the task."""
    taskid = storing(store)
    for number, how in enumerate(["crashed", *["left"] * (MOST_FEED_TRIES - 1)], 1):
        home = claim_home(store, taskid)
        assert home is not None
        before_ms = Tasks(store).now_ms()
        after = home.leave(how)
        if number == MOST_FEED_TRIES:
            assert after is TaskState.FINISHED
            break
        assert after is TaskState.STORING
        wait_ms = 0 if how == "crashed" else FEED_WAIT_MS * 2 ** (number - 1)
        due_ms = int(store.client.hget(keys.task(taskid), "feeds_after_ms"))
        assert wait_ms <= due_ms - before_ms <= wait_ms + 1000
        if wait_ms:
            assert claim_home(store, taskid) is None
        store.client.hset(keys.task(taskid), "feeds_after_ms", 0)
    assert Tasks(store).record(taskid).feeds == "failed"


def test_home_is_not_needed_for_what_never_ran(store: Store) -> None:
    """A task that was stopped before its first process, or failed without an item, has no feeds."""
    queued = submit(store, has_feeds=True)
    assert Tasks(store).stop(queued, reason="shutdown", mode=StopMode.GRACEFUL) is TaskState.FINISHED
    assert running(store, submit(store, has_feeds=True)).leave("failed") is TaskState.FINISHED
    forced = running(store, submit(store, has_feeds=True))
    Tasks(store).stop(forced.taskid, reason="shutdown", mode=StopMode.FORCED)
    assert forced.leave() is TaskState.FINISHED
