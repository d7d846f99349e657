"""
Pages a second, against ``scrapy crawl``: one crawl process and two, with Redis at several round trips.

Each crawl follows one of ``scrapy crawl``, so a ratio is of two that the machine did at nearly the same time: a
machine that is not alone on its host may be half as fast a minute later.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import load
from benchmarks.spread import spread
from benchmarks.way import Sample, crawl, named, reached
from vscrapy.testing import server

#: Time for a worker to be there (seconds).
READY_S: Final = 30.0
#: Round trips to Redis (ms); 0: its unix socket, and no proxy.
ROUND_TRIPS_MS: Final = (0, 1, 5, 20)
HEAD: Final = """\
| | pages/s | of `scrapy crawl` | start to exit (s) | of `scrapy crawl`: whole tool |
| --- | --- | --- | --- | --- |"""


@contextmanager
def worker(redis: str, home: Path, *, slots: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready."""
    log, command = home / "worker.log", [str(Path(sys.executable).parent / "vscrapy"), "worker"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--redis", redis, "--slots", str(slots)],
            stdout=output,
            stderr=output,
            env=os.environ | {"VSCRAPY_HOME": str(home)},
        )
    try:
        deadline_s = time.monotonic() + READY_S
        while b" ready: " not in log.read_bytes():
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise RuntimeError(f"the worker did not begin:\n{log.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, slots=True)
class Pair:
    """A crawl, and the one of ``scrapy crawl`` right before it."""

    scrapy: Sample
    own: Sample

    @property
    def crawled(self) -> float:
        """How many times as fast it was while the spider was open."""
        return self.own.pages_a_s / self.scrapy.pages_a_s

    @property
    def whole(self) -> float:
        """How many times as fast the whole tool was, from its start to its exit."""
        return self.scrapy.wall_s / self.own.wall_s


def line(name: str, pairs: Sequence[Pair]) -> str:
    """A row of the table."""
    pages_a_s = median(pair.own.pages_a_s for pair in pairs)
    wall_s = median(pair.own.wall_s for pair in pairs)
    crawled, whole = spread([pair.crawled for pair in pairs]), spread([pair.whole for pair in pairs])
    return f"| {name} | {pages_a_s:.0f} | {crawled} | {wall_s:.2f} | {whole} |"


def measure(directory: Path, *, pages: int, runs: int, round_trips_ms: Sequence[int]) -> dict[str, list[Pair]]:
    """Crawl in each way in turn, so many times; what came of each."""
    project = load.write(directory / "project")
    pairs: dict[str, list[Pair]] = defaultdict(list)
    with ExitStack() as stack:
        endpoint = stack.enter_context(server())
        ways: dict[str, tuple[list[str], dict[str, str]]] = {}
        for round_trip_ms in round_trips_ms:
            url, home = stack.enter_context(reached(endpoint, round_trip_ms)), directory / f"home-{round_trip_ms}"
            home.mkdir(mode=0o700)
            for processes in (1, 2) if round_trip_ms else (1, 2, 4):
                name = named(processes, round_trip_ms)
                ways[name] = (["vscrapy", "--redis", url, "--workers", str(processes)], {"VSCRAPY_HOME": str(home)})
        for number in range(runs + 1):
            for name, (command, env) in ways.items():
                items = directory / "items.jsonl"
                scrapy = crawl(["scrapy"], project, pages=pages, env={}, items=items)
                with worker(command[2], Path(env["VSCRAPY_HOME"]), slots=4):
                    own = crawl(command, project, pages=pages, env=env, items=items)
                if number:  # the first round only warms up
                    pairs[name].append(Pair(scrapy, own))
                told = ", ".join(f"{one.pages_a_s:.0f} pages/s and {one.wall_s:.2f} s" for one in (own, scrapy))
                print(f"{number} {name} and scrapy crawl: {told}", file=sys.stderr)
    return pairs


def table(pairs: dict[str, list[Pair]]) -> str:
    """What was measured, as Markdown."""
    scrapy = [Pair(pair.scrapy, pair.scrapy) for found in pairs.values() for pair in found]
    return "\n".join([HEAD, line("scrapy crawl", scrapy), *(line(name, found) for name, found in pairs.items())])
