"""
One crawl under a plan: ``python -m tests.chaos.crawl``, started by ``tests.chaos.run``.

It strikes the faults at their moments, waits for the end, mends what is still broken, and holds what there is
against the undisturbed crawl.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.chaos import checks
from tests.chaos.faults import FAULTS
from tests.chaos.lab import Result
from tests.chaos.plan import Moment, Plan, plan
from tests.chaos.report import Report, Violation
from tests.chaos.stage import LEFT_S, Stage
from tests.integration.machine import wait_for

#: Time from one moment to the next, and from the last one to the end (seconds).
CRAWL_S: Final = 150.0


class Crawl:
    """One crawl."""

    def __init__(self, stage: Stage, plan_: Plan, expected: Result) -> None:
        self.stage = stage
        self.plan = plan_
        self.expected = expected
        self.report = Report(plan_.seed, plan_.crawl)
        self._threads: list[threading.Thread] = []

    def run(self) -> Report:
        """Run it to its end, and check all."""
        began_s = time.monotonic()
        self.stage.tell(f"seed {self.plan.seed}, crawl {self.plan.crawl}: {self.plan.layout}")
        for moment in self.plan.moments:
            self.stage.tell(f"planned: {moment}")
        self.stage.crawl()
        try:
            for moment in self.plan.moments:
                self._strike_at(moment)
            self._wait_for_end()
        finally:
            self.stage.is_over = True
            for thread in self._threads:
                thread.join()
        self.report.seconds = time.monotonic() - began_s
        self.report.pages = self.stage.pages()
        self.report.violations += checks.after_end(self.stage, self.expected)
        return self.report

    def _strike_at(self, moment: Moment) -> None:
        wait_for(lambda: self.stage.pages() >= moment.page or self._has_ended(), CRAWL_S, what=f"page {moment.page}")
        if self._has_ended():
            self.stage.tell(f"too late for {moment}")
            return
        for number, name in enumerate(moment.faults):
            thread = threading.Thread(target=self._strike, args=(name, random.Random(f"{moment.seed}/{number}")))
            self._threads.append(thread)
            thread.start()

    def _strike(self, name: str, chance: random.Random) -> None:
        try:
            if FAULTS[name](self.stage, chance).strike():
                self.report.faults[name] += 1
            else:
                self.stage.tell(f"{name}: nothing there to do it to")
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - a defect of the suite, or a worker that cannot start
            self.report.violations.append(Violation("ended wrong", f"{name}: {traceback.format_exc()}"))

    def _has_ended(self) -> bool:
        sender = self.stage.sender
        assert sender is not None
        return not sender.running.is_running if not self.stage.layout.is_detached else self.stage.has_ended()

    def _wait_for_end(self) -> None:
        wait_for(self._has_ended, CRAWL_S, what=lambda: f"the end; {self.stage.record()}")
        self.stage.tell("the crawl has ended")


def perform(plan_: Plan, directory: Path, expected: Result) -> Report:
    """Run one crawl in a directory of its own."""
    with Stage(directory, plan_.layout) as stage:
        crawl = Crawl(stage, plan_, expected)
        try:
            report = crawl.run()
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it was, the crawl has not ended well
            report = crawl.report
            report.violations.append(Violation("ended wrong", f"{traceback.format_exc()}\n{checks.situation(stage)}"))
        report.story = stage.story
        with suppress(pytest.fail.Exception):
            wait_for(lambda: not stage.crawl_processes(), LEFT_S)
        report.violations += checks.after_shutdown(stage)
    return report


def main(argv: list[str] | None = None) -> int:
    """Run one crawl, and leave its report."""
    parser = argparse.ArgumentParser(prog="tests.chaos.crawl")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--crawl", type=int, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS))
    parser.add_argument("--expected", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args(argv)
    expected = Result.from_json(options.expected.read_text())
    report = perform(plan(options.seed, options.crawl, options.kinds), options.directory, expected)
    (options.directory / "report.json").write_text(report.to_json())
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
