"""Which workers a crawl runs on, and workers that end: labels, drain, --max-tasks, --nice."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Machine, Running, Site, wait_for, write_project
from tests.integration.test_feeds import VAULT
from vscrapy import keys
from vscrapy.states import TaskState

pytest_plugins = ["tests.integration.machine"]

#: Time for the crawls of a test, on a busy machine (seconds).
CRAWL_S: Final = 180.0
#: Time for something to be seen, on a busy machine (seconds).
SOON_S: Final = 60.0

SHOP: Final = """
    import os

    from scrapy import Spider


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, last="60", **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(1, int(last) + 1)]

        def parse(self, response):
            number = int(response.url.rpartition("/")[2])
            yield {"page": number, "who": os.environ["WHO"], "nice": os.getpriority(os.PRIO_PROCESS, 0)}
"""
#: One request in flight a process, whatever the site sees: further processes join at once.
GROWS: Final = ("-s", "CONCURRENT_REQUESTS=1", "-s", "VSCRAPY_POLITENESS=worker")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project whose items say where they were made."""
    return write_project(tmp_path / "shop-project", SHOP)


def add_worker(machine: Machine, name: str, *options: str, labels: str = "", slots: int = 1) -> Running:
    """A worker that its crawl processes know by its name."""
    return machine.start_worker(slots, name, options=options, env={"WHO": name, "VSCRAPY_LABELS": labels})


def start_crawl(machine: Machine, shop: Path, site: Site, *options: str, last: int = 60) -> Running:
    """A crawl whose items go to ``items.jsonl``."""
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-a", f"last={last}", *GROWS]
    return machine.start([*command, "-O", str(shop.parent / "items.jsonl"), *options], shop)


def detach(machine: Machine, shop: Path, site: Site, *options: str, last: int = 60) -> int:
    """A detached crawl's taskid."""
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-a", f"last={last}", *GROWS]
    sent = machine.run([*command, "--detach", *options], shop, CRAWL_S)
    assert sent.exit_code == 0, sent.output
    return machine.last_taskid()


def items(shop: Path) -> list[dict[str, Any]]:
    """What is in the feed."""
    return [json.loads(line) for line in (shop.parent / "items.jsonl").read_text().splitlines()]


def places(machine: Machine, taskid: int) -> dict[str, str]:
    """The task's processes, and the worker of each."""
    found: dict[bytes, bytes] = machine.store.client.hgetall(keys.processes(taskid))
    return {process.decode(): json.loads(place)["worker"] for process, place in found.items()}


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_crawl_runs_on_the_workers_that_it_asks_for(machine: Machine, shop: Path, slow_site: Site) -> None:
    """Of three workers, those whose labels or names it wants, although slots are free on the others."""
    add_worker(machine, "eu1", labels="region=eu, size=big")
    add_worker(machine, "eu2", "--label", "region=eu", "--label", "size=small", labels="size=big")
    add_worker(machine, "us1", "--label", "region=us")
    for options, expected in (
        (["--on", "region=eu"], {"eu1", "eu2"}),
        (["--on", "region=eu", "--on", "size=small"], {"eu2"}),
        (["--on", "name=us1,eu1", "--exclude", "size=big"], {"us1"}),
        (["--exclude", "eu1", "--exclude", "region=us"], {"eu2"}),
    ):
        done = start_crawl(machine, shop, slow_site, *options).wait(CRAWL_S)
        assert done.exit_code == 0, done.output
        found = items(shop)
        assert sorted(item["page"] for item in found) == list(range(1, 61))
        assert {item["who"] for item in found} == expected, options
    table = machine.run(["vscrapy", "-l"]).stdout
    assert re.search(r"^eu2 .* region=eu size=small", table, re.MULTILINE), table
    listed = json.loads(machine.run(["vscrapy", "-l", "--json"]).stdout)
    assert {worker["name"]: worker["labels"] for worker in listed["workers"]}["us1"] == {"region": "us"}
    assert listed["tasks"][0]["on"] == ["region=eu"]


@pytest.mark.long
def test_crawl_that_no_worker_fits_says_so_and_waits(machine: Machine, shop: Path, site: Site) -> None:
    """Attached and detached; and both run when such a worker comes."""
    add_worker(machine, "us1", labels="region=us")
    taskid = detach(machine, shop, site, "--on", "region=eu", last=3)
    sender = start_crawl(machine, shop, site, "--on", "region=eu", last=3)
    said = sender.wait_for_output(r"^vscrapy: task \d+ waits: (no worker .*)$", SOON_S).group(1)
    assert said == (
        "no worker is online that it may run on (--on region=eu); online: us1 (region=us); "
        "start one with: vscrapy worker --redis URL --label region=eu"
    )
    assert re.search(rf"^ *{taskid} .*waits for a\s", machine.run(["vscrapy", "-l"]).stdout, re.MULTILINE)
    sent = machine.run(
        ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "--detach", "--on", "name=w9"], shop, CRAWL_S
    )
    assert f"vscrapy: task {machine.last_taskid()} waits: no worker is online that it may run on" in sent.stderr
    assert machine.run(["vscrapy", "stop", str(machine.last_taskid())]).exit_code == 0
    add_worker(machine, "eu1", labels="region=eu")
    assert sender.wait(CRAWL_S).exit_code == 0
    assert {item["who"] for item in items(shop)} == {"eu1"}
    wait_for(lambda: machine.tasks.record(taskid).state is TaskState.FINISHED, SOON_S)


def test_crawl_with_the_local_worker_alone_says_that_it_does_not_fit(
    machine: Machine, shop: Path, site: Site
) -> None:
    """The worker that a first crawl starts has no labels; the crawl does not wait in silence."""
    sender = start_crawl(machine, shop, site, "--on", "region=eu", last=3)
    sender.wait_for_output(
        r"waits: no worker is online that it may run on \(--on region=eu\); online: \S+ \(no la", SOON_S
    )
    sender.signal(signal.SIGINT)
    assert sender.wait(SOON_S).exit_code == 0


@pytest.mark.long
def test_no_process_leaves_for_a_task_that_its_worker_does_not_fit(
    machine: Machine, shop: Path, slow_site: Site
) -> None:
    """A task that waits for another worker takes no slot from one that runs here, although turns are short."""
    machine.start_worker(1, "us1", env={"WHO": "us1", "VSCRAPY_LABELS": "region=us"}, turn_s=0.2)
    running = detach(machine, shop, slow_site, last=100_000)
    wait_for(lambda: places(machine, running), SOON_S)
    before = places(machine, running)
    waiting = detach(machine, shop, slow_site, "--on", "region=eu")
    pages = machine.tasks.record(running).pages
    created_ms = machine.tasks.record(waiting).created_ms
    wait_for(lambda: machine.tasks.now_ms() - created_ms > 6000, SOON_S)
    assert places(machine, running) == before
    wait_for(lambda: machine.tasks.record(running).pages > pages, SOON_S)
    fair = detach(machine, shop, slow_site, last=3)  # one that does fit gets its turn
    wait_for(lambda: machine.tasks.record(fair).state is TaskState.FINISHED, SOON_S)
    machine.end_tasks()


@pytest.mark.long
def test_home_of_a_detached_task_is_on_a_worker_that_fits(machine: Machine, shop: Path, site: Site) -> None:
    """Its feeds are written there, too; the other worker is free all the time."""
    vault = shop.parent / "vault"
    vault.mkdir()
    (vault / "hold").touch()
    (shop / "shop" / "vault.py").write_text(VAULT)
    with (shop / "shop" / "settings.py").open("a") as settings:
        settings.write(
            f'FEED_STORAGES = {{"vault": "shop.vault.Vault"}}\nFEEDS = {{"vault://{vault}/items.jl": {{}}}}\n'
        )
    add_worker(machine, "us1", labels="region=us", slots=2)
    eu = add_worker(machine, "eu1", labels="region=eu")
    taskid = detach(machine, shop, site, "--on", "region=eu", last=3)
    wait_for(lambda: (vault / "begun").exists(), SOON_S)
    assert set(places(machine, taskid).values()) == {"eu1"}
    eu.kill()  # while it writes; nobody else may go on with it
    wait_for(lambda: not places(machine, taskid), SOON_S)
    (vault / "hold").unlink()
    created_ms = machine.tasks.now_ms()
    wait_for(lambda: machine.tasks.now_ms() - created_ms > 4000, SOON_S)
    assert machine.tasks.record(taskid).state is TaskState.STORING
    add_worker(machine, "eu2", labels="region=eu")
    wait_for(lambda: machine.tasks.record(taskid).state is TaskState.FINISHED, SOON_S)
    assert (vault / "stores").read_text() == "items.jl\n"


def test_changed_record_leads_no_worker_astray(machine: Machine, shop: Path, site: Site) -> None:
    """The record is not signed, the job is: a worker that it is not for does not run it."""
    us = add_worker(machine, "us1", labels="region=us")
    taskid = detach(machine, shop, site, "--on", "region=eu", last=3)
    machine.store.client.hset(keys.task(taskid), "on", "")
    us.wait_for_output(
        rf"task {taskid} is not run: it was sent with --on region=eu, and somebody has changed", SOON_S
    )
    wait_for(lambda: not places(machine, taskid), SOON_S)
    wait_for(lambda: [worker.refused for worker in machine.workers.list()] == [1], SOON_S)
    machine.end_tasks()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["worker", "--label", "eu"], "--label has 'eu'; a label is NAME=VALUE"),
        (["worker", "--nice", "20"], "--nice is 20; it takes 0 to 19"),
        (["worker", "--max-tasks", "-1"], "--max-tasks is -1; "),
        (["crawl", "pages", "--on", "eu"], "--on is 'eu'; give a label"),
        (["crawl", "pages", "--exclude", "a b"], "--exclude is 'a b'; give a label or a worker's name"),
    ],
)
def test_word_that_cannot_be_used_is_told_in_one_line(
    shared_machine: Machine, shop: Path, words: list[str], said: str
) -> None:
    """With exit code 2."""
    finished = shared_machine.run(["vscrapy", *words], shop)
    assert finished.exit_code == 2, finished.output
    assert said in finished.stderr.splitlines()[-1]


# --- workers that end ---------------------------------------------------------------------------------------------


def test_drained_worker_finishes_and_another_goes_on(machine: Machine, shop: Path, slow_site: Site) -> None:
    """It ends with 0, nothing is lost or done twice, and the list shows that it ends."""
    w1 = add_worker(machine, "w1")
    sender = start_crawl(machine, shop, slow_site, last=400)
    sender.wait_for_output(r"Crawled \(200\)", SOON_S)
    add_worker(machine, "w2")
    told = machine.run(["vscrapy", "drain", "w1", "w1"])
    assert (told.exit_code, told.stdout) == (0, "worker w1 ends: 1 crawl process to finish with\n")
    w1.wait_for_output(r"it was told to finish \(vscrapy drain\)", SOON_S)
    assert w1.wait(SOON_S).exit_code == 0
    assert [worker.name for worker in machine.workers.list()] == ["w2"]
    done = sender.wait(CRAWL_S)
    assert done.exit_code == 0, done.output
    found = items(shop)
    assert sorted(item["page"] for item in found) == list(range(1, 401))
    assert {item["who"] for item in found} == {"w1", "w2"}


@pytest.mark.long
def test_drain_can_be_repeated_and_shows(machine: Machine, shop: Path, site: Site) -> None:
    """A worker with a page that takes its time is told twice; it takes no new task meanwhile."""
    w1 = add_worker(machine, "w1", slots=2)
    site.set_latency(8000)
    detach(machine, shop, site, "--workers", "1", last=1)
    wait_for(lambda: site.state()["active"], SOON_S)
    assert "worker w1 ends: " in machine.run(["vscrapy", "drain", "w1"]).stdout
    again = machine.run(["vscrapy", "drain", "w1"])
    assert (again.exit_code, again.stdout.partition(":")[0]) == (0, "worker w1 is ending already")
    assert re.search(r"^w1 +online, ends ", machine.run(["vscrapy", "-l"]).stdout, re.MULTILINE)
    sent = machine.run(["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "--detach"], shop, CRAWL_S)
    assert "waits: no worker is online that does not end (1 do); start one" in sent.stderr
    assert w1.wait(SOON_S).exit_code == 0
    add_worker(machine, "w2")  # who finishes what has ended meanwhile
    machine.end_tasks()


def test_drain_of_an_unknown_worker_is_told_in_one_line(machine: Machine) -> None:
    """And nobody else is drained by the same command."""
    add_worker(machine, "w1")
    finished = machine.run(["vscrapy", "drain", "w1", "w9"])
    assert (finished.exit_code, finished.stdout) == (1, "")
    assert finished.stderr == (
        "vscrapy: no worker named 'w9' is online; online: w1 ('vscrapy -l' lists those that are lost)\n"
    )
    assert [worker.is_draining for worker in machine.workers.list()] == [False]


def test_worker_ends_after_so_many_processes(machine: Machine, shop: Path, site: Site) -> None:
    """With 0, and not before the last of them has left."""
    worker = add_worker(machine, "w1", "--max-tasks", "2")
    for _ in range(2):
        assert worker.is_running
        assert start_crawl(machine, shop, site, last=3).wait(CRAWL_S).exit_code == 0
    assert worker.wait(SOON_S).exit_code == 0
    assert "2 crawl processes have ended here (--max-tasks)" in worker.stderr
    add_worker(machine, "w2")  # who finishes what has ended meanwhile


def test_crawl_processes_are_nice_and_their_agent_is_not(machine: Machine, shop: Path, site: Site) -> None:
    """The heartbeat is not to be late because crawls have the processor."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    worker = add_worker(machine, "w1", "--nice", "3")
    assert start_crawl(machine, shop, site, last=3).wait(CRAWL_S).exit_code == 0
    assert {item["nice"] for item in items(shop)} == {min(own + 3, 19)}
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == own
