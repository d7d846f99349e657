"""``make bench``: measure, and write ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine, speed

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
_TEXT: Final = """\
# Benchmarks

Made by `{command}` on {day}; {machine}.

## Pages a second

A spider over a download handler in its own process: a page comes after 20 ms and has 20 links, of which nearly all
lead to pages that are known; {pages} pages, 64 at once. Medians of {runs} rounds, in which the ways take turns;
ratios are of the crawls of one round, the least and the greatest in brackets. Round trips to Redis by a proxy on
loopback, which is on the same cores as all else; 0 ms: no proxy. Pages a second while the spider is open.

{speed}
"""


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--pages", type=int, default=5000, help="pages of a crawl")
    parser.add_argument("--runs", type=int, default=5, help="rounds; each crawls in every way once")
    parser.add_argument("--round-trips", type=int, nargs="*", default=speed.ROUND_TRIPS_MS, metavar="MS")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to write the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        samples = speed.measure(
            Path(directory), pages=options.pages, runs=options.runs, round_trips_ms=options.round_trips
        )
    text = _TEXT.format(
        command=f"make bench PAGES={options.pages} RUNS={options.runs}",
        day=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine.describe(),
        pages=options.pages,
        runs=options.runs,
        speed=speed.table(samples),
    )
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
