"""The users of docs/security.md, on a real server: what they may is enough, and what they need not may they not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from tests.integration.machine import ROOT, Finished, Machine, Server, wait_for, write_project
from vscrapy import keys
from vscrapy.model import Endpoint
from vscrapy.store.base import Store
from vscrapy.store.tasks import Tasks

pytest_plugins = ["tests.integration.machine"]

DOCUMENT: Final = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SECRET: Final = "a secret of its own"
SPIDERS: Final = """
    from scrapy import Request, Spider

    class Fails(Spider):
        name = "fails"

        async def start(self):
            for n in range(int(self.n)):
                yield Request(f"data:,{n}")

        def parse(self, response):
            if response.text == "0":
                raise ValueError("no price")
            with open("pages.txt", "a") as file:
                file.write(response.text + "\\n")
            yield {"n": int(response.text)}
"""


def rules(user: str) -> list[str]:
    """The words of the document that make a user."""
    found = re.search(rf"^ACL SETUSER {user} (.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].replace(">PASSWORD", f">{user}-pw").split()


class Setup:
    """A server with both users and nobody else, a worker, and a project."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.server: Server = machine.start_server()
        with self.server.client() as admin:
            for user in ("vscrapy", "watcher"):
                admin.execute_command("ACL", "SETUSER", user, *rules(user))
            self.admin_url = self.server.url.replace("redis://:", "redis://admin:")
            admin.execute_command("ACL", "SETUSER", "admin", "on", ">pw", "~*", "&*", "+@all")
            admin.execute_command("ACL", "SETUSER", "default", "off")
        self.project = write_project(directory / "project", SPIDERS)
        self.worker = machine.start_worker(redis=self.url("vscrapy"), env={"VSCRAPY_SECRET": SECRET})

    def url(self, user: str) -> str:
        """The URL of a user."""
        return f"redis://{user}:{user}-pw@127.0.0.1:{self.server.port}/0"

    def store(self, url: str) -> Store:
        """A store with a URL."""
        return Store(Endpoint(url, "test", SECRET), name="test-acl")

    def run(self, *words: str, user: str = "vscrapy") -> Finished:
        """Carry out a command as a user."""
        env = {"VSCRAPY_REDIS_URL": self.url(user), "VSCRAPY_SECRET": SECRET}
        return self.machine.run(["vscrapy", *words], self.project, env=env)

    def denied(self) -> list[str]:
        """What the server has denied since it was asked last."""
        store = self.store(self.admin_url)
        entries = store.client.execute_command("ACL", "LOG", "100")
        store.client.execute_command("ACL", "LOG", "RESET")
        store.close()
        return sorted({_text(_field(entry, "object")) for entry in entries})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _field(entry: Any, name: str) -> Any:
    if not isinstance(entry, dict):
        entry = dict(zip(entry[::2], entry[1::2], strict=True))
    return next(value for key, value in entry.items() if _text(key) == name)


@pytest.fixture(scope="module")
def setup(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """One for the module."""
    return Setup(shared_machine, tmp_path_factory.mktemp("acl"))


def test_rules_name_each_command_of_the_scripts() -> None:
    """What a script calls is checked against its user's rights."""
    scripts = (ROOT / "vscrapy" / "store" / "scripts").glob("*.lua")
    called = {name.lower() for path in scripts for name in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())}
    assert called
    assert {f"+{name}" for name in called} - set(rules("vscrapy")) == set()


def test_user_may_all_that_vscrapy_does(setup: Setup, tmp_path: Path) -> None:
    """A whole crawl, and each command; the server has denied nothing that matters."""
    store = setup.store(setup.admin_url)
    tasks = Tasks(store)
    crawl = ("crawl", "fails", "-s", "CONCURRENT_REQUESTS=1", "-s", "RANDOMIZE_DOWNLOAD_DELAY=0")
    setup.denied()
    done = setup.run(*crawl, "-a", "n=5", "-O", "items.jsonl")
    assert done.exit_code == 0, done.output
    assert sorted(json.loads(line)["n"] for line in (setup.project / "items.jsonl").open()) == [1, 2, 3, 4]
    assert sorted((setup.project / "pages.txt").read_text().split()) == ["1", "2", "3", "4"]
    # The second time, its task is submitted without redis-py.
    assert setup.run(*crawl, "-a", "n=5", "-O", "items.jsonl").exit_code == 0
    first = tasks.finished_ids(1)[0] if tasks.finished_ids(1) else int(store.client.get(keys.TASKID))
    assert "no price" in setup.run("errors", str(first)).stdout
    assert "run" in setup.run("retry", str(first)).stdout

    slow = setup.run(*crawl, "-a", "n=300", "-s", "DOWNLOAD_DELAY=0.1", "--detach")
    taskid = int(re.search(r"task (\d+)", slow.stdout)[1])  # type: ignore[index]
    wait_for(lambda: tasks.record(taskid).items > 2)
    for word, *options in (["pause"], ["resume"], ["valve", "--level", "DEBUG"], ["stop"]):
        said = setup.run(word, str(taskid), *options)
        assert said.exit_code == 0, said.output
    wait_for(lambda: tasks.record(taskid).ended_ms)
    assert setup.run("-c", str(taskid)).exit_code == 0
    assert len(setup.run("items", str(taskid)).stdout.splitlines()) > 2
    assert "item_scraped_count" in setup.run("stats", str(taskid)).stdout
    assert "w1" in setup.run("-l").stdout
    assert "removed" in setup.run("clean", str(taskid)).stdout

    job = setup.run(*crawl, "-a", "n=4", "-s", f"JOBDIR={tmp_path / 'job'}", "-s", "CLOSESPIDER_ITEMCOUNT=1")
    assert "is kept" in job.output
    again = setup.run(*crawl, "-a", "n=4", "-s", f"JOBDIR={tmp_path / 'job'}")
    assert (again.exit_code, "goes on where it was left" in again.output) == (0, True)
    # What redis-py tries by itself, and does without.
    assert [what for what in setup.denied() if "maint" not in what.lower()] == []
    assert "allow" not in setup.worker.stderr
    store.close()


@pytest.mark.long
def test_watcher_sees_and_changes_nothing(setup: Setup) -> None:
    """Each command that looks; and each that does not is refused in one line."""
    setup.run("crawl", "fails", "-a", "n=3", "--detach")
    store = setup.store(setup.admin_url)
    taskid = int(store.client.get(keys.TASKID))
    wait_for(lambda: Tasks(store).record(taskid).ended_ms)
    store.close()
    task = str(taskid)
    for words in (["-l"], ["-c", task], ["stats", task], ["errors", task], ["items", task]):
        said = setup.run(*words, user="watcher")
        assert said.exit_code == 0, (words, said.output)
    for words in (["retry", task], ["crawl", "fails", "-a", "n=1"]):
        said = setup.run(*words, user="watcher")
        assert said.exit_code == 5, (words, said.output)
        assert "does not allow this user what vscrapy needs" in said.stderr.splitlines()[-1]


@pytest.mark.parametrize("user", ["vscrapy", "watcher"])
@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET requirepass",
        "CONFIG SET dir /tmp",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "ACL LIST",
        "ACL SETUSER default on nopass",
        "SHUTDOWN NOSAVE",
        "MONITOR",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "REPLICAOF 127.0.0.1 1",
        "MODULE LIST",
        "SAVE",
        "BGSAVE",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
        "SWAPDB 0 1",
        "SLOWLOG GET",
        "EVAL return(1) 0",
        "GET other",
        "SET other 1",
        "SET {vs 1",
        "SUBSCRIBE other",
        "PSUBSCRIBE *",
        "PUBLISH other 1",
        "RESTORE {vs}:x 0 x",
        "MIGRATE h 1 {vs}:x 0 1",
        "DUMP {vs}:taskid",
        "RENAME {vs}:taskid {vs}:other",
    ],
)
def test_user_may_not_what_it_need_not(setup: Setup, user: str, command: str) -> None:
    """Neither the server nor anybody else's keys."""
    store = setup.store(setup.url(user))
    with pytest.raises(NoPermissionError):
        store.client.execute_command(*command.split())
    store.close()


def test_watcher_writes_no_key(setup: Setup) -> None:
    """Not even from within a script."""
    store = setup.store(setup.url("watcher"))
    sha = store.client.script_load("redis.call('HSET', KEYS[1], 'state', 'finished')")
    with pytest.raises(ResponseError, match="no permissions to run the 'hset' command"):
        store.client.evalsha_ro(sha, 1, keys.task(1))
    with pytest.raises(NoPermissionError):
        store.client.evalsha(sha, 1, keys.task(1))
    store.close()


@pytest.mark.long
def test_password_of_another_user_is_no_secret(setup: Setup) -> None:
    """Two users have two passwords: without a secret for both, what one sends the other refuses, and says why."""
    env = {"VSCRAPY_REDIS_URL": setup.url("vscrapy")}
    finished = setup.machine.run(["vscrapy", "crawl", "fails", "-a", "n=2"], setup.project, env=env)
    assert finished.exit_code == 1
    setup.worker.wait_for_output(r"is not run: a job of \d+ bytes is not signed with this cluster's secret")
    assert "do sender and workers have the same VSCRAPY_SECRET?" in finished.stderr
