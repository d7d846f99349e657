"""
Items a second into a JSON-lines file at the sender: many small ones from few pages, and the sender's part alone.

For its part alone, the items wait on Redis before it begins: a task without a sender has left them there, or a
stand-in for a crawl process puts them there faster than the sender can take them. Run it by itself with
``python -m benchmarks.items``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.lines import COMMAND_S, LOG_FORMAT, Heard, listen, program
from benchmarks.speed import worker
from benchmarks.spread import spread
from tests.integration.support import Process
from vscrapy.model import Endpoint
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.frontier import Result
from vscrapy.store.tasks import Tasks
from vscrapy.testing import server
from vscrapy.wire import encode_items, open_job, pickle_item

#: Pages, and items of each.
PAGES: Final = 20
ITEMS_A_PAGE: Final = 5000
RUNS: Final = 3
#: Items of one batch and of one commit, where a crawl process is stood in for.
BATCH: Final = 1000
#: Time between two looks (seconds).
LOOK_S: Final = 0.02
HEAD: Final = """\
| | items/s |
| --- | --- |"""

_SPIDER: Final = """\
from scrapy import Spider


class Many(Spider):
    name = "many"

    def __init__(self, pages=1, items=1, **others):
        super().__init__(**others)
        self.start_urls = [f"data:,{number}" for number in range(int(pages))]
        self.n_items = int(items)

    def parse(self, response):
        first = int(response.text) * self.n_items
        for number in range(first, first + self.n_items):
            yield {"number": number, "title": "A Light in the Attic", "price": 51.77, "in_stock": True}
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many items a second came into the file, in one run."""

    way: str
    n_items: int
    seconds: float

    @property
    def items_a_s(self) -> float:
        """Items a second."""
        return self.n_items / self.seconds


def write(directory: Path) -> Path:
    """Write the project."""
    package = directory / "much"
    package.mkdir(parents=True)
    (directory / "scrapy.cfg").write_text("[settings]\ndefault = much.settings\n")
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(
        f'SPIDER_MODULES = ["much.spiders"]\nLOG_LEVEL = "INFO"\nLOG_FORMAT = "{LOG_FORMAT}"\n'
    )
    (package / "spiders.py").write_text(_SPIDER)
    return directory


def check(items: Path, n_items: int) -> None:
    """
    See that each item is there.

    Raises:
        RuntimeError: One is not.
    """
    found = len(set(items.read_text().splitlines()))
    if found != n_items:
        raise RuntimeError(f"{items} has {found} different items of {n_items}")


def span_s(heard: Heard, *, is_remote: bool) -> float:
    """
    From the moment when the spider opened, where it crawls, to the end of the feeds, at the sender (seconds).

    Raises:
        RuntimeError: It did not say so.
    """
    opened = [said_s for _, said_s, words in heard.logged(is_remote=is_remote) if words == "Spider opened"]
    closed = [said_s for _, said_s, words in heard.logged(is_remote=False) if words.startswith("Spider closed")]
    if not opened or not closed:
        raise RuntimeError(f"the crawl did not say when it began and ended:\n{heard.text}")
    return closed[-1] - opened[0]


class _Bench:
    """What the ways have in common."""

    def __init__(self, directory: Path, endpoint: Endpoint, n_items: int, pages: int) -> None:
        self.project = write(directory / "project")
        self.home = directory / "home"
        self.home.mkdir(mode=0o700)
        self.env = {"VSCRAPY_HOME": str(self.home)}
        self.items = directory / "items.jsonl"
        self.endpoint = endpoint
        self.pages = pages
        self.n_items = n_items * pages
        self._spider = ["crawl", "many", "-a", f"pages={pages}", "-a", f"items={n_items}"]
        self._feed = ["-O", f"{self.items}:jsonlines"]

    def crawl(self, *options: str) -> float:
        """Crawl; with no options, as Scrapy does."""
        self.items.unlink(missing_ok=True)
        redis = ["--redis", self.endpoint.url] if options else []
        args = [program("vscrapy" if options else "scrapy"), *self._spider, *self._feed, *redis, *options]
        heard = listen(args, cwd=self.project, env=self.env)
        check(self.items, self.n_items)
        return span_s(heard, is_remote=bool(options))

    def fetch(self) -> float:
        """Crawl without a sender, and fetch the items when all are there: with the start of the command."""
        args = [program("vscrapy"), *self._spider, "--redis", self.endpoint.url, "--detach"]
        env = os.environ | self.env
        done = subprocess.run(
            args, cwd=self.project, env=env, capture_output=True, text=True, check=False, timeout=COMMAND_S
        )
        found = re.search(r"task (\d+)", done.stdout)
        if found is None:
            raise RuntimeError(f"{args} does not say which task it made:\n{done.stdout}{done.stderr}")
        until(self.endpoint, lambda tasks: tasks.record(int(found[1])).state is TaskState.FINISHED)
        self.items.unlink(missing_ok=True)
        fetch = [program("vscrapy"), "items", found[1], "-O", str(self.items), "--redis", self.endpoint.url, "--take"]
        heard = listen(fetch, cwd=self.project, env=self.env)
        check(self.items, self.n_items)
        return heard.wall_s

    def take(self) -> float:
        """An attached sender whose items come faster than it can take them: from the first item to its end."""
        self.items.unlink(missing_ok=True)
        with server() as endpoint, tempfile.TemporaryFile() as log:  # on which no worker looks for tasks
            args = [program("vscrapy"), *self._spider, *self._feed, "--redis", endpoint.url]
            sender = subprocess.Popen(args, cwd=self.project, env=os.environ | self.env, stdout=log, stderr=log)
            try:
                until(endpoint, lambda tasks: bool(tasks.records(tasks.live_ids())) or sender.poll() is not None)
                begin_s = stand_in(endpoint, self.n_items)
                exit_code = sender.wait(COMMAND_S)
                seconds = time.monotonic() - begin_s
            finally:
                sender.kill()
                sender.wait()
            log.seek(0)
            if exit_code:
                raise RuntimeError(f"{args} ended with {exit_code}:\n{log.read().decode(errors='replace')}")
        check(self.items, self.n_items)
        return seconds


def until(endpoint: Endpoint, condition: Callable[[Tasks], bool]) -> None:
    """
    Wait until something can be seen of the tasks.

    Raises:
        RuntimeError: It does not come.
    """
    store, deadline_s = Store(endpoint, name="vscrapy-bench"), time.monotonic() + COMMAND_S
    try:
        while not condition(Tasks(store)):
            if time.monotonic() > deadline_s:
                raise RuntimeError("the task does not come to where it should")
            time.sleep(LOOK_S)
    finally:
        store.close()


def stand_in(endpoint: Endpoint, n_items: int) -> float:
    """
    Do a server's only task as a crawl process would, with items that are made before; returns when the first came.

    Raises:
        RuntimeError: There is no such task.
    """
    store = Store(endpoint, name="vscrapy-bench")
    try:
        tasks = Tasks(store)
        [taskid] = tasks.records(tasks.live_ids())
        _, key = open_job(tasks.job(taskid), endpoint.secret, taskid)
        pickled = [
            pickle_item({"number": number, "title": "A Light in the Attic", "price": 51.77, "in_stock": True})
            for number in range(n_items)
        ]
        batches = [pickled[at : at + BATCH] for at in range(0, len(pickled), BATCH)]
        process = Process(store, taskid, seal=partial(encode_items, key=key))
        if not process.claim():
            raise RuntimeError(f"task {taskid} takes no process")
        process.join()
        begin_s = time.monotonic()
        for batch in batches:
            process.commit(Result("feed", items=batch))
        process.commit(Result("started"))
        tasks.stop(taskid, reason=Reason.FINISHED, mode=StopMode.GRACEFUL)
        process.leave()
        return begin_s
    finally:
        store.close()


def measure(
    directory: Path,
    *,
    pages: int = PAGES,
    items: int = ITEMS_A_PAGE,
    runs: int = RUNS,
    processes: Sequence[int] = (1, 2),
) -> list[Rate]:
    """Bring so many items home in each way in turn, so many times, after a round that only warms up."""
    found = []
    with ExitStack() as stack:
        bench = _Bench(directory, stack.enter_context(server()), items, pages)
        stack.enter_context(worker(bench.endpoint.url, bench.home))
        ways: dict[str, Callable[[], float]] = {"`scrapy crawl`": bench.crawl}
        for number in processes:
            ways[_name(number)] = lambda number=number: bench.crawl("--workers", str(number))  # type: ignore[misc]
        ways["`vscrapy items ID -O FILE`, with its start"] = bench.fetch
        ways["the attached sender alone, with its end"] = bench.take
        for number in range(runs + 1):
            for way, run in ways.items():
                rate = Rate(way, bench.n_items, run())
                if number:
                    found.append(rate)
                print(f"{number} {way}: {rate.items_a_s:,.0f} items/s", file=sys.stderr)
    return found


def _name(processes: int) -> str:
    return f"`vscrapy crawl`, {processes} crawl process{'es' * (processes > 1)}"


def table(rates: Sequence[Rate]) -> str:
    """What was measured, as Markdown."""
    rows = [HEAD]
    for way in dict.fromkeys(rate.way for rate in rates):
        rows.append(f"| {way} | {spread([rate.items_a_s for rate in rates if rate.way == way], 0)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.items", description=__doc__)
    parser.add_argument("--pages", type=int, default=PAGES, help="pages of a crawl")
    parser.add_argument("--items", type=int, default=ITEMS_A_PAGE, help="items of a page")
    parser.add_argument("--runs", type=int, default=RUNS, help="rounds; each has every way once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        print(table(measure(Path(directory), pages=options.pages, items=options.items, runs=options.runs)))


if __name__ == "__main__":
    main()
