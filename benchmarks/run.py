"""``make bench``: measure, and write ``benchmarks/RESULTS.md`` and ``benchmarks/growth.svg``."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from benchmarks import burst, chart, crowd, effort, items, machine, memory, relay, rivals, speed, start

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
CHART: Final = Path(__file__).parent / "growth.svg"
#: Share of its rate that a simulated crowd must have kept, for its point in the chart.
KEPT: Final = 0.95
_HEAD: Final = """\
# Benchmarks

Made by `{command}`; {machine}. Each part says when. Medians, with the least and the greatest in brackets. Ways take
turns, and a ratio is of crawls that the machine did at nearly the same time.
"""
_SPEED: Final = """\
A spider over a download handler in its own process: a page comes after 20 ms and has 20 links, of which nearly all
lead to pages that are known; {pages} pages, 64 at once, {runs} rounds. Round trips to Redis by a proxy on loopback,
which is on the same cores as all else; 0 ms: no proxy. Pages a second while the spider is open. Each crawl follows
one of `scrapy crawl`, with which it is compared. Two Python loops that share nothing did {before:.2f} times the work
of one here right before this, and {after:.2f} times right after it."""

_EFFORT: Final = """\
The same load, but a fixed loop runs in the callback of each page. CPU time of the crawling processes, of all their
threads, while the spider is open, without the loop and in units of it: on a machine that shares its host, pages a
second tell as much of the host. The server's main thread from the command's begin to its end, with all that it does
for an idle worker (`benchmarks/effort.py`)."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    pages: int
    runs: int
    round_trips_ms: tuple[int, ...]


def _speed(options: Options, directory: Path) -> str:
    scaling = [machine.scaling()]
    pairs = speed.measure(
        directory, pages=options.pages, runs=options.runs, round_trips_ms=list(options.round_trips_ms)
    )
    scaling.append(machine.scaling())
    told = _SPEED.format(pages=options.pages, runs=options.runs, before=scaling[0], after=scaling[1])
    return f"{told}\n\n{speed.table(pairs)}\n\n![pages a second](growth.svg)"


def _effort(options: Options, directory: Path) -> str:
    return f"{_EFFORT}\n\n{effort.table(effort.measure(directory, pages=options.pages, runs=options.runs))}"


def _crowd(options: Options, directory: Path) -> str:
    return f"One server, and simulated crawl processes (`benchmarks/crowd.py`).\n\n{crowd.table(crowd.measure())}"


def _burst(options: Options, directory: Path) -> str:
    return f"Commits right behind each other (`benchmarks/burst.py`).\n\n{burst.table(burst.measure())}"


def _start(options: Options, directory: Path) -> str:
    return f"A warm worker, and a spider of one page.\n\n{start.table(start.measure(directory, runs=options.runs))}"


def _memory(options: Options, directory: Path) -> str:
    return memory.table(memory.measure(directory, pages=options.pages))


def _relay(options: Options, directory: Path) -> str:
    return relay.table(relay.measure(directory, pages=options.pages, runs=options.runs))


def _items(options: Options, directory: Path) -> str:
    return items.table(items.measure(directory, runs=options.runs))


def _rivals(options: Options, directory: Path) -> str:
    return rivals.table(rivals.measure(directory, runs=options.runs))


PARTS: Final[Mapping[str, tuple[str, Callable[[Options, Path], str]]]] = {
    "speed": ("Pages a second", _speed),
    "effort": ("CPU time a page", _effort),
    "rivals": ("scrapy-redis", _rivals),
    "start": ("Starts", _start),
    "burst": ("The server's work for a page", _burst),
    "crowd": ("Many crawl processes", _crowd),
    "memory": ("Memory", _memory),
    "relay": ("The log", _relay),
    "items": ("Items", _items),
}


def draw(results: str) -> None:
    """Draw the chart, of the tables that there are in *results*; none without real crawls."""
    sections = dict(_sections(results))

    def rows(part: str) -> list[list[str]]:
        lines = [line for line in sections.get(PARTS[part][0], "").splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    by_processes, by_round_trip, of_rival = [], [], []
    for way, pages_a_s, *_ in rows("speed"):
        found = re.fullmatch(r"vscrapy, (\d+) crawl process(?:es)?, (\d+) ms", way)
        if found is None:
            continue
        processes, round_trip_ms = map(int, found.groups())
        if round_trip_ms == 0:
            by_processes.append((processes, _number(pages_a_s)))
        if processes == 1:
            by_round_trip.append((round_trip_ms, _number(pages_a_s)))
    for way, pages_a_s, *_ in rows("rivals"):
        found = re.fullmatch(r"scrapy-redis \S+, (\d+) ms", way)
        if found is not None:
            of_rival.append((int(found[1]), _number(pages_a_s)))
    crowds = [list(map(_number, row[:3])) for row in rows("crowd") if row[0].isdigit()]
    if by_processes:
        chart.draw(
            CHART,
            by_processes=by_processes,
            simulated=[(processes, done) for processes, offered, done in crowds if done >= KEPT * offered],
            by_round_trip={"vscrapy, 1 crawl process": sorted(by_round_trip), "scrapy-redis": sorted(of_rival)},
        )


def _number(cell: str) -> float:
    """The first number of a cell; behind it there may be the least and the greatest."""
    return float(cell.split()[0].replace(",", ""))


def write(output: Path, command: str, parts: Mapping[str, str]) -> None:
    """Put the parts that were measured in the place of those that stand there; the others stay."""
    found = dict(_sections(output.read_text())) if output.exists() else {}
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    found |= {PARTS[name][0]: f"{day}.\n\n{text}" for name, text in parts.items()}
    titles = [title for title, _ in PARTS.values() if title in found]
    head = _HEAD.format(command=command, machine=machine.describe())
    output.write_text("\n".join([head, *(f"## {title}\n\n{found[title].strip()}\n" for title in titles)]))


def _sections(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return [(title, body) for title, _, body in pairs]


def _end(number: int, _: object) -> NoReturn:
    """End in order: what was started ends, too."""
    sys.exit(128 + number)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--pages", type=int, default=5000, help="pages of a crawl")
    parser.add_argument("--runs", type=int, default=5, help="rounds; each crawls in every way once")
    parser.add_argument("--round-trips", type=int, nargs="*", default=speed.ROUND_TRIPS_MS, metavar="MS")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to write the results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    command = f"make bench PAGES={options.pages} RUNS={options.runs}"
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
            wanted = Options(options.pages, options.runs, tuple(options.round_trips))
            text = PARTS[name][1](wanted, Path(directory))
        print(text, flush=True)
        write(options.output, command, {name: text})
    draw(options.output.read_text())


if __name__ == "__main__":
    main()
