"""What a task keeps on Redis has limits, and goes when it has ended; a held crawl loses nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Site, wait_for, write_project
from tests.integration.support import Process, request, running, submit
from vscrapy import keys
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store import streams as streams_module
from vscrapy.store.base import Store
from vscrapy.store.frontier import Result, leave
from vscrapy.store.streams import Cursors, Streams
from vscrapy.store.tasks import Cleaned, Tasks
from vscrapy.store.workers import Workers
from vscrapy.wire import LogLine

pytest_plugins = ["tests.integration.machine"]

#: Small tasks that come and go.
N_TASKS: Final = 1000
SHOP: Final = """
    import random

    from scrapy import Request, Spider

    class Pages(Spider):
        name = "pages"

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(120)]

        def parse(self, response):
            yield {"url": response.url, "filling": random.randbytes(500).hex()}
"""


def end(store: Store, process: Process) -> None:
    """End the task of its only process, and take it off the list of the live ones."""
    tasks = Tasks(store)
    tasks.stop(process.taskid, reason=Reason.FINISHED, mode=StopMode.GRACEFUL)
    leave(store, process.taskid, process.name, how="left")
    Workers(store).release(process.taskid, process.name, process.worker)
    tasks.archive(tasks.record(process.taskid))


def newest(store: Store, taskid: int) -> str:
    """The cursor of the last items."""
    return Streams(store).read(taskid, Cursors(log="$"), with_items=True, block_ms=1)[1][-1].cursor


# --- items that nobody fetches


def test_task_gives_no_lease_while_too_many_items_wait(store: Store) -> None:
    """What was leased is done, and when items have been taken, it goes on; nothing is lost."""
    process = running(store, submit(store, items_limit=100))
    process.feed(request("a"), request("b"), request("c"))
    [first] = process.commit(wanted=1).leases
    reply = process.commit(Result("done", first.id, items=[b"x" * 100]), wanted=1)
    assert (reply.is_held, reply.leases, reply.queued) == (True, [], 2)
    record = Tasks(store).record(process.taskid)
    assert (record.is_held, record.is_growing, record.items_bytes) == (True, False, 100)
    Streams(store).fetched_items(process.taskid, newest(store, process.taskid), is_drop=False)
    assert process.commit(wanted=1).is_held
    Streams(store).fetched_items(process.taskid, newest(store, process.taskid), is_drop=True)
    reply = process.commit(wanted=2)
    assert (reply.is_held, len(reply.leases)) == (False, 2)
    assert Tasks(store).record(process.taskid).items_bytes == 0


def test_one_process_says_that_the_crawl_is_held(store: Store) -> None:
    """Whichever learns of it first, each time; also when the one that said it before is gone."""
    one = running(store, submit(store, items_limit=100))
    one.feed(*(request(str(n)) for n in range(40)))
    other = running(store, one.taskid)
    [lease] = other.commit(wanted=1).leases
    assert other.commit(Result("done", lease.id, items=[b"x" * 100])).tells_held
    assert (one.commit().is_held, one.commit().tells_held, other.commit().tells_held) == (True, False, True)
    other.leave(how="crashed")
    assert not one.commit().tells_held
    Streams(store).fetched_items(one.taskid, newest(store, one.taskid), is_drop=True)
    [lease] = one.commit(wanted=1).leases
    assert one.commit(Result("done", lease.id, items=[b"x" * 100])).tells_held


def test_held_crawl_goes_on_when_its_items_are_taken_and_has_each_once(
    machine: Machine, slow_site: Site, tmp_path: Path
) -> None:
    """The log and -l say why it is held, and what to do; done as they say, it comes to its end."""
    project = write_project(tmp_path / "project", SHOP)
    machine.start_worker(slots=2)
    command = ["vscrapy", "crawl", "pages", "-a", f"base={slow_site.base}", "--detach"]
    limits = ["-s", "VSCRAPY_ITEMS_LIMIT=20000", "-s", "CONCURRENT_REQUESTS=4"]
    assert machine.run([*command, *limits], project).exit_code == 0
    taskid = machine.last_taskid()
    n_times = 0

    def is_over() -> bool:
        nonlocal n_times
        record = machine.tasks.record(taskid)
        if record.is_held and not record.leased:
            n_times += 1
            if n_times == 1:
                assert "held: 0 MiB of items wait to be fetched" in re.sub(
                    r"\s+", " ", machine.run(["vscrapy", "-l"], env={"COLUMNS": "400"}).stdout
                )
            taken = machine.run(["vscrapy", "items", str(taskid), "-o", "items.jsonl", "--take"], project)
            assert taken.exit_code == 0, taken.stderr
        return record.state is TaskState.FINISHED

    wait_for(is_over, 60, what=lambda: str(machine.tasks.record(taskid)))
    assert n_times >= 2
    assert machine.tasks.record(taskid).reason == Reason.FINISHED
    machine.run(["vscrapy", "items", str(taskid), "-o", "items.jsonl", "--take"], project)
    urls = [json.loads(line)["url"] for line in (project / "items.jsonl").read_text().splitlines()]
    assert len(urls) == len(set(urls)) == 120
    log = "".join(line.text for entry in Streams(machine.store).last_lines(taskid, 10_000) for line in entry.lines)
    assert "VSCRAPY_ITEMS_LIMIT" in log
    assert f"vscrapy items {taskid} -o FILE --take" in log


# --- the log


def test_log_is_cut_by_bytes_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, long lines do not fill Redis; the newest stay, and the gap is told by their numbers."""
    monkeypatch.setattr(streams_module, "LOG_KEEP_BYTES", 10_000)
    taskid, streams = submit(store, log_keep=1000), Streams(store)
    for number in range(20):
        streams.append_log(taskid, [LogLine("out", f"{number} {'x' * 3000}\n", 1.0)])
    entries, _ = streams.read(taskid, Cursors(), with_items=False, block_ms=1)
    assert [entry.first for entry in entries] == [17, 18, 19]
    streams.append_log(taskid, [LogLine("out", "x" * 100_000, 1.0)])
    entries, _ = streams.read(taskid, Cursors(), with_items=False, block_ms=1)
    assert [entry.first for entry in entries] == [20]


# --- what has ended


def test_clean_removes_what_has_ended_and_keeps_items_that_nobody_fetched(store: Store) -> None:
    """By name, it goes whatever it has; what lives is not touched."""
    tasks = Tasks(store)
    empty, full, live = (running(store, submit(store)) for _ in range(3))
    full.commit(Result("feed", items=[b"batch"]))
    for process in (empty, full):
        end(store, process)
    assert tasks.clean(empty.taskid, is_forced=False) is Cleaned.REMOVED
    assert tasks.clean(empty.taskid, is_forced=False) is Cleaned.GONE
    assert tasks.clean(full.taskid, is_forced=False) is Cleaned.ITEMS
    assert tasks.clean(live.taskid, is_forced=True) is Cleaned.LIVE
    assert tasks.finished_ids(10) == [full.taskid]
    Streams(store).fetched_items(full.taskid, newest(store, full.taskid), is_drop=False)
    assert tasks.clean(full.taskid, is_forced=False) is Cleaned.REMOVED
    assert {int(re.findall(rb"\d+", key)[0]) for key in store.client.keys("{vs:*")} == {live.taskid}


def test_clean_waits_for_a_sender_that_may_be_at_work(store: Store) -> None:
    """Until it has said that it is through, or is named."""
    tasks = Tasks(store)
    one, other = (running(store, submit(store, sender_timeout_ms=10_000)) for _ in range(2))
    for process in (one, other):
        end(store, process)
        assert tasks.clean(process.taskid, is_forced=False) is Cleaned.HOME
    tasks.keep_stats(one.taskid, "{}")
    assert tasks.clean(one.taskid, is_forced=False) is Cleaned.REMOVED
    assert tasks.clean(other.taskid, is_forced=True) is Cleaned.REMOVED


def test_a_thousand_small_tasks_leave_nothing_but_what_expires(store: Store) -> None:
    """And after a clean, not even that: what is left are a counter and empty registries."""
    for _ in range(N_TASKS):
        process = running(store, submit(store))
        [lease] = process.feed(request("a"), wanted=1).leases
        process.commit(Result("done", lease.id), Result("started"))
        Streams(store).append_log(process.taskid, [LogLine("out", "a line\n", 1.0)])
        end(store, process)
    tasks = Tasks(store)
    assert len(tasks.finished_ids(2 * N_TASKS)) == N_TASKS
    assert all(store.client.ttl(key) > 0 for key in store.client.keys("{vs:*"))
    assert all(tasks.clean(taskid, is_forced=False) is Cleaned.REMOVED for taskid in tasks.finished_ids(2 * N_TASKS))
    assert {key.decode() for key in store.client.keys("*")} <= {keys.TASKID, keys.WORKERS, keys.PULSE}


def test_clean_says_what_it_did_and_what_it_kept(machine: Machine, site: Site, tmp_path: Path) -> None:
    """As a user sees it."""
    project = write_project(tmp_path / "project", SHOP)
    machine.start_worker(slots=1)
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}"]
    assert machine.run([*command, "-O", "items.jsonl"], project).exit_code == 0
    assert machine.run([*command, "--detach"], project).exit_code == 0
    wait_for(lambda: machine.tasks.record(2).ended_ms)
    wait_for(lambda: set(machine.tasks.finished_ids(10)) == {1, 2})
    cleaned = machine.run(["vscrapy", "clean"], project)
    assert cleaned.exit_code == 0
    assert cleaned.stdout.splitlines() == [
        "task 2 has items that nobody has fetched ('vscrapy items 2 -o FILE'); 'vscrapy clean 2' removes it",
        "1 task removed",
    ]
    again = machine.run(["vscrapy", "clean", "1,2"], project)
    assert again.exit_code == 1
    assert again.stdout.splitlines() == ["task 1 is not there (any more)", "1 task removed"]
    assert machine.run(["vscrapy", "clean"], project).stdout == "0 tasks removed\n"
