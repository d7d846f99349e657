"""Each case gives with ``vscrapy crawl``, on one process and on three, what it gives with ``scrapy crawl``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Site
from tests.parity.case import Case, Way, all_cases
from tests.parity.compare import differences
from tests.parity.run import WAYS, Run, crawl
from tests.parity.table import PROPERTY, Row, names

pytest_plugins = ["tests.integration.machine"]

#: Characters of a run's output that are shown when its case fails.
_MOST_SHOWN: Final = 2500
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"
CASES: Final = list(all_cases())


class Clusters:
    """Machines, by the slots of their worker and a task's turn on it; made when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[tuple[int, float | None], Machine] = {}

    def of(self, case: Case) -> Machine:
        """The machine that a case is run on."""
        wanted = (case.slots, case.turn_s)
        if wanted not in self._made:
            machine = self._made[wanted] = Machine(self._directory / f"home-{len(self._made)}")
            machine.start_worker(case.slots, "w1", turn_s=case.turn_s)
        return self._made[wanted]

    def end_tasks(self) -> None:
        """End what a case left behind."""
        for machine in self._made.values():
            machine.end_tasks()

    def close(self) -> None:
        """Shut them all down."""
        with contextlib.ExitStack() as stack:
            for machine in self._made.values():
                stack.callback(machine.close)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """The machines for all cases."""
    made = Clusters(tmp_path_factory.mktemp("parity"))
    yield made
    made.close()


@pytest.fixture
def clean_clusters(clusters: Clusters) -> Iterator[Clusters]:
    """The machines; tasks that a case left behind end with it."""
    yield clusters
    clusters.end_tasks()


#: The runs of each way: one for each crawl of the case.
Runs = Mapping[Way, Sequence[Run]]


def problems_of(case: Case, runs: Runs, way: Way) -> list[str]:
    """What is wrong with a way's runs, compared with Scrapy's."""
    found = [
        f"{run.name}: {problem}" if run.name else problem
        for expected, run in zip(runs["scrapy"], runs[way], strict=True)
        for problem in problems_of_run(case, expected, run)
    ]
    for figure in case.figures:
        problem = figure.problem(way, figure.measure(runs["scrapy"]), figure.measure(runs[way]))
        found += [] if problem is None else [problem]
    return found


def problems_of_run(case: Case, expected: Run, run: Run) -> list[str]:
    """What is wrong with a run by itself; *expected*: Scrapy's."""
    if case.refused:
        if run.finished.exit_code == 2 and re.search(case.refused, run.finished.stderr) and not run.site_log:
            return []
        return [f"not refused: exit code {run.finished.exit_code}, {run.finished.stderr}"]
    found = differences(expected, run, case.unequal)
    if run.way == "1 process" and case.can_be_repeated and run.made != 1:
        found.append(f"{run.made} tasks were made: one that was made early was not the same")
    if run.way == "3 processes" and run.processes < case.least_processes:
        found.append(f"only {run.processes} of {run.joined} processes crawled")
    if run.way == "3 processes" and run.preflight != case.preflight:
        found.append(f"the preflight named {sorted(run.preflight)}, not {sorted(case.preflight)}")
    return found + ([] if case.also is None else case.also(run))


def verdict(case: Case, runs: Runs, way: Way, problems: list[str]) -> str:
    """The words for the table."""
    if case.refused and not problems:
        return "refused"
    is_equal = not any(
        differences(expected, run, ()) for expected, run in zip(runs["scrapy"], runs[way], strict=True)
    )
    word = "**differs**" if problems else "equal" if is_equal else "equal but as noted"
    n_processes = runs[way][0].processes
    if way == "3 processes" and not case.crawls and n_processes != 3 and not problems:
        word += f" (on {n_processes})"
    return "; ".join([word, *(figure.shown(figure.measure(runs[way])) for figure in case.figures)])


def row_of(case: Case, runs: Runs, problems: Mapping[Way, list[str]]) -> Row:
    """The row of a case for the table."""
    local = runs["scrapy"]
    scrapy = f"{sum(run.items.total() for run in local)} items, {sum(len(run.site_log) for run in local)} requests"
    if case.crawls:
        scrapy = f"{len(case.crawls)} crawls one after the other: {scrapy}"
    exit_codes = sorted({run.finished.exit_code for run in local} - {0})
    scrapy += "".join(f", exit code {exit_code}" for exit_code in exit_codes)
    scrapy = "; ".join([scrapy, *(figure.shown(figure.measure(local)) for figure in case.figures)])
    notes = [each.why for each in case.unequal] + [figure.says for figure in case.figures]
    if case.refused:
        notes.append("said before anything is sent")
    if case.preflight:
        notes.append(f"the preflight says so: `{'`, `'.join(sorted(case.preflight))}`")
    words = {way: verdict(case, runs, way, problems[way]) for way in problems}
    return Row(case.name, scrapy, words["1 process"], words["3 processes"], "; ".join(dict.fromkeys(notes)))


def end_of(run: Run) -> str:
    """What a run said last."""
    return f"--- {run.way}, in {run.project}:\n{run.finished.output[-_MOST_SHOWN:]}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.is_fast else pytest.mark.parity) for case in CASES],
)
def test_parity(
    case: Case,
    clean_clusters: Clusters,
    slow_site: Site,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Items, files, stats, exit code, log and prints, and what the site sees, are the same."""
    machine = clean_clusters.of(case)
    runs = {way: crawl(case, way, machine, slow_site, tmp_path / way.replace(" ", "-")) for way in WAYS}
    problems: dict[Way, list[str]] = {way: problems_of(case, runs, way) for way in ("1 process", "3 processes")}
    record_property(PROPERTY, json.dumps(row_of(case, runs, problems).to_data()))
    lines = [f"{way}: {problem}" for way, found in problems.items() for problem in found]
    assert not lines, "\n".join([*lines, *(end_of(run) for each in runs.values() for run in each)])


def test_cases_have_names_of_their_own() -> None:
    """No two cases share a name."""
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_case_has_its_row_in_the_document(pytestconfig: pytest.Config) -> None:
    """The document's table was made from these cases."""
    if pytestconfig.getoption("parity_table"):
        pytest.skip("the table is being made")
    assert names(DOCUMENT) == [case.name for case in CASES]
