"""
Memory: of the server for each request seen and each that waits, and of the processes on a worker.

Requests come in through real commits. Of a process, PSS counts a page that several share in parts, RSS as a whole.
Run it by itself with ``python -m benchmarks.memory``; ten million seen requests take minutes: ``--seen 1000000
10000000``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from scrapy import Request, Spider

from benchmarks import load
from benchmarks.lines import program
from benchmarks.speed import worker
from tests.integration.support import Process, running, submit
from vscrapy import keys
from vscrapy.store.base import Store
from vscrapy.store.frontier import NewRequest
from vscrapy.testing import server
from vscrapy.wire import encode_request, fingerprint_place

#: Requests of one commit.
BATCH: Final = 5000
#: Seen requests that only warm up.
WARM: Final = 100
#: Seen requests, and those that wait.
SEEN: Final = (1_000_000,)
QUEUED: Final = 200_000
#: Pages of the crawl in which the processes are looked at.
PAGES: Final = 5000
#: Time between two looks at a process (seconds).
LOOK_S: Final = 0.1
#: Looks at a process that rests.
N_LOOKS: Final = 30
#: Time for a worker's template to be there (seconds).
TEMPLATE_S: Final = 60.0
#: Time for connections to be closed (seconds).
CLOSE_S: Final = 10.0
#: Time for one crawl (seconds).
CRAWL_S: Final = 300.0
MB: Final = 1_000_000
#: Parts of the server's memory that are no data: buffers of clients and of its log.
BUFFERS: Final = ("mem_clients_normal", "mem_aof_buffer")
HEAD: Final = """\
| | bytes | of that, the keys themselves (`MEMORY USAGE`) |
| --- | --- | --- |"""
PROCESS_HEAD: Final = """\
| | PSS (MB) | RSS (MB) | at most: PSS | RSS |
| --- | --- | --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """What one kind of thing takes of the server's memory."""

    what: str
    n: int
    #: More memory used with all of them than without (bytes).
    used: int
    #: The sum of ``MEMORY USAGE`` over their keys (bytes).
    keys: int
    #: Length of all their URLs (bytes).
    urls: int = 0


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What one process takes: in the middle of the time that it was looked at, and at most (bytes)."""

    what: str
    pss: int
    rss: int
    most_pss: int
    most_rss: int


class Pages(Spider):
    """What has the callback that the requests name."""

    name = "pages"

    def parse(self, response: Any) -> None:
        """Never called."""


def url(number: int) -> str:
    """As a shop's pages may be called."""
    return f"https://shop.example/catalogue/books/title-{number}/index.html"


def seen_requests(first: int, n: int) -> Iterator[NewRequest]:
    """Requests that are done, and count as seen; nothing waits for them."""
    for number in range(first, first + n):
        # What Scrapy's fingerprints are: SHA-1.
        place = fingerprint_place(hashlib.sha1(number.to_bytes(8, "big"), usedforsecurity=False).digest())
        yield NewRequest.claim("claim", place).settled


def waiting_requests(n: int) -> Iterator[NewRequest]:
    """Requests that wait, as ``Request(url, callback=self.parse)`` travels, without the filter."""
    spider, key = Pages(), b"k" * 32
    for number in range(n):
        request = Request(url(number), callback=spider.parse)
        yield NewRequest("shop.example", "0", encode_request(request, spider, key))


def feed(process: Process, requests: Iterable[NewRequest]) -> None:
    """Put them in through commits."""
    left = iter(requests)
    while batch := list(islice(left, BATCH)):
        process.feed(*batch)


def used(store: Store) -> int:
    """
    Memory that the server's data takes (bytes).

    Raises:
        RuntimeError: Other clients than this one stay connected.
    """
    # What a connection was sent in one piece stays in its buffer for some seconds, and is counted late.
    store.client.connection_pool.disconnect()
    deadline_s = time.monotonic() + CLOSE_S
    while len(store.client.client_list()) > 1:
        if time.monotonic() > deadline_s:
            raise RuntimeError("the server has clients whose buffers count as its data")
        time.sleep(LOOK_S)
    memory: dict[str, int] = store.client.info("memory")
    return memory["used_memory"] - sum(memory[name] for name in BUFFERS)


def usage(store: Store, pattern: str) -> int:
    """The sum of ``MEMORY USAGE`` over all keys of a pattern (bytes)."""
    total, names = 0, list(store.client.scan_iter(match=pattern, count=1000))
    for at in range(0, len(names), 1000):
        pipeline = store.client.pipeline(transaction=False)
        for name in names[at : at + 1000]:
            pipeline.memory_usage(name, samples=0)
        total += sum(pipeline.execute())
    return total


def measure_server(*, seen: Sequence[int], queued: int) -> list[ServerMemory]:
    """Put requests in, and see what the server takes for them; *seen* grows from one number to the next."""
    found = []
    with server() as endpoint:
        store = Store(endpoint, name="vscrapy-bench")
        try:
            process = running(store, submit(store))
            feed(process, seen_requests(0, WARM))  # the scripts are there
            prefix, done, before = re.sub(r"([\[\]?*])", r"\\\1", keys.prefix(process.taskid)), WARM, used(store)
            for number in sorted(seen):
                feed(process, seen_requests(done, number - done))
                done = number
                in_keys = usage(store, f"{prefix}seen:*") + usage(store, f"{prefix}wide:*")
                found.append(ServerMemory("seen", number, used(store) - before, in_keys))
                print(f"{found[-1]}", file=sys.stderr)
            if queued:
                process = running(store, submit(store))
                prefix, before = keys.prefix(process.taskid), used(store)
                feed(process, waiting_requests(queued))
                urls = sum(len(url(number)) for number in range(queued))
                in_keys = usage(store, f"{prefix}queue:*")
                found.append(ServerMemory("waiting", queued, used(store) - before, in_keys, urls))
                print(f"{found[-1]}", file=sys.stderr)
        finally:
            store.close()
    return found


def rollup(text: str) -> tuple[int, int]:
    """PSS and RSS of a process (bytes), from its ``smaps_rollup``."""
    sizes = dict(re.findall(r"^(Pss|Rss): +(\d+) kB$", text, re.MULTILINE))
    return int(sizes["Pss"]) * 1024, int(sizes["Rss"]) * 1024


def look(pid: int) -> tuple[int, int] | None:
    """PSS and RSS of a process now (bytes); None: it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return rollup(text) if "Pss:" in text else None


def child(pid: int, title: str) -> int | None:
    """The process below *pid* whose command line begins so; None: there is none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            words = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        number = int(stat.parent.name)
        if parent == pid and words.startswith(title.encode()):
            return number
        if parent == pid and (found := child(number, title)) is not None:
            return found
    return None


def summary(what: str, looks: Sequence[tuple[int, int]]) -> ProcessMemory:
    """
    What was seen of one process.

    Raises:
        ValueError: Nothing was.
    """
    if not looks:
        raise ValueError(f"nothing was seen of {what}")
    pss, rss = looks[len(looks) // 2]
    return ProcessMemory(what, pss, rss, max(pss for pss, _ in looks), max(rss for _, rss in looks))


def watch(
    args: Sequence[str], project: Path, env: dict[str, str], pid: Callable[[int], int | None]
) -> list[tuple[int, int]]:
    """
    Run a crawl, and look at one process all the while.

    Args:
        pid: Gives its id, or None as long as there is none, from that of the command.

    Raises:
        RuntimeError: The crawl failed.
    """
    looks = []
    deadline_s = time.monotonic() + CRAWL_S
    with tempfile.TemporaryFile() as log:
        crawl = subprocess.Popen(args, cwd=project, env=os.environ | env, stdout=log, stderr=log)
        found = None
        while crawl.poll() is None:
            if time.monotonic() > deadline_s:
                crawl.kill()
            found = found or pid(crawl.pid)
            if found and (size := look(found)):
                looks.append(size)
            time.sleep(LOOK_S)
        log.seek(0)
        if crawl.returncode:
            raise RuntimeError(f"{args} ended with {crawl.returncode}:\n{log.read().decode(errors='replace')}")
    return looks


def rest(pid: int) -> list[tuple[int, int]]:
    """Look at a process that has nothing to do, for a while."""
    looks: list[tuple[int, int]] = []
    for _ in range(N_LOOKS):
        time.sleep(LOOK_S)
        if size := look(pid):
            looks.append(size)
    return looks


def measure_processes(directory: Path, *, pages: int) -> list[ProcessMemory]:
    """Look at a worker that rests, and at the same crawl with vscrapy and with ``scrapy crawl``."""
    project, home = load.write(directory / "project"), directory / "home"
    home.mkdir(mode=0o700)
    options = ["crawl", "pages", "-s", f"PAGES={pages}", "-O", f"{directory / 'items.jsonl'}:jsonlines"]
    found = []
    with server() as endpoint, worker(endpoint.url, home, slots=1) as agent:
        deadline_s = time.monotonic() + TEMPLATE_S
        while (template := child(agent.pid, "vscrapy-template")) is None:
            if time.monotonic() > deadline_s:
                raise RuntimeError("the worker has no template")
            time.sleep(LOOK_S)
        found.append(summary("agent, idle", rest(agent.pid)))
        found.append(summary("template, idle", rest(template)))
        vscrapy = [program("vscrapy"), *options, "--redis", endpoint.url]
        env = {"VSCRAPY_HOME": str(home)}
        found.append(
            summary(
                "crawl process, in the crawl",
                watch(vscrapy, project, env, lambda _: child(template, "vscrapy-crawl")),
            )
        )
        found.append(summary("agent, after the crawl", rest(agent.pid)))
        found.append(
            summary("`vscrapy crawl` (the sender), in the crawl", watch(vscrapy, project, env, lambda pid: pid))
        )
    scrapy = watch([program("scrapy"), *options], project, {}, lambda pid: pid)
    found.append(summary("`scrapy crawl`, in the crawl", scrapy))
    for row in found:
        print(row, file=sys.stderr)
    return found


def measure(
    directory: Path, *, seen: Sequence[int] = SEEN, queued: int = QUEUED, pages: int = PAGES
) -> list[ServerMemory | ProcessMemory]:
    """All of it."""
    return [*measure_server(seen=seen, queued=queued), *measure_processes(directory, pages=pages)]


def table(rows: Sequence[ServerMemory | ProcessMemory]) -> str:
    """What was measured, as Markdown."""
    lines = [HEAD]
    for row in rows:
        if isinstance(row, ServerMemory):
            more = " and its URL" if row.urls else ""
            per = [f"{(size - row.urls) / row.n:.1f}{more}" for size in (row.used, row.keys)]
            lines.append(f"| a request {row.what}, of {row.n:,} | {' | '.join(per)} |")
    lines += ["", PROCESS_HEAD]
    for row in rows:
        if isinstance(row, ProcessMemory):
            sizes = (row.pss, row.rss, row.most_pss, row.most_rss)
            lines.append(f"| {row.what} | {' | '.join(f'{size / MB:.1f}' for size in sizes)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--seen", type=int, nargs="*", default=SEEN, metavar="N", help="requests seen")
    parser.add_argument("--queued", type=int, default=QUEUED, metavar="N", help="requests that wait")
    parser.add_argument("--pages", type=int, default=PAGES, help="pages of the crawl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        print(table(measure(Path(directory), seen=options.seen, queued=options.queued, pages=options.pages)))


if __name__ == "__main__":
    main()
