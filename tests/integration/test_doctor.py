"""``vscrapy doctor``: what it finds on real servers, workers and projects, and what it says to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, Server, wait_for, write_project
from vscrapy.commands._doctor import FREE_BYTES, MOST_NAMED, of_workers
from vscrapy.model import PROTOCOL
from vscrapy.store.base import Store
from vscrapy.store.health import examine
from vscrapy.store.workers import WorkerRecord, Workers
from vscrapy.versions import versions_here

pytest_plugins = ["tests.integration.machine"]

#: Time for something to be seen, on a busy machine (seconds).
SOON_S: Final = 60.0
SPIDERS: Final = """
    import scrapy

    print("imported")


    class Plain(scrapy.Spider):
        name = "plain"

        def parse(self, response):
            yield {}
"""
COUNTING: Final = """

    class Counting(scrapy.Spider):
        name = "counting"
        n = 0

        def parse(self, response):
            self.n += 1
            yield {"n": self.n}
"""


def doctor(
    machine: Machine, url: str = "", *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Finished:
    """``vscrapy doctor``."""
    return machine.run(["vscrapy", "doctor", *(["--redis", url] if url else [])], cwd, SOON_S, env=env)


def checks(finished: Finished) -> dict[str, tuple[str, str]]:
    """Level and words of each check."""
    lines = [line for line in finished.stdout.splitlines() if line]
    return {line[9:23].strip(): (line[:9].strip(), line[23:]) for line in lines}


def test_nothing_configured_is_well(machine: Machine) -> None:
    """Nobody has to do anything before the first crawl."""
    finished = doctor(machine)
    assert (finished.exit_code, finished.stderr) == (0, "")
    found = checks(finished)
    assert {level for level, _ in found.values()} == {"ok"}, finished.stdout
    assert found["redis"][1] == "none is configured; the next crawl starts one here, for this machine"
    assert found["project"][1] == "none in this directory"


def test_cluster_that_is_well_has_no_problem(machine: Machine) -> None:
    """A server with an append-only file, a worker, a secret of their own; and the same for programs."""
    server = machine.start_server()
    env = {"VSCRAPY_SECRET": "a secret of their own"}
    machine.start_worker(redis=server.url, env=env)
    finished = doctor(machine, server.url, env=env)
    assert finished.exit_code == 0, finished.output
    found = checks(finished)
    assert {level for level, _ in found.values()} == {"ok"}, finished.stdout
    assert {
        "workers": ("ok", "1 online with 1 slots"),
        "versions": ("ok", "as here"),
        "persistence": ("ok", "append-only file"),
        "eviction": ("ok", "none"),
        "secret": ("ok", "set (from: VSCRAPY_SECRET)"),
        "rights": ("ok", "this user may all that vscrapy needs"),
        "clocks": ("ok", "those of the workers are as that of Redis"),
    }.items() <= found.items()
    assert server.password not in finished.stdout.replace("redis://:***@", "")
    as_json = machine.run(["vscrapy", "doctor", "--json", "--redis", server.url], env=env)
    data: dict[str, Any] = json.loads(as_json.stdout)
    assert (as_json.exit_code, data["ok"]) == (0, True)
    assert [check["check"] for check in data["checks"]] == list(found)
    with server.client() as client:
        assert list(client.scan_iter("*trial*")) == []


def test_server_that_cannot_be_reached_is_a_problem(machine: Machine) -> None:
    """In one line with what to do, and no traceback."""
    finished = doctor(machine, "redis://:pw@127.0.0.1:1/0")
    level, said = checks(finished)["redis"]
    assert (finished.exit_code, level, finished.stderr) == (1, "problem", "")
    assert "redis://:***@127.0.0.1:1/0 (from --redis) cannot be reached" in said
    assert "do: is it running, and is this the right address?" in said


@pytest.mark.parametrize(
    ("options", "check", "level", "said"),
    [
        (["--appendonly", "no"], "persistence", "warning", "none: when it restarts, its tasks are lost"),
        (["--appendonly", "no", "--save", "900 1"], "persistence", "warning", "snapshots only"),
        (["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"], "eviction", "problem", "can get lost"),
        (["--maxmemory", "100kb"], "redis", "problem", "is out of memory and refuses writes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_server_that_is_set_wrongly_is_told(
    machine: Machine, options: list[str], check: str, level: str, said: str
) -> None:
    """With what to set instead."""
    server = machine.start_server(options=options)
    finished = doctor(machine, server.url)
    found = checks(finished)
    assert found[check][0] == level, finished.stdout
    assert said in found[check][1]
    assert "; do: " in found[check][1]


def test_missing_worker_is_a_problem(machine: Machine) -> None:
    """A crawl would wait; and the password is not the best secret."""
    server = machine.start_server()
    finished = doctor(machine, server.url)
    found = checks(finished)
    assert finished.exit_code == 1
    assert found["workers"] == ("problem", "none is online; do: start one: vscrapy worker --redis URL")
    assert found["secret"][0] == "warning"
    assert found["secret"][1].startswith("it is the password of Redis; do: ")


def test_worker_with_another_secret_is_a_problem(machine: Machine) -> None:
    """Before any task has failed because of it."""
    server = machine.start_server()
    machine.start_worker(name="w1", redis=server.url, env={"VSCRAPY_SECRET": "one"})
    machine.start_worker(name="w2", redis=server.url, env={"VSCRAPY_SECRET": "two"})
    finished = doctor(machine, server.url, env={"VSCRAPY_SECRET": "two"})
    assert finished.exit_code == 1
    assert "problem  secret        another one than here at: w1; do: set the same VSCRAPY_SECRET" in finished.stdout


def test_user_with_few_rights_is_told_which_it_lacks(machine: Machine) -> None:
    """Nothing of the trial is left; a user who may not even set is stopped at that."""
    server = machine.start_server()
    may = "+ping +select +info +time +client|setname +client|setinfo +zrange +hgetall +expire +evalsha +publish"
    with server.client() as client:
        for user, more in (("few", "+set +get"), ("looks", "+hset +rpush")):
            client.execute_command(
                *(
                    "ACL",
                    "SETUSER",
                    user,
                    "on",
                    ">pw",
                    "~{vs}:*",
                    "&{vs}:*",
                    "nocommands",
                    *may.split(),
                    *more.split(),
                )
            )
        for user, said in (
            ("few", "this user may not: getrange, incrby, exists, hget, hset"),
            ("looks", "may not: set"),
        ):
            found = checks(doctor(machine, server.url.replace("redis://:", f"redis://{user}:")))
            assert found["rights"][0] == "problem"
            assert said in found["rights"][1]
            assert "docs/security.md" in found["rights"][1]
        # The trial's own key has a life of seconds, and this user may not remove it.
        assert all(0 < client.pttl(key) <= 10_000 for key in client.scan_iter("*"))


@pytest.mark.long
def test_project_is_looked_at(machine: Machine, tmp_path: Path) -> None:
    """Well, with a difference, refused, and broken; what it prints does not disturb the output for programs."""
    plain = write_project(tmp_path / "plain", SPIDERS)
    assert checks(doctor(machine, cwd=plain))["project"] == ("ok", f"{plain}, 1 spider")
    printed = machine.run(["vscrapy", "doctor", "--json"], plain)
    assert json.loads(printed.stdout)["ok"] is True
    counting = write_project(tmp_path / "counting", SPIDERS + COUNTING)
    finished = doctor(machine, cwd=counting)
    level, said = checks(finished)["project"]
    assert (finished.exit_code, level) == (0, "warning")
    assert said == (
        f"{counting}, 2 spiders; not as on one process: counting; "
        "do: see what, and why: vscrapy crawl --check counting"
    )
    own = write_project(tmp_path / "own", SPIDERS, settings='SCHEDULER = "shop.spiders.Plain"')
    finished = doctor(machine, cwd=own)
    assert (finished.exit_code, checks(finished)["project"][0]) == (1, "problem")
    assert "refused: plain" in finished.stdout
    broken = write_project(tmp_path / "broken", "import not_there\n")
    finished = doctor(machine, cwd=broken)
    assert finished.exit_code == 1
    assert "ModuleNotFoundError: No module named 'not_there'" in checks(finished)["project"][1]


def test_embedded_pair_is_well_without_its_worker(machine: Machine) -> None:
    """The next crawl starts one."""
    machine.start_embedded()
    finished = doctor(machine)
    assert finished.exit_code == 0, finished.stdout
    assert checks(finished)["workers"] == ("ok", "none now; the next crawl starts one here")


def test_worker_tells_its_clock_and_its_disk(machine: Machine) -> None:
    """With each heartbeat; on one machine, the clock is that of Redis."""
    machine.start_worker()
    [worker] = machine.workers.list()
    assert worker.free_bytes > 0
    wait_for(lambda: abs(machine.workers.list()[0].clock_ms) < 1000, SOON_S)


def record(name: str, **fields: Any) -> WorkerRecord:
    """A worker that is well, but for *fields*."""
    here = versions_here()
    values: dict[str, Any] = {
        "name": name,
        "is_alive": True,
        "slots": 1,
        "processes": 0,
        "host": "h",
        "pid": 1,
        "since_ms": 0,
        "seen_ms": 0,
        "version": here["vscrapy"],
        "python": here["python"],
        "scrapy": here["scrapy"],
        "twisted": here["twisted"],
        "protocol": PROTOCOL,
        "free_bytes": FREE_BYTES[0],
    }
    return WorkerRecord(**{**values, **fields})


@pytest.mark.parametrize(
    ("fields", "check", "level", "said"),
    [
        ({"is_alive": False}, "lost workers", "warning", "without a sign of life: w2"),
        (
            {"protocol": PROTOCOL + 1},
            "versions",
            "warning",
            "another protocol than here, so they take no task .*: w2",
        ),
        ({"scrapy": "1.0.0"}, "versions", "warning", r"other minor versions than here: w2 \(scrapy\)"),
        ({"clock_ms": -90_000}, "clocks", "warning", "w2 is 90.0 s behind Redis"),
        ({"free_bytes": 1 << 30}, "disks", "warning", "w2 has 1.0 GiB free"),
        ({"free_bytes": 1 << 20}, "disks", "problem", "w2 has 1 MiB free"),
    ],
)
def test_what_is_wrong_with_one_worker_names_it(fields: dict[str, Any], check: str, level: str, said: str) -> None:
    """And what is to be done; the other one is well."""
    verdicts = of_workers([record("w1"), record("w2", **fields)], is_embedded=False)
    [found] = [verdict for verdict in verdicts if verdict.level != "ok"]
    assert (found.check, found.level, bool(found.do)) == (check, level, True)
    assert re.search(said, found.said), found.said


def test_many_workers_are_no_long_line() -> None:
    """A few are named."""
    verdicts = of_workers([record(f"w{n}", clock_ms=60_000) for n in range(100)], is_embedded=False)
    [found] = [verdict for verdict in verdicts if verdict.check == "clocks"]
    assert found.said.count("ahead") == MOST_NAMED
    assert found.said.endswith(f"and {100 - MOST_NAMED} more")


def test_trial_of_rights_leaves_nothing(tmp_path: Path) -> None:
    """Not even on a server with keys; all commands are allowed to the default user."""
    server = Server(tmp_path / "server")
    server.start()
    store = Store(server.endpoint, name="test")
    try:
        Workers(store).register("w1", "t", {})
        before = set(store.client.scan_iter("*"))
        assert examine(store).denied == ()
        assert set(store.client.scan_iter("*")) == before
    finally:
        store.close()
        server.stop()
