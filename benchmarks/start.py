"""
How long a start takes, against ``scrapy crawl``: to the first line of the crawl process, and of one page to the exit.

The worker is warm, and has the project; ways take turns, so a ratio is of crawls that the machine did at nearly the
same time. Run it by itself with ``python -m benchmarks.start``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.lines import LOG_FORMAT, Heard, listen, program
from benchmarks.speed import worker
from benchmarks.spread import spread
from vscrapy.testing import server

#: Files of the project that is edited.
N_FILES: Final = 500
#: Rounds.
RUNS: Final = 9
SCRAPY: Final = "`scrapy crawl`"
VSCRAPY: Final = "`vscrapy crawl`"
UNEDITED: Final = "`vscrapy crawl`, a large project, none edited"
EDITED: Final = "`vscrapy crawl`, a large project, one file edited"
HEAD: Final = """\
| | first line (s) | of `scrapy crawl` | one page, start to exit (s) | of `scrapy crawl` |
| --- | --- | --- | --- | --- |"""

_SPIDER: Final = """\
from scrapy import Spider


class Page(Spider):
    name = "page"
    start_urls = ["data:text/html,<title>One</title>"]

    def parse(self, response):
        yield {"title": response.css("title::text").get()}
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One crawl of one page."""

    way: str
    #: From Enter to the first line that the process that crawls has said (seconds).
    line_s: float
    #: To the exit (seconds).
    wall_s: float


def write(directory: Path, n_files: int = 0) -> Path:
    """Write a project with so many files beside its spider."""
    package = directory / "one"
    package.mkdir(parents=True)
    settings = f'SPIDER_MODULES = ["one.spiders"]\nLOG_FORMAT = "{LOG_FORMAT}"\n'
    (directory / "scrapy.cfg").write_text("[settings]\ndefault = one.settings\n")
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(settings)
    (package / "spiders.py").write_text(_SPIDER)
    for number in range(n_files):
        edit(directory, number, 0)
    return directory


def edit(directory: Path, number: int, version: int) -> None:
    """Write one of the further files, as nobody has seen it before."""
    body = "".join(f"def work_{line}():\n    return {number * line}\n\n\n" for line in range(30))
    (directory / "one" / f"part_{number:03}.py").write_text(f"VERSION = {version}\n\n\n{body}")


def sample(way: str, heard: Heard) -> Start:
    """
    Read off what a crawl has said.

    Raises:
        RuntimeError: It did not crawl the page.
    """
    lines = heard.logged(is_remote=way != SCRAPY)
    if not lines or "'item_scraped_count': 1" not in heard.text:
        raise RuntimeError(f"{way} did not crawl its page:\n{heard.text}")
    return Start(way, lines[0][0].at_s - heard.begin_s, heard.wall_s)


def measure(directory: Path, *, runs: int = RUNS, n_files: int = N_FILES) -> list[Start]:
    """Crawl in each way in turn, so many times, after a round that only warms up."""
    small, large = write(directory / "small"), write(directory / "large", n_files)
    home = directory / "home"
    home.mkdir(mode=0o700)
    found = []
    with server() as endpoint, worker(endpoint.url, home):
        env = {"VSCRAPY_HOME": str(home)}
        vscrapy = [program("vscrapy"), "crawl", "page", "--redis", endpoint.url]
        for number in range(runs + 1):
            for way, args, project in (
                (SCRAPY, [program("scrapy"), "crawl", "page"], small),
                (VSCRAPY, vscrapy, small),
                (UNEDITED, vscrapy, large),
                (EDITED, vscrapy, large),
            ):
                if way == EDITED:
                    edit(large, number % n_files, number + 1)
                start = sample(way, listen(args, cwd=project, env=env))
                if number:
                    found.append(start)
                print(f"{number} {way}: {start.line_s:.3f} s, {start.wall_s:.3f} s", file=sys.stderr)
    return found


def added_by_edit(starts: Sequence[Start]) -> list[float]:
    """What one edited file adds to the time to the first line, in each round (seconds)."""
    pairs = zip(_of(starts, EDITED), _of(starts, UNEDITED), strict=True)
    return [edited.line_s - unedited.line_s for edited, unedited in pairs]


def table(starts: Sequence[Start]) -> str:
    """What was measured, as Markdown."""
    scrapy = _of(starts, SCRAPY)
    rows = [HEAD]
    for way in dict.fromkeys(start.way for start in starts):
        own = _of(starts, way)
        line = [one.line_s / other.line_s for one, other in zip(own, scrapy, strict=True)]
        wall = [one.wall_s / other.wall_s for one, other in zip(own, scrapy, strict=True)]
        figures = (spread([start.line_s for start in own]), spread(line))
        rows.append(f"| {way} | {' | '.join((*figures, spread([start.wall_s for start in own]), spread(wall)))} |")
    pairs = list(zip(_of(starts, VSCRAPY), scrapy, strict=True))
    more_line_s = median(one.line_s - other.line_s for one, other in pairs)
    more_wall_s = median(one.wall_s - other.wall_s for one, other in pairs)
    added_ms = [1000 * seconds for seconds in added_by_edit(starts)]
    rows.append("")
    rows.append(
        f"Against `scrapy crawl`, the first line comes {more_line_s:.2f} s later, and the exit "
        f"{more_wall_s:.2f} s later. In the project of {N_FILES} files, one that is edited adds "
        f"{spread(added_ms, 0, ' ms')} to the first line."
    )
    return "\n".join(rows)


def _of(starts: Sequence[Start], way: str) -> list[Start]:
    return [start for start in starts if start.way == way]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="rounds; each crawls in every way once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        print(table(measure(Path(directory), runs=options.runs)))


if __name__ == "__main__":
    main()
