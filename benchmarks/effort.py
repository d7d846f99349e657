"""
What a page costs: CPU time of the crawling processes, and of the server.

A machine that shares its host may be half as fast a moment later, and pages a second tell as much of it as of the
tool. So a fixed loop runs in the callback of each page, and the rest of the processes' CPU time, of all threads, is
told in units of it: both are at the mercy of the same moments.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import load, machine
from benchmarks.simulated import main_thread_s
from benchmarks.speed import worker
from benchmarks.spread import spread
from benchmarks.way import crawl, named, reached
from vscrapy.store.base import Store
from vscrapy.testing import server

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Crawl processes, and round trips to Redis (ms).
CASES: Final = ((1, 0), (1, 20), (2, 0))
SCRAPY: Final = "`scrapy crawl`"
HEAD: Final = """\
| | crawling: CPU of a page, in loops | of `scrapy crawl` | server CPU a page (µs) |
| --- | --- | --- | --- |"""
_SPIDER: Final = """
    import json
    import time

    from scrapy import signals

    from load.spiders import Pages

    N_TURNS = 10_000


    def loop():
        number = 0
        for turn in range(N_TURNS):
            number ^= turn
        return number


    class Measured(Pages):
        name = "measured"
        n_pages, loop_s, begin_s = 0, 0.0, 0.0

        @classmethod
        def from_crawler(cls, crawler, *args, **kwargs):
            spider = super().from_crawler(crawler, *args, **kwargs)
            crawler.signals.connect(spider.begin, signals.spider_opened)
            return spider

        def begin(self):
            self.begin_s = time.process_time()

        def parse(self, response):
            begin_s = time.thread_time()
            loop()
            self.loop_s += time.thread_time() - begin_s
            self.n_pages += 1
            yield from super().parse(response)

        def closed(self, reason):
            found = {"pages": self.n_pages, "loop_s": self.loop_s, "all_s": time.process_time() - self.begin_s}
            with open(self.out, "a") as file:
                file.write(json.dumps(found) + "\\n")
    """


@dataclass(frozen=True, slots=True)
class Effort:
    """What one crawl took."""

    way: str
    #: CPU time of a page, without the loop, in units of the loop.
    loops: float
    #: Server CPU a page (µs); None: there is no server.
    server_us: float | None


def write(directory: Path) -> Path:
    """Write the project, with the spider that measures itself."""
    project = load.write(directory)
    (project / "load" / "measured.py").write_text(textwrap.dedent(_SPIDER).lstrip("\n"))
    return project


def _crawl(way: str, command: Sequence[str], project: Path, *, pages: int, env: Mapping[str, str]) -> float:
    """Crawl, and tell what the processes took for a page, in loops."""
    out = project.parent / "efforts.jsonl"
    out.unlink(missing_ok=True)
    program, *options = command
    crawl(
        [program, *options, "-s", "SPIDER_MODULES=load.measured", "-a", f"out={out}"],
        project,
        pages=pages,
        env=dict(env),
        items=project.parent / "items.jsonl",
        spider="measured",
    )
    told = [json.loads(line) for line in out.read_text().splitlines()]
    n_pages, loop_s, all_s = (sum(one[name] for one in told) for name in ("pages", "loop_s", "all_s"))
    if n_pages != pages:
        raise RuntimeError(f"{way}: the spiders told of {n_pages} pages, not of {pages}")
    return float((all_s - loop_s) / loop_s)


def measure(
    directory: Path, *, pages: int, runs: int, cases: Sequence[tuple[int, int]] = CASES
) -> list[tuple[Effort, Effort]]:
    """Crawl in each way in turn, after ``scrapy crawl``, so many times; one more round only warms up."""
    project = write(directory / "project")
    found = []
    with ExitStack() as stack:
        endpoint = stack.enter_context(server())
        store = Store(endpoint, name="vscrapy-bench")
        stack.callback(store.close)
        for number in range(runs + 1):
            for processes, round_trip_ms in cases:
                way = named(processes, round_trip_ms)
                scrapy = Effort(SCRAPY, _crawl(SCRAPY, ["scrapy"], project, pages=pages, env={}), None)
                own = _crawl_own(way, store, endpoint, project, processes, round_trip_ms, pages)
                if number:
                    found.append((scrapy, own))
                print(f"{number} {way}: {own.loops:.2f} loops a page, {scrapy.loops:.2f} by scrapy", file=sys.stderr)
    return found


def _crawl_own(
    way: str, store: Store, endpoint: Endpoint, project: Path, processes: int, round_trip_ms: int, pages: int
) -> Effort:
    home = project.parent / f"home-{processes}-{round_trip_ms}"
    home.mkdir(mode=0o700, exist_ok=True)
    with reached(endpoint, round_trip_ms) as url, worker(url, home, slots=processes):
        command = ["vscrapy", "--redis", url, "--workers", str(processes)]
        before_s = main_thread_s(store)
        loops = _crawl(way, command, project, pages=pages, env={"VSCRAPY_HOME": str(home)})
        return Effort(way, loops, (main_thread_s(store) - before_s) / pages * 1e6)


def table(found: Sequence[tuple[Effort, Effort]]) -> str:
    """What was measured, as Markdown; ratios are of crawls that follow each other."""
    rows = [HEAD, f"| {SCRAPY} | {spread([scrapy.loops for scrapy, _ in found])} | 1.00 | |"]
    for way in dict.fromkeys(own.way for _, own in found):
        pairs = [(scrapy, own) for scrapy, own in found if own.way == way]
        loops, ratios = [own.loops for _, own in pairs], [scrapy.loops / own.loops for scrapy, own in pairs]
        server_us = [own.server_us for _, own in pairs if own.server_us is not None]
        rows.append(f"| {way} | {spread(loops)} | {spread(ratios)} | {spread(server_us, 0)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effort", description=__doc__)
    parser.add_argument("--pages", type=int, default=1000, help="pages of a crawl")
    parser.add_argument("--runs", type=int, default=5, help="rounds; each crawls in every way once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        found = measure(Path(directory), pages=options.pages, runs=options.runs)
    print(machine.describe())
    print(table(found))


if __name__ == "__main__":
    main()
