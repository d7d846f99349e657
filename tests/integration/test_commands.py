"""The commands around the crawl: lists, following, stopping, the embedded pair, and all that is Scrapy's own."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, Running, Site, wait_for, write_project
from vscrapy import embedded
from vscrapy.states import TaskState

pytest_plugins = ["tests.integration.machine"]

#: A spider over the site's pages /trouble/fine/N.
SHOP: Final = """
    from scrapy import Spider

    class Pages(Spider):
        name = "pages"

        def __init__(self, base, last="5", **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(1, int(last) + 1)]

        def parse(self, response):
            print("page", response.url.rpartition("/")[2])
            yield {"page": int(response.url.rpartition("/")[2])}
"""
#: So many pages that a crawl goes on until it is stopped.
ENDLESS: Final = ("-a", "last=100000", "-s", "CONCURRENT_REQUESTS=2")


@pytest.fixture(scope="module")
def _cluster(shared_machine: Machine) -> Machine:
    shared_machine.start_worker(2, "w1")
    return shared_machine


@pytest.fixture
def cluster(_cluster: Machine) -> Iterator[Machine]:
    """The module's machine with one worker with two slots; the tasks of a test end with it."""
    yield _cluster
    _cluster.end_tasks()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with the spider ``pages``."""
    return write_project(tmp_path / "shop-project", SHOP)


def detach(machine: Machine, shop: Path, site: Site, *options: str) -> int:
    """Submit a detached task; its id."""
    sent = machine.run(
        ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "--workers", "1", "--detach", *options], shop
    )
    assert sent.exit_code == 0, sent.output
    found = re.match(r"task (\d+): pages runs detached; follow it with: vscrapy -c \1\n", sent.stdout)
    assert found is not None, sent.stdout
    return int(found.group(1))


def stop(machine: Machine, *taskids: int) -> Finished:
    """``vscrapy stop``, and wait until the tasks have ended."""
    finished = machine.run(["vscrapy", "stop", ",".join(map(str, taskids))])
    wait_for(
        lambda: all(machine.tasks.record(taskid).state is TaskState.FINISHED for taskid in taskids),
        what=f"tasks {taskids} have ended",
    )
    return finished


def listed(machine: Machine, *options: str) -> dict[str, Any]:
    """What ``vscrapy -l --json`` gives."""
    finished = machine.run(["vscrapy", "-l", "--json", *options])
    assert finished.exit_code == 0, finished.output
    assert finished.stderr == ""
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


# --- lists --------------------------------------------------------------------------------------------------------


def test_list_as_json_has_the_documented_form(cluster: Machine, slow_site: Site, shop: Path) -> None:
    """Workers and tasks with their fields, while one task runs, another has ended, and a third is attached."""
    ended = detach(cluster, shop, slow_site)
    assert cluster.run(["vscrapy", "-c", str(ended)]).exit_code == 0
    going = detach(cluster, shop, slow_site, *ENDLESS)
    attached = cluster.start(["vscrapy", "crawl", "pages", "-a", f"base={slow_site.base}", *ENDLESS], shop)
    attached.wait_for_output(r"page 9\b")
    wait_for(lambda: cluster.tasks.record(going).items > 10, what="the detached task has items")
    # A worker tells its number of processes with its heartbeat.
    wait_for(lambda: [worker.processes for worker in cluster.workers.list()] == [2], what="the worker has told it")
    found = listed(cluster)
    assert set(found) == {"workers", "tasks"}
    [worker] = found["workers"]
    assert {"name": "w1", "state": "online", "slots": 2, "processes": 2}.items() <= worker.items()
    tasks = {task["taskid"]: task for task in found["tasks"]}
    fields = {
        *("taskid", "spider", "state", "reason", "exit_code", "pages", "items", "errors"),
        *("queued", "in_flight", "processes", "attached"),
    }
    assert all(fields <= set(task) for task in tasks.values())
    assert {
        "spider": "pages",
        "state": "finished",
        "reason": "finished",
        "exit_code": 0,
        "pages": 5,
        "items": 5,
        "errors": 0,
        "queued": 0,
        "in_flight": 0,
        "processes": 0,
        "attached": False,
    }.items() <= tasks[ended].items()
    assert {
        "state": "running",
        "reason": "",
        "exit_code": None,
        "processes": 1,
        "attached": False,
    }.items() <= tasks[going].items()
    assert tasks[going]["queued"] > 0
    assert tasks[going]["in_flight"] > 0
    assert tasks[going]["items"] > 10
    assert tasks[max(tasks)]["attached"] is True

    table = cluster.run(["vscrapy", "--list"])
    assert table.exit_code == 0
    assert re.search(rf"^ *{going} +pages +running ", table.stdout, re.MULTILINE)
    assert re.search(r"^w1 +online +2 +2 ", table.stdout, re.MULTILINE)

    stop(cluster, going, max(tasks))
    assert attached.wait().exit_code == 0


# --- following ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [["-c", "--connect"], ["-c"], ["--connect"]], ids=" ".join)
def test_connect_follows_two_tasks_with_their_ids_in_front(
    cluster: Machine, slow_site: Site, shop: Path, option: list[str]
) -> None:
    """Each line says whose it is; the end of each is told, and the exit code is the largest."""
    first, second = (detach(cluster, shop, slow_site, *ENDLESS) for _ in range(2))
    following = cluster.start(["vscrapy", *option, f"{first},{second}"])
    for taskid in (first, second):
        following.wait_for_output(rf"^{taskid} \| page \d+$")
    stop(cluster, first, second)
    followed = following.wait()
    assert followed.exit_code == 0
    for taskid in (first, second):
        assert f"{taskid} | vscrapy: task {taskid} ended: shutdown (exit code 0)" in followed.stderr
    marks = (f"{first} | ", f"{second} | ")
    assert [line for line in followed.output.splitlines() if not line.startswith(marks)] == []


def ctrl_c(running: Running) -> Finished:
    """Type Ctrl-C, and wait for the end."""
    running.type("\x03")
    return running.wait()


def test_ctrl_c_on_connect_only_detaches_and_says_so(cluster: Machine, slow_site: Site, shop: Path) -> None:
    """The tasks go on, and can be followed again."""
    tasks = [detach(cluster, shop, slow_site, *ENDLESS) for _ in range(2)]
    command = ["vscrapy", "-c", ",".join(map(str, tasks))]
    following = cluster.start(command, pty=True)
    for taskid in tasks:
        following.wait_for_output(rf"^{taskid} \| page \d+$")
    finished = ctrl_c(following)
    assert finished.exit_code == 0
    assert "Traceback" not in finished.stdout
    assert (
        f"\nvscrapy: detached from tasks {tasks[0]}, {tasks[1]}, which go on; "
        f"vscrapy stop {tasks[0]},{tasks[1]} ends them\n"
    ) in finished.stdout
    for taskid in tasks:
        assert cluster.tasks.record(taskid).state is TaskState.RUNNING
    before = cluster.tasks.records(tasks)
    wait_for(
        lambda: all(record.pages > before[taskid].pages for taskid, record in cluster.tasks.records(tasks).items()),
        what="both go on",
    )
    again = cluster.start(["vscrapy", "-c", str(tasks[0])], pty=True)
    again.wait_for_output(r"^page \d+$")
    said = f"\nvscrapy: detached from task {tasks[0]}, which goes on; vscrapy stop {tasks[0]} ends it\n"
    assert said in ctrl_c(again).stdout
    stop(cluster, *tasks)


@pytest.mark.parametrize(
    "command", [["-c"], ["stop"], ["pause"], ["resume"], ["valve", "--level", "off"], ["items"]], ids=" ".join
)
def test_unknown_task_is_told_in_one_line(cluster: Machine, command: list[str]) -> None:
    """Which task there is not, and how to see which there are."""
    finished = cluster.run(["vscrapy", *command, "4711"])
    assert finished.exit_code == 1
    assert finished.stdout == ""
    assert finished.stderr == "vscrapy: task 4711 does not exist (any more); 'vscrapy -l' lists the tasks\n"


@pytest.mark.parametrize(
    "command", [["-c"], ["stop"], ["pause"], ["resume"], ["valve", "--level", "off"], ["items"]], ids=" ".join
)
def test_word_that_is_no_taskid_is_told_in_one_line(cluster: Machine, command: list[str]) -> None:
    """A word that is not a number is a mistake on the command line, with its exit code."""
    finished = cluster.run(["vscrapy", *command, "books"])
    assert finished.exit_code == 2
    assert finished.stderr == "vscrapy: 'books' is not a taskid; a taskid is a number, 'vscrapy -l' lists them\n"


def test_stop_ends_a_task_gracefully_and_its_sender_with_it(cluster: Machine, slow_site: Site, shop: Path) -> None:
    """What is in flight is finished; the sender writes its feed and ends as after Ctrl-C; a second stop says so."""
    command = ["vscrapy", "crawl", "pages", "-a", f"base={slow_site.base}", "-O", "items.jsonl", *ENDLESS]
    attached = cluster.start(command, shop)
    attached.wait_for_output(r"page 9\b")
    taskid = cluster.last_taskid()
    stopped = stop(cluster, taskid)
    assert (stopped.exit_code, stopped.stdout) == (0, f"task {taskid}: stopping\n")
    finished = attached.wait()
    assert finished.exit_code == 0
    assert "Closing spider (shutdown)" in finished.stderr
    assert "'finish_reason': 'shutdown'" in finished.stderr
    record = cluster.tasks.record(taskid)
    assert (record.reason, record.items) == ("shutdown", len((shop / "items.jsonl").read_text().splitlines()))
    # All that the site was asked for became an item.
    assert record.items == len(slow_site.log())
    again = cluster.run(["vscrapy", "stop", str(taskid)])
    assert (again.exit_code, again.stdout) == (0, f"task {taskid} had ended already (shutdown)\n")


# --- Scrapy's own commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    ["list", "settings --get BOT_NAME", "settings --get USER_AGENT", "version", "version -v", "settings --getint X"],
)
def test_command_of_scrapy_has_scrapy_s_output(shared_machine: Machine, project: Path, args: str) -> None:
    """What is not ours is handed to Scrapy as it is."""
    expected, found = (shared_machine.run([program, *args.split()], project) for program in ("scrapy", "vscrapy"))
    assert found == expected


def test_genspider_makes_the_spider_that_scrapy_makes(shared_machine: Machine, tmp_path: Path) -> None:
    """The same file, and the same words about it."""
    made = {}
    for program in ("scrapy", "vscrapy"):
        project = write_project(tmp_path / program, SHOP, settings="NEWSPIDER_MODULE = 'shop.more'")
        (project / "shop" / "more").mkdir()
        (project / "shop" / "more" / "__init__.py").write_text("")
        finished = shared_machine.run([program, "genspider", "news", "example.com"], project)
        made[program] = (finished, (project / "shop" / "more" / "news.py").read_text())
    assert made["vscrapy"] == made["scrapy"]
    assert made["vscrapy"][0].exit_code == 0


def test_vscrapy_alone_shows_its_own_commands_and_scrapy_s(shared_machine: Machine, project: Path) -> None:
    """Ours first, then Scrapy's list as it is."""
    expected, found = (shared_machine.run([program], project) for program in ("scrapy", "vscrapy"))
    assert found.exit_code == expected.exit_code == 0
    assert found.stdout.endswith(expected.stdout)
    ours = found.stdout.removesuffix(expected.stdout)
    for command in ("crawl", "-l", "-c", "stop", "items", "worker", "config", "shutdown"):
        assert f"vscrapy {command} " in ours


def test_python_m_vscrapy_is_vscrapy(shared_machine: Machine, project: Path) -> None:
    """The module can be run, with the exit code of the command."""
    for args in (["list"], ["-c", "4711"], ["nosuch"]):
        found, expected = (
            shared_machine.run([*how, *args], project) for how in (["python", "-m", "vscrapy"], ["vscrapy"])
        )
        assert found == expected


# --- the embedded pair --------------------------------------------------------------------------------------------


def test_embedded_pair_comes_with_the_first_crawl_and_goes_with_shutdown(
    machine: Machine, site: Site, shop: Path
) -> None:
    """Nothing is configured: the server and its worker start by themselves, serve twice, and end when told to."""
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-O", "items.jsonl"]
    assert machine.run(command, shop).exit_code == 0
    before = {pid for pid, line in machine.processes().items() if "valkey-server" in line or "vscrapy-worker" in line}
    assert len(before) == 2
    assert machine.run(command, shop).exit_code == 0
    assert before <= set(machine.processes())
    assert [worker["state"] for worker in listed(machine)["workers"]] == ["online"]

    ended = machine.run(["vscrapy", "shutdown"])
    assert ended.exit_code == 0
    said = re.fullmatch(
        r"Ended the embedded server \(pid (\d+)\) and the local worker \(pid (\d+)\) \(.*\)\.\n", ended.stdout
    )
    assert said is not None, ended.output
    assert {int(pid) for pid in said.groups()} == before
    wait_for(lambda: not machine.processes(), what=lambda: f"nothing is left; there is {machine.processes()}")

    again = machine.run(["vscrapy", "shutdown"])
    assert (again.exit_code, again.stdout) == (0, f"Nothing was running ({machine.home}).\n")
    nobody = machine.run(["vscrapy", "-l"])
    assert nobody.exit_code == 4
    assert re.fullmatch(
        r"vscrapy: no Redis is configured, and the embedded server of .* does not run; .*\n", nobody.stderr
    )


def test_embedded_server_that_is_killed_comes_back(machine: Machine, slow_site: Site, shop: Path) -> None:
    """Its local worker starts it again; the crawl goes on, and gives each item once."""
    command = ["vscrapy", "crawl", "pages", "-a", f"base={slow_site.base}", "-O", "items.jsonl"]
    crawl = machine.start([*command, "-a", "last=200", "-s", "CONCURRENT_REQUESTS=4"], shop)
    wait_for(lambda: len(slow_site.log()) > 40, what="40 pages are there")
    killed = embedded.running(machine.home).server_pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    finished = crawl.wait()
    assert finished.exit_code == 0, finished.output
    assert "Redis answers again" in finished.stderr
    items = [json.loads(line)["page"] for line in (shop / "items.jsonl").read_text().splitlines()]
    assert sorted(items) == list(range(1, 201))
    assert embedded.running(machine.home).server_pid not in (None, killed)


def test_shutdown_ends_a_detached_task_s_processes_and_keeps_its_data(
    machine: Machine, slow_site: Site, shop: Path
) -> None:
    """The worker gives its leases back, and after the next start the task goes on where it was."""
    taskid = detach(machine, shop, slow_site, "-a", "last=200", "-s", "CONCURRENT_REQUESTS=4")
    wait_for(lambda: len(slow_site.log()) > 40, what="40 pages are there")
    assert machine.run(["vscrapy", "shutdown"]).exit_code == 0
    wait_for(lambda: not machine.processes(), what=lambda: f"nothing is left; there is {machine.processes()}")
    assert len(slow_site.log()) < 200
    assert detach(machine, shop, slow_site) == taskid + 1
    followed = machine.run(["vscrapy", "-c", f"{taskid},{taskid + 1}"])
    assert followed.exit_code == 0
    assert f"task {taskid} ended: finished" in followed.stderr
    fetched = machine.run(["vscrapy", "items", str(taskid)], shop)
    assert sorted(json.loads(line)["page"] for line in fetched.stdout.splitlines()) == list(range(1, 201))


def test_sigterm_on_connect_only_detaches(cluster: Machine, slow_site: Site, shop: Path) -> None:
    """As Ctrl-C: a follower that is told to end leaves the task alone."""
    taskid = detach(cluster, shop, slow_site, *ENDLESS)
    following = cluster.start(["vscrapy", "-c", str(taskid)])
    following.wait_for_output(r"^page \d+$")
    following.signal(signal.SIGTERM)
    assert following.wait().exit_code == 0
    assert cluster.tasks.record(taskid).state is TaskState.RUNNING
    stop(cluster, taskid)
