"""Environment variables that travel with a task: they are there in time, and are seen nowhere else."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Machine, Site, wait_for, write_project
from tests.integration.test_feeds import VAULT
from vscrapy import keys, wire
from vscrapy.states import TaskState
from vscrapy.store.tasks import Tasks

pytest_plugins = ["tests.integration.machine"]

#: Time for the crawls of a test, on a busy machine (seconds).
CRAWL_S: Final = 120.0
VALUE: Final = "v4lue-of-the-api-key"
SPIDERS: Final = """
    import os

    from scrapy import Request, Spider

    from shop import settings


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/1"]

        def parse(self, response):
            yield {
                "at import": settings.AT_IMPORT == os.environ.get("API_KEY"),
                "length": len(os.environ.get("API_KEY", "")),
                "other": os.environ.get("OTHER"),
            }


    class Fails(Pages):
        name = "fails"

        def parse(self, response):
            if len(os.environ.get("API_KEY", "")) == 20:
                raise RuntimeError("it has the key")
            yield {}
"""
SETTINGS: Final = """
import os
AT_IMPORT = os.environ.get("API_KEY")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project that wants a variable as it is imported."""
    return write_project(tmp_path / "project", SPIDERS, settings=SETTINGS)


def crawl(site: Site, *options: str, spider: str = "pages") -> list[str]:
    """The command."""
    return ["vscrapy", "crawl", spider, "-a", f"base={site.base}", *options]


def everything(machine: Machine) -> bytes:
    """All that the embedded server keeps, jobs unpacked."""
    client = machine.store.client
    read = {b"string": client.get, b"hash": client.hgetall, b"stream": client.xrange, b"set": client.smembers}
    found = b""
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        value: Any = read[kind](key) if kind in read else client.zrange(key, 0, -1)
        found += repr((key, value)).encode()
        if key.endswith(b":job"):
            found += zlib.decompress(value[wire.MAC_BYTES :])
    return found


def test_variable_is_there_before_the_project_and_seen_nowhere(machine: Machine, shop: Path, site: Site) -> None:
    """By its name only it travels; neither Redis nor a log, a list or a command line has its value."""
    worker = machine.start_worker()
    env = {"API_KEY": VALUE, "OTHER": "stays here"}
    for options in (["--env", "API_KEY"], ["--env", "API_KEY,API_KEY"]):
        done = machine.run(crawl(site, *options, "-O", "items.jsonl", "-L", "DEBUG"), shop, CRAWL_S, env=env)
        assert done.exit_code == 0, done.output
        [item] = [json.loads(line) for line in (shop / "items.jsonl").read_text().splitlines()]
        assert item == {"at import": True, "length": len(VALUE), "other": None}
        assert VALUE not in done.output
    without = machine.run(crawl(site, "-O", "items.jsonl"), shop, CRAWL_S, env=env)
    assert without.exit_code == 0, without.output
    assert json.loads((shop / "items.jsonl").read_text())["length"] == 0
    taskid = machine.last_taskid() - 1
    kept = everything(machine)
    assert b'"sealed_env": "' in kept
    assert VALUE.encode() not in kept
    assert b"API_KEY" not in Tasks(machine.store).job(taskid)
    said = machine.run(["vscrapy", "-l", "--json"]).output + worker.output
    assert VALUE not in said


def test_variables_of_the_scrapy_cfg_travel(machine: Machine, shop: Path, site: Site) -> None:
    """With each crawl of the project; one that is not set here is left out, one of vscrapy's own refused."""
    with (shop / "scrapy.cfg").open("a") as file:
        file.write("[vscrapy]\nenv = API_KEY, NOT_SET\n")
    machine.start_worker()
    done = machine.run(crawl(site, "-O", "items.jsonl"), shop, CRAWL_S, env={"API_KEY": VALUE})
    assert done.exit_code == 0, done.output
    assert json.loads((shop / "items.jsonl").read_text())["length"] == len(VALUE)
    (shop / "scrapy.cfg").write_text("[settings]\ndefault = shop.settings\n[vscrapy]\nenv = VSCRAPY_SECRET\n")
    refused = machine.run(crawl(site), shop, CRAWL_S, env={"VSCRAPY_SECRET": "x"})
    assert refused.exit_code == 2
    assert "scrapy.cfg has VSCRAPY_SECRET, which is vscrapy's own" in refused.stderr


@pytest.mark.parametrize("word", ["NOT_SET", "VSCRAPY_HOME", f"API_KEY={VALUE}"])
def test_variable_that_cannot_travel_is_told_in_one_line(
    shared_machine: Machine, shop: Path, site: Site, word: str
) -> None:
    """With exit code 2, and no value."""
    finished = shared_machine.run(crawl(site, "--env", word), shop, CRAWL_S)
    assert finished.exit_code == 2, finished.output
    assert finished.stderr.splitlines()[-1].startswith("vscrapy: --env ")
    assert VALUE not in finished.output


@pytest.mark.long
def test_variables_are_there_again_when_failed_requests_are_retried(machine: Machine, shop: Path, site: Site) -> None:
    """The task has ended: its variables are sealed anew, for the new one."""
    machine.start_worker()
    command = crawl(site, "--env", "API_KEY", "--detach", spider="fails")
    assert machine.run(command, shop, CRAWL_S, env={"API_KEY": VALUE}).exit_code == 0
    for number in (1, 2):
        taskid = machine.last_taskid()
        wait_for(lambda: machine.tasks.record(machine.last_taskid()).state is TaskState.FINISHED, CRAWL_S)
        assert "it has the key" in machine.run(["vscrapy", "errors", str(taskid)]).stdout
        if number == 1:
            retried = machine.run(["vscrapy", "retry", str(taskid)])
            assert retried.exit_code == 0, retried.output
            assert machine.last_taskid() == taskid + 1


def test_home_of_a_detached_task_has_the_variables(machine: Machine, shop: Path, site: Site) -> None:
    """A storage may need a password: its process is another one, with the same environment."""
    vault = shop.parent / "vault"
    vault.mkdir()
    (shop / "shop" / "vault.py").write_text(VAULT.replace('"stores", "a"', 'os.environ["API_KEY"], "a"'))
    with (shop / "shop" / "settings.py").open("a") as settings:
        settings.write(
            f'FEED_STORAGES = {{"vault": "shop.vault.Vault"}}\nFEEDS = {{"vault://{vault}/items.jl": {{}}}}\n'
        )
    machine.start_worker()
    sent = machine.run(crawl(site, "--env", "API_KEY", "--detach"), shop, CRAWL_S, env={"API_KEY": VALUE})
    assert sent.exit_code == 0, sent.output
    wait_for(lambda: machine.tasks.record(machine.last_taskid()).state is TaskState.FINISHED, CRAWL_S)
    assert (vault / VALUE).read_text() == "items.jl\n"


def test_worker_with_another_secret_says_so(machine: Machine, shop: Path, site: Site) -> None:
    """It opens nothing; without any secret, nothing is sent."""
    server = machine.start_server()
    worker = machine.start_worker(redis=server.url, env={"VSCRAPY_SECRET": "one"})
    env = {"API_KEY": VALUE, "VSCRAPY_SECRET": "two", "VSCRAPY_REDIS_URL": server.url}
    done = machine.run(crawl(site, "--env", "API_KEY"), shop, CRAWL_S, env=env)
    assert done.exit_code == 1, done.output
    worker.wait_for_output(r"task 1 is not run: .*secret", CRAWL_S)
    with server.client() as client:
        assert VALUE.encode() not in zlib.decompress(client.get(keys.job(1))[wire.MAC_BYTES :])
    server = machine.start_server(password="")
    command = crawl(site, "--env", "API_KEY", "--redis", server.url)
    refused = machine.run(command, shop, CRAWL_S, env={"API_KEY": VALUE})
    assert refused.exit_code == 2
    assert "API_KEY cannot travel: there is no secret to encrypt with" in refused.stderr
