"""What failed for good is listed, exactly, and runs again: ``vscrapy errors`` and ``vscrapy retry``, for users."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Machine, Site, wait_for, write_project
from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.failures import Failures

pytest_plugins = ["tests.integration.machine"]

#: Spiders that fail in every way; ``mended`` is a file that, once it is there, mends the callback.
SHOP: Final = """
    from pathlib import Path

    from scrapy import Request, Spider

    class Base(Spider):
        custom_settings = {"RETRY_TIMES": 1, "LOG_LEVEL": "INFO"}

        def __init__(self, base, mended="/nowhere", last="5", **kwargs):
            super().__init__(**kwargs)
            self.base, self.mended, self.last = base, Path(mended), int(last)

        def parse(self, response):
            if not self.mended.exists():
                raise ValueError("not mended")
            yield {"page": response.url.rpartition("/")[2], "tries": response.meta.get("retry_times", 0) + 1}

    class Pages(Base):
        name = "pages"

        async def start(self):
            for number in range(1, self.last + 1):
                yield Request(f"{self.base}/trouble/fine/{number}")

    class Endless(Base):
        name = "endless"

        async def start(self):
            yield Request(f"{self.base}/trouble/fine/1", priority=9)
            for number in range(2, 100000):
                yield Request(f"{self.base}/trouble/fine/{number}", callback=self.pass_by)

        def pass_by(self, response):
            pass

    class Ways(Base):
        name = "ways"

        async def start(self):
            for path, errback in (
                ("fine/1", None),
                ("dead/1", None),
                ("gone/1", self.fail),
                ("gone/2", self.care),
                ("missing/1", None),
                ("hangup/1", None),
                ("hangup/2", self.fail),
                ("hangup/3", self.care),
            ):
                yield Request(f"{self.base}/trouble/{path}", errback=errback)
            yield Request(f"{self.base}/trouble/fine/2", callback=lambda response: 1 / 0)
            yield Request(f"{self.base}/trouble/fine/3", method="POST", callback=self.late)

        async def late(self, response):
            yield {"page": "late"}
            raise KeyError("late")

        def fail(self, failure):
            raise RuntimeError("the errback, too")

        def care(self, failure):
            yield {"page": "cared for"}

    class Heal(Base):
        name = "heal"

        async def start(self):
            yield Request(f"{self.base}/trouble/heal/1?fails=3")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with these spiders."""
    return write_project(tmp_path / "shop-project", SHOP)


def errors(machine: Machine, taskid: int) -> list[dict[str, Any]]:
    """What ``vscrapy errors --json`` gives."""
    finished = machine.run(["vscrapy", "errors", str(taskid), "--json"])
    assert finished.exit_code == 0, finished.output
    found: list[dict[str, Any]] = json.loads(finished.stdout)["errors"]
    return found


def crawl(machine: Machine, shop: Path, site: Site, spider: str, *options: str) -> int:
    """Submit a detached task; its id."""
    sent = machine.run(["vscrapy", "crawl", spider, "-a", f"base={site.base}", "--detach", *options], shop)
    assert sent.exit_code == 0, sent.output
    return machine.last_taskid()


def wait_for_end(machine: Machine, taskid: int) -> None:
    """Wait until a task has ended, as it should."""
    wait_for(lambda: machine.tasks.record(taskid).state is TaskState.FINISHED, what=f"task {taskid} has ended")
    assert machine.tasks.record(taskid).reason == "finished"


def items(machine: Machine, shop: Path, taskid: int) -> list[dict[str, Any]]:
    """What ``vscrapy items`` gives."""
    finished = machine.run(["vscrapy", "items", str(taskid)], shop)
    assert finished.exit_code == 0, finished.output
    return [json.loads(line) for line in finished.stdout.splitlines()]


def retry(machine: Machine, *options: str) -> str:
    """What ``vscrapy retry`` says."""
    finished = machine.run(["vscrapy", "retry", *options])
    assert finished.exit_code == 0, finished.output
    return finished.stdout


def test_errors_lists_each_way_to_fail(machine: Machine, site: Site, shop: Path) -> None:
    """And nothing that an errback took care of, nor what was retried and came."""
    machine.start_worker(1, "w1")
    taskid = crawl(machine, shop, site, "ways")
    wait_for_end(machine, taskid)
    found = {entry["url"].partition("/trouble/")[2]: entry for entry in errors(machine, taskid)}
    assert {path: (entry["what"], entry["error"], entry["tries"]) for path, entry in found.items()} == {
        "fine/1": ("callback raised", "ValueError: not mended", 1),
        "fine/2": ("callback raised", "ZeroDivisionError: division by zero", 1),
        "fine/3": ("callback raised", "KeyError: 'late'", 1),
        "dead/1": ("response ignored", "500 Internal Server Error", 2),
        "missing/1": ("response ignored", "404 Not Found", 1),
        "gone/1": ("errback raised", "RuntimeError: the errback, too", 1),
        "hangup/1": ("download failed", found["hangup/1"]["error"], 2),
        "hangup/2": ("errback raised", "RuntimeError: the errback, too", 2),
    }
    assert {path for path, entry in found.items() if not entry["is_retryable"]} == {"fine/2"}
    assert (found["fine/3"]["method"], found["fine/3"]["callback"]) == ("POST", "late")
    assert (found["gone/1"]["errback"], found["gone/1"]["status"]) == ("fail", 410)
    assert {entry["worker"] for entry in found.values()} == {"w1"}
    # The paths of the project are told as they are below its directory.
    assert re.search(r'^  File "shop/spiders.py", line \d+, in parse$', found["fine/1"]["traceback"], re.MULTILINE)
    assert found["dead/1"]["traceback"] == ""
    shown = machine.run(["vscrapy", "errors", str(taskid)])
    assert shown.stdout.startswith(f"task {taskid}: ways, finished; 8 requests failed for good\n")
    assert "   callback late raised: KeyError: 'late'\n   tried once, last on w1 (process 1) at " in shown.stdout
    assert "   tried 2 times, last on w1 (process 1) at " in shown.stdout
    assert "   cannot be put back: it could not be serialised\n" in shown.stdout
    assert "   ValueError: not mended\n" in shown.stdout
    lines = machine.run(["vscrapy", "errors", str(taskid), "--lines"]).stdout.splitlines()
    assert len(lines) == 9
    assert machine.run(["vscrapy", "stats", str(taskid)]).stdout.count("'httperror/response_ignored_count': 2") == 1


def test_retry_lets_a_running_task_do_it_again(machine: Machine, slow_site: Site, shop: Path, tmp_path: Path) -> None:
    """The page that failed is done once the callback is mended, and leaves the list."""
    machine.start_worker(1, "w1")
    mended = tmp_path / "mended"
    taskid = crawl(machine, shop, slow_site, "endless", "-a", f"mended={mended}")
    [entry] = wait_for(lambda: errors(machine, taskid))
    assert entry["url"].endswith("/trouble/fine/1")
    assert retry(machine, str(taskid)) == f"task {taskid}: 1 failed request put back\n"
    [entry] = wait_for(lambda: errors(machine, taskid), what="it fails again")
    assert entry["number"] == 2
    mended.touch()
    assert retry(machine, str(taskid), "--only", "2") == f"task {taskid}: 1 failed request put back\n"
    wait_for(lambda: machine.tasks.record(taskid).items == 1, what="the page has come")
    assert errors(machine, taskid) == []
    assert machine.tasks.record(taskid).state is TaskState.RUNNING
    assert retry(machine, str(taskid)) == f"task {taskid} has no failed requests\n"
    refused = machine.run(["vscrapy", "retry", str(taskid), "--only", "2"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"vscrapy: number 2 is not in the list; 'vscrapy errors {taskid}' shows the numbers\n"
    log = machine.run(["vscrapy", "stop", str(taskid)]) and machine.run(["vscrapy", "-c", str(taskid)])
    assert log.output.count(f"vscrapy: task {taskid}: 1 failed request put back") == 2


def test_retry_of_a_task_that_has_ended_runs_as_a_new_one(
    machine: Machine, site: Site, shop: Path, tmp_path: Path
) -> None:
    """Of an attached crawl: with its project, its arguments and its settings, and without its ``start()``."""
    machine.start_worker(2, "w1")
    mended = tmp_path / "mended"
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-a", f"mended={mended}", "-O", "out.jsonl"]
    sent = machine.run(command, shop)
    assert sent.exit_code == 0, sent.output
    numbers = {entry["url"].rpartition("/")[2]: str(entry["number"]) for entry in errors(machine, 1)}
    assert sorted(numbers) == ["1", "2", "3", "4", "5"]
    mended.touch()
    assert retry(machine, "1", "--only", f"{numbers['2']},{numbers['4']}") == (
        "task 1 has ended; its 2 failed requests run as task 2\n"
    )
    wait_for_end(machine, 2)
    assert sorted(item["page"] for item in items(machine, shop, 2)) == ["2", "4"]
    assert retry(machine, "1") == "task 1 has ended; its 3 failed requests run as task 3\n"
    wait_for_end(machine, 3)
    assert sorted(item["page"] for item in items(machine, shop, 3)) == ["1", "3", "5"]
    assert errors(machine, 1) == errors(machine, 2) == errors(machine, 3) == []
    visits = Counter(entry["path"] for entry in site.log() if entry["path"].startswith("/trouble/"))
    assert visits == {f"/trouble/fine/{number}": 2 for number in range(1, 6)}


def test_retry_begins_with_fresh_tries(machine: Machine, site: Site, shop: Path, tmp_path: Path) -> None:
    """A page that used up its retries is retried anew."""
    machine.start_worker(1, "w1")
    (tmp_path / "mended").touch()
    taskid = crawl(machine, shop, site, "heal", "-a", f"mended={tmp_path / 'mended'}")
    wait_for_end(machine, taskid)
    [entry] = errors(machine, taskid)
    assert (entry["what"], entry["status"], entry["tries"]) == ("response ignored", 500, 2)
    retry(machine, str(taskid))
    wait_for_end(machine, taskid + 1)
    # The third request fails as well, the fourth is a retry.
    assert items(machine, shop, taskid + 1) == [{"page": "1?fails=3", "tries": 2}]
    assert len([entry for entry in site.log() if entry["path"] == "/trouble/heal/1"]) == 4


def test_failures_are_exact_when_processes_are_killed(
    machine: Machine, slow_site: Site, shop: Path, tmp_path: Path
) -> None:
    """Each page fails once in the list, and comes once when all are put back, whoever is killed in between."""
    machine.start_worker(2, "w1")
    n_pages = 150
    mended = tmp_path / "mended"
    options = ["-a", f"last={n_pages}", "-a", f"mended={mended}", "-s", "CONCURRENT_REQUESTS=4"]
    taskid = crawl(machine, shop, slow_site, "pages", *options)

    def kill_one(after: int) -> None:
        wait_for(lambda: len(Failures(machine.store).list(taskid)[0]) > after, what=f"{after} pages have failed")
        found = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl task")]
        os.kill(random.choice(found), signal.SIGKILL)

    for after in (20, 60, 100):
        kill_one(after)
    wait_for_end(machine, taskid)
    paths = Counter(entry["url"].rpartition("/")[2] for entry in errors(machine, taskid))
    assert paths == {str(number): 1 for number in range(1, n_pages + 1)}
    mended.touch()
    retry(machine, str(taskid))
    wait_for(lambda: machine.tasks.record(taskid + 1).items > 20, what="the new task has items")
    found = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl task")]
    os.kill(random.choice(found), signal.SIGKILL)
    wait_for_end(machine, taskid + 1)
    assert Counter(item["page"] for item in items(machine, shop, taskid + 1)) == paths
    assert errors(machine, taskid) == errors(machine, taskid + 1) == []


def test_retry_that_was_cut_short_is_finished_by_the_next(machine: Machine, site: Site, shop: Path) -> None:
    """What was noted runs as the task that was noted, and then the rest."""
    machine.start_worker(1, "w1")
    taskid = crawl(machine, shop, site, "pages")
    wait_for_end(machine, taskid)
    noted = machine.tasks.new_id()
    found = Failures(machine.store).retry(taskid, [1, 2], new_taskid=noted)
    assert found is not None
    assert found.taskid == noted
    machine.store.client.zrem(keys.TASKS, noted)  # as agents do after a while
    said = retry(machine, str(taskid), "--only", "3").splitlines()
    assert said[0] == f"task {taskid} has ended; its 2 failed requests run as task {noted}"
    assert re.fullmatch(rf"task {taskid} has ended; its 1 failed request runs as task \d+", said[1])
    wait_for_end(machine, noted)
    wait_for_end(machine, machine.last_taskid())
    assert [entry["number"] for entry in errors(machine, taskid)] == [4, 5]
    assert len(errors(machine, noted)) == 2


def test_what_cannot_be_shown_or_put_back_is_one_line(machine: Machine, site: Site, shop: Path) -> None:
    """A project that has expired, an entry of somebody else, no such task."""
    machine.start_worker(1, "w1")
    taskid = crawl(machine, shop, site, "pages", "-a", "last=1")
    wait_for_end(machine, taskid)
    client = machine.store.client
    client.delete(*client.scan_iter(keys.blob("*")))
    refused = machine.run(["vscrapy", "retry", str(taskid)])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert re.fullmatch(
        rf"vscrapy: task {taskid} has ended, and its project is not on Redis any more: [^\n]+\n", refused.stderr
    )
    assert len(errors(machine, taskid)) == 1
    client.xadd(keys.failures(taskid), {"failure": b"x" * 40, "slot": "", "queue": "0", "payload": b"x" * 40}, "9-0")
    shown = machine.run(["vscrapy", "errors", str(taskid), "--lines"])
    assert shown.exit_code == 6
    assert len(shown.stdout.splitlines()) == 2
    assert re.fullmatch(r"vscrapy: number 9 is not shown: [^\n]+\n", shown.stderr)
    for command in ("errors", "retry"):
        gone = machine.run(["vscrapy", command, "99"])
        assert (gone.exit_code, gone.stdout) == (1, "")
        assert re.fullmatch(r"vscrapy: task 99 does not exist [^\n]+\n", gone.stderr)


def test_retry_puts_back_nothing_that_is_not_signed(machine: Machine, site: Site, shop: Path) -> None:
    """Neither of a task that has ended, nor does it become a request of the new one."""
    machine.start_worker(1, "w1")
    taskid = crawl(machine, shop, site, "pages", "-a", "last=1")
    wait_for_end(machine, taskid)
    client = machine.store.client
    client.xadd(keys.failures(taskid), {"failure": b"x" * 40, "slot": "", "queue": "0", "payload": b"x" * 40}, "9-0")
    refused = machine.run(["vscrapy", "retry", str(taskid)])
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert re.fullmatch(r"vscrapy: a request of 40 bytes is not signed [^\n]+\n", refused.stderr)
    assert machine.tasks.live_ids() == []
    assert retry(machine, str(taskid), "--only", "1").startswith(f"task {taskid} has ended; ")
    wait_for_end(machine, machine.last_taskid())
