"""
Pages a second of scrapy-redis, with the load and the proxies of :mod:`benchmarks.speed`, against ``scrapy crawl``.

Both are of one environment, which is made for this: the project does not depend on scrapy-redis. Run it by itself
with ``python -m benchmarks.rivals``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks import load
from benchmarks.spread import spread
from benchmarks.way import crawl, reached
from vscrapy.testing import server

RIVAL: Final = "scrapy-redis==0.9.1"
#: Pages of a crawl, and how many crawls of each kind there are. At 5 ms, one takes minutes.
PAGES: Final = 200
RUNS: Final = 3
#: Round trips to Redis (ms); 0: its unix socket, and no proxy.
ROUND_TRIPS_MS: Final = (0, 1, 5)
#: Time for the environment to be made (seconds).
INSTALL_S: Final = 600.0
SCRAPY: Final = "`scrapy crawl`"
HEAD: Final = """\
| | pages/s | of `scrapy crawl` |
| --- | --- | --- |"""

_COMPONENTS: Final = {
    "SCHEDULER": "scrapy_redis.scheduler.Scheduler",
    "DUPEFILTER_CLASS": "scrapy_redis.dupefilter.RFPDupeFilter",
}


@dataclass(frozen=True, slots=True)
class Rival:
    """One crawl."""

    way: str
    pages_a_s: float


def make_environment(directory: Path) -> Path:
    """
    Make an environment with scrapy-redis and the Scrapy of this one; its ``scrapy``.

    Raises:
        CalledProcessError: pip cannot; it has said why.
    """
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=INSTALL_S)
    # The packages that both lean on, too: none is to be the slower for its versions.
    names = ("scrapy", "twisted", "redis", "hiredis", "lxml")
    packages = [RIVAL, *(f"{name}=={version(name)}" for name in names)]
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True, timeout=INSTALL_S, stdout=sys.stderr)
    return directory / "bin" / "scrapy"


def measure(
    directory: Path, *, pages: int = PAGES, runs: int = RUNS, round_trips_ms: Sequence[int] = ROUND_TRIPS_MS
) -> list[Rival]:
    """Crawl in each way in turn, so many times, after a round that only warms up."""
    project, program = load.write(directory / "project"), str(make_environment(directory / "environment"))
    found = []
    with ExitStack() as stack:
        endpoint = stack.enter_context(server())
        ways = {SCRAPY: [program]}
        for round_trip_ms in round_trips_ms:
            url = stack.enter_context(reached(endpoint, round_trip_ms))
            settings = _COMPONENTS | {"REDIS_URL": url}
            options = [word for name, value in settings.items() for word in ("-s", f"{name}={value}")]
            ways[f"{RIVAL.replace('==', ' ')}, {round_trip_ms} ms"] = [program, *options]
        for number in range(runs + 1):
            for way, command in ways.items():
                sample = crawl(command, project, pages=pages, env={}, items=directory / "items.jsonl")
                if number:
                    found.append(Rival(way, sample.pages_a_s))
                print(f"{number} {way}: {sample.pages_a_s:.0f} pages/s", file=sys.stderr)
    return found


def table(rivals: Sequence[Rival]) -> str:
    """What was measured, as Markdown; ratios are of the crawls of one round."""
    scrapy = [rival.pages_a_s for rival in rivals if rival.way == SCRAPY]
    rows = [HEAD]
    for way in dict.fromkeys(rival.way for rival in rivals):
        own = [rival.pages_a_s for rival in rivals if rival.way == way]
        ratios = [one / other for one, other in zip(own, scrapy, strict=True)]
        rows.append(f"| {way} | {spread(own, 0)} | {spread(ratios)} |")
    rows += ["", f"One process each, with Scrapy {version('scrapy')}, with which {RIVAL.replace('==', ' ')} works."]
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("--pages", type=int, default=PAGES, help="pages of a crawl")
    parser.add_argument("--runs", type=int, default=RUNS, help="rounds; each crawls in every way once")
    parser.add_argument("--round-trips", type=int, nargs="*", default=ROUND_TRIPS_MS, metavar="MS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        found = measure(Path(directory), pages=options.pages, runs=options.runs, round_trips_ms=options.round_trips)
    print(table(found))


if __name__ == "__main__":
    main()
