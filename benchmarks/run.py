"""``make bench``: measure, and write ``benchmarks/RESULTS.md`` and ``benchmarks/growth.svg``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final, NoReturn

from benchmarks import burst, chart, crowd, items, machine, memory, relay, rivals, speed, start

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


@dataclass(slots=True)
class Growth:
    """What the chart shows, as far as it was measured."""

    #: Of real crawls, by way, as :func:`speed.measure` gives them.
    pairs: Mapping[str, Sequence[speed.Pair]] = field(default_factory=dict)
    #: Crawl processes, pages a second; only where the simulated processes kept their rate.
    simulated: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    pages: int
    runs: int
    round_trips_ms: tuple[int, ...]
    growth: Growth


def _speed(options: Options, directory: Path) -> str:
    scaling = [machine.scaling()]
    pairs = speed.measure(
        directory, pages=options.pages, runs=options.runs, round_trips_ms=list(options.round_trips_ms)
    )
    options.growth.pairs = pairs
    scaling.append(machine.scaling())
    told = _SPEED.format(pages=options.pages, runs=options.runs, before=scaling[0], after=scaling[1])
    return f"{told}\n\n{speed.table(pairs)}\n\n![pages a second](growth.svg)"


def _crowd(options: Options, directory: Path) -> str:
    rows = crowd.measure()
    for row in rows:
        offered = row.plan.processes * row.plan.pages_a_s
        if row.pages_a_s >= KEPT * offered:
            options.growth.simulated.append((row.plan.processes, row.pages_a_s))
    return f"One server, and simulated crawl processes (`benchmarks/crowd.py`).\n\n{crowd.table(rows)}"


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
    "rivals": ("scrapy-redis", _rivals),
    "start": ("Starts", _start),
    "burst": ("The server's work for a page", _burst),
    "crowd": ("Many crawl processes", _crowd),
    "memory": ("Memory", _memory),
    "relay": ("The log", _relay),
    "items": ("Items", _items),
}


def draw(growth: Growth) -> None:
    """Draw the chart."""

    def pages_a_s(way: str) -> float:
        return median(pair.own.pages_a_s for pair in growth.pairs[way])

    by_processes, by_round_trip = [], []
    for way in growth.pairs:
        words = way.split()
        processes, round_trip_ms = int(words[1]), float(words[-2])
        if round_trip_ms == 0:
            by_processes.append((processes, pages_a_s(way)))
        if processes == 1:
            by_round_trip.append((round_trip_ms, pages_a_s(way)))
    chart.draw(
        CHART,
        by_processes=by_processes,
        simulated=growth.simulated,
        by_round_trip={"vscrapy, 1 crawl process": sorted(by_round_trip)},
    )


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
    growth = Growth()
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
            wanted = Options(options.pages, options.runs, tuple(options.round_trips), growth)
            text = PARTS[name][1](wanted, Path(directory))
        print(text, flush=True)
        write(options.output, command, {name: text})
    if growth.pairs:
        draw(growth)


if __name__ == "__main__":
    main()
