"""Each case gives with ``vscrapy crawl``, on one process and on three, what it gives with ``scrapy crawl``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose worker has three slots."""
    machine = Machine(tmp_path_factory.mktemp("parity") / "home")
    machine.start_worker(3, "w1")
    yield machine
    machine.close()


@pytest.fixture
def clean_cluster(cluster: Machine) -> Iterator[Machine]:
    """The machine; tasks that a case left behind end with it."""
    yield cluster
    cluster.end_tasks()


def problems_of(case: Case, runs: Mapping[Way, Run], way: Way) -> list[str]:
    """What is wrong with a run, compared with Scrapy's."""
    run = runs[way]
    if case.refused:
        if run.finished.exit_code == 2 and re.search(case.refused, run.finished.stderr) and not run.site_log:
            return []
        return [f"not refused: exit code {run.finished.exit_code}, {run.finished.stderr}"]
    found = differences(runs["scrapy"], run, case.unequal)
    if way == "3 processes" and run.processes < case.least_processes:
        found.append(f"only {run.processes} of {run.joined} processes crawled")
    if way == "3 processes" and run.preflight != case.preflight:
        found.append(f"the preflight named {sorted(run.preflight)}, not {sorted(case.preflight)}")
    return found


def verdict(case: Case, runs: Mapping[Way, Run], way: Way, problems: list[str]) -> str:
    """The word for the table."""
    if problems:
        return "**differs**"
    if case.refused:
        return "refused"
    told = "equal but as noted" if differences(runs["scrapy"], runs[way], ()) else "equal"
    n_processes = runs[way].processes
    return told if way == "1 process" or n_processes == 3 else f"{told} (on {n_processes})"


def row_of(case: Case, runs: Mapping[Way, Run], problems: Mapping[Way, list[str]]) -> Row:
    """The row of a case for the table."""
    local = runs["scrapy"]
    scrapy = f"{local.items.total()} items, {len(local.site_log)} requests"
    if local.finished.exit_code:
        scrapy += f", exit code {local.finished.exit_code}"
    notes = [each.why for each in case.unequal]
    if case.refused:
        notes.append("said before anything is sent")
    if case.preflight:
        notes.append(f"the preflight says so: `{'`, `'.join(sorted(case.preflight))}`")
    words = {way: verdict(case, runs, way, problems[way]) for way in problems}
    return Row(case.name, scrapy, words["1 process"], words["3 processes"], "; ".join(dict.fromkeys(notes)))


def end_of(run: Run) -> str:
    """What a run said last."""
    return f"--- {run.way}, in {run.project}:\n{run.finished.output[-_MOST_SHOWN:]}"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.is_fast else pytest.mark.parity) for case in CASES],
)
def test_parity(
    case: Case,
    clean_cluster: Machine,
    slow_site: Site,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Items, files, stats, exit code, log and prints, and what the site sees, are the same."""
    runs = {way: crawl(case, way, clean_cluster, slow_site, tmp_path / way.replace(" ", "-")) for way in WAYS}
    problems: dict[Way, list[str]] = {way: problems_of(case, runs, way) for way in ("1 process", "3 processes")}
    for way in problems:
        problems[way] += [] if case.also is None else case.also(runs[way])
    record_property(PROPERTY, json.dumps(row_of(case, runs, problems).to_data()))
    lines = [f"{way}: {problem}" for way, found in problems.items() for problem in found]
    assert not lines, "\n".join([*lines, *(end_of(run) for run in runs.values())])


def test_cases_have_names_of_their_own() -> None:
    """No two cases share a name."""
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_case_has_its_row_in_the_document(pytestconfig: pytest.Config) -> None:
    """The document's table was made from these cases."""
    if pytestconfig.getoption("parity_table"):
        pytest.skip("the table is being made")
    assert names(DOCUMENT) == [case.name for case in CASES]
