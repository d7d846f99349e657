"""
What it costs that the log comes to the sender: pages a second, the time that a line takes, and a burst of lines.

Run it by itself with ``python -m benchmarks.relay``.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import load
from benchmarks.lines import LOG_FORMAT, Heard, listen, program
from benchmarks.speed import worker
from benchmarks.spread import share, spread
from benchmarks.way import crawl, log_of
from vscrapy.testing import server

#: Pages of a crawl, and how many crawls of each kind there are.
PAGES: Final = 3000
RUNS: Final = 5
#: Lines whose way is timed, and the time between two of them (seconds).
LINES: Final = 500
PAUSE_S: Final = 0.01
#: Lines a second of the burst, and its length (seconds).
RATE: Final = 50_000
BURST_S: Final = 3.0
SCRAPY, VSCRAPY = "`scrapy crawl`", "`vscrapy crawl`"
#: What stands where lines are missing.
GAP: Final = re.compile(r"\[\.\.\. (\d+) lines (?:are cut|lost)")
SPEED_HEAD: Final = """\
| log | `scrapy crawl`: pages/s | `vscrapy crawl`: pages/s | of `scrapy crawl` |
| --- | --- | --- | --- |"""
DELAY_HEAD: Final = """\
| lines | number | half of them arrive within (ms) | 99 % (ms) | all (ms) |
| --- | --- | --- | --- | --- |"""

_SPIDERS: Final = """\
import asyncio
import time

from scrapy import Spider


class Calm(Spider):
    name = "calm"
    start_urls = ["data:,"]

    async def parse(self, response):
        for number in range(int(self.lines)):
            self.logger.info("timed %s", number)
            await asyncio.sleep(float(self.pause_s))


class Burst(Spider):
    name = "burst"
    start_urls = ["data:,"]

    async def parse(self, response):
        n_lines, n_said, begin_s = int(self.lines), 0, time.monotonic()
        while n_said < n_lines:
            n_due = min(n_lines, int((time.monotonic() - begin_s) * float(self.rate)) + 1)
            for number in range(n_said, n_due):
                self.logger.info("timed %s", number)
            n_said = n_due
            await asyncio.sleep(0.002)
        self.logger.info("all were said in %.3f s", time.monotonic() - begin_s)
"""
_TIMED: Final = re.compile(r"timed (\d+)")
_SAID: Final = re.compile(r"all were said in ([0-9.]+) s")


@dataclass(frozen=True, slots=True)
class Speed:
    """One crawl."""

    way: str
    level: str
    pages_a_s: float


@dataclass(frozen=True, slots=True)
class Delays:
    """How long lines took from the crawl process to the sender's stderr (seconds)."""

    what: str
    delays_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of many lines."""

    n_said: int
    #: Different ones that arrived; those that did more than once; those of which a notice says that they are gone.
    n_arrived: int
    n_twice: int
    n_gone: int
    notices: tuple[str, ...]
    #: How long it took to say them, and to have them (seconds).
    said_s: float
    arrived_s: float


Row = Speed | Delays | Burst


def write(directory: Path) -> Path:
    """Write the project whose spiders talk."""
    package = directory / "talk"
    package.mkdir(parents=True)
    (directory / "scrapy.cfg").write_text("[settings]\ndefault = talk.settings\n")
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(f'SPIDER_MODULES = ["talk.spiders"]\nLOG_FORMAT = "{LOG_FORMAT}"\n')
    (package / "spiders.py").write_text(_SPIDERS)
    return directory


def delays(what: str, heard: Heard) -> Delays:
    """
    Read off how long each line of the crawl process took; but for those of its begin, which wait for the sender.

    Raises:
        RuntimeError: There are none.
    """
    found = heard.logged(is_remote=True)
    opened = next((at for at, (_, _, words) in enumerate(found) if words.startswith("Spider opened")), len(found))
    if opened == len(found):
        raise RuntimeError(f"the crawl said nothing:\n{heard.text}")
    return Delays(what, tuple(line.at_s - said_s for line, said_s, _ in found[opened:]))


def burst(heard: Heard, n_said: int) -> Burst:
    """
    Read off what became of the burst's lines.

    Raises:
        RuntimeError: Its last line is not there.
    """
    found = heard.logged(is_remote=True)
    timed = [(int(match[1]), line.at_s, said_s) for line, said_s, words in found if (match := _TIMED.search(words))]
    said = next((match for _, _, words in found if (match := _SAID.search(words))), None)
    if said is None or not timed:
        raise RuntimeError(f"the burst did not arrive:\n{heard.text[-5000:]}")
    numbers = {number for number, _, _ in timed}
    notices = [line.text for line in heard.lines if GAP.search(line.text)]
    first_s = min(said_s for _, _, said_s in timed)
    return Burst(
        n_said=n_said,
        n_arrived=len(numbers),
        n_twice=len(timed) - len(numbers),
        n_gone=sum(int(match[1]) for text in notices if (match := GAP.search(text))),
        notices=tuple(notices),
        said_s=float(said[1]),
        arrived_s=max(at_s for _, at_s, _ in timed) - first_s,
    )


def measure(
    directory: Path,
    *,
    pages: int = PAGES,
    runs: int = RUNS,
    lines: int = LINES,
    rate: int = RATE,
    burst_s: float = BURST_S,
) -> list[Row]:
    """All of it; crawls take turns, after a round that only warms up."""
    project, talk, home = load.write(directory / "project"), write(directory / "talk"), directory / "home"
    home.mkdir(mode=0o700)
    items = directory / "items.jsonl"
    found: list[Row] = []
    env = {"VSCRAPY_HOME": str(home)}
    with server() as endpoint, worker(endpoint.url, home):
        for number in range(runs + 1 if runs else 0):
            for level in ("INFO", "DEBUG"):
                for way, command in (
                    (SCRAPY, ["scrapy", "--logfile", str(log_of(items))]),
                    (VSCRAPY, ["vscrapy", "--redis", endpoint.url, "--workers", "1"]),
                ):
                    sample = crawl([*command, "-L", level], project, pages=pages, env=env, items=items)
                    if number:
                        found.append(Speed(way, level, sample.pages_a_s))
                    print(f"{number} {way} {level}: {sample.pages_a_s:.0f} pages/s", file=sys.stderr)
        vscrapy = [program("vscrapy"), "crawl", "--redis", endpoint.url, "--workers", "1"]
        calm = [*vscrapy, "calm", "-a", f"lines={lines}", "-a", f"pause_s={PAUSE_S}"]
        found.append(delays(f"one in {PAUSE_S * 1000:.0f} ms", listen(calm, cwd=talk, env=env)))
        options = [
            "-s",
            f"PAGES={pages}",
            "-L",
            "DEBUG",
            "-s",
            f"LOG_FORMAT={LOG_FORMAT}",
            "-O",
            f"{items}:jsonlines",
        ]
        found.append(delays("of a crawl, DEBUG", listen([*vscrapy, "pages", *options], cwd=project, env=env)))
        n_lines = int(rate * burst_s)
        heard = listen([*vscrapy, "burst", "-a", f"lines={n_lines}", "-a", f"rate={rate}"], cwd=talk, env=env)
        found += [delays(f"of the burst, {rate:,} a second", heard), burst(heard, n_lines)]
    return found


def slowed(rows: Sequence[Row], way: str) -> list[float]:
    """By how much the DEBUG log slows a crawl down, in each round (a share of its speed)."""
    speeds = {level: _speeds(rows, way, level) for level in ("INFO", "DEBUG")}
    return [1 - debug / info for debug, info in zip(speeds["DEBUG"], speeds["INFO"], strict=True)]


def _speeds(rows: Sequence[Row], way: str, level: str) -> list[float]:
    return [row.pages_a_s for row in rows if isinstance(row, Speed) and (row.way, row.level) == (way, level)]


def table(rows: Sequence[Row]) -> str:
    """What was measured, as Markdown."""
    lines = []
    if any(isinstance(row, Speed) for row in rows):
        lines.append(SPEED_HEAD)
        for level in ("INFO", "DEBUG"):
            scrapy, vscrapy = (_speeds(rows, way, level) for way in (SCRAPY, VSCRAPY))
            ratios = [one / other for one, other in zip(vscrapy, scrapy, strict=True)]
            lines.append(f"| {level} | {spread(scrapy, 0)} | {spread(vscrapy, 0)} | {spread(ratios)} |")
        by = [spread([100 * part for part in slowed(rows, way)], 0, " %") for way in (SCRAPY, VSCRAPY)]
        lines += ["", f"DEBUG, two lines a page, slows {SCRAPY} by {by[0]}, {VSCRAPY} by {by[1]}.", ""]
    lines.append(DELAY_HEAD)
    for row in rows:
        if isinstance(row, Delays):
            parts = (share(row.delays_s, 0.5), share(row.delays_s, 0.99), max(row.delays_s))
            figures = " | ".join(f"{1000 * seconds:.0f}" for seconds in parts)
            lines.append(f"| {row.what} | {len(row.delays_s)} | {figures} |")
    for row in rows:
        if isinstance(row, Burst):
            lines += [
                "",
                f"Of {row.n_said:,} lines said in {row.said_s:.1f} s ({row.n_said / row.said_s:,.0f} a second), "
                f"{row.n_arrived:,} arrived within {row.arrived_s:.1f} s, {row.n_twice} of them twice; "
                f"{len(row.notices)} notices tell of {row.n_gone} that are gone.",
            ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--pages", type=int, default=PAGES, help="pages of a crawl")
    parser.add_argument("--runs", type=int, default=RUNS, help="rounds of crawls; 0: only the time that lines take")
    parser.add_argument("--rate", type=int, default=RATE, help="lines a second of the burst")
    parser.add_argument("--burst", type=float, default=BURST_S, metavar="SECONDS", help="its length")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        print(
            table(
                measure(
                    Path(directory), pages=options.pages, runs=options.runs, rate=options.rate, burst_s=options.burst
                )
            )
        )


if __name__ == "__main__":
    main()
