"""The short part of the chaos suite: one crawl in which things break, and what the plans promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from tests.chaos.crawl import perform
from tests.chaos.faults import FAULTS
from tests.chaos.lab import undisturbed
from tests.chaos.plan import N_FAULTS, Moment, Plan, plan, plans
from tests.chaos.report import Report, Violation, table
from tests.chaos.stage import Layout

#: One crawl that is small enough for each change.
SHORT: Final = Plan(
    seed=0,
    crawl=0,
    layout=Layout(slots=(2, 1), is_proxied=True, delay_ms=200, n_pages=300),
    moments=(
        Moment(20, ("crawl process killed",), 1),
        Moment(70, ("template killed", "connections reset"), 2),
        Moment(110, ("Redis killed and restarted",), 3),
        Moment(170, ("worker suspended shortly",), 4),
        Moment(200, ("crawl process killed",), 5),
    ),
)


def test_crawl_is_as_undisturbed_when_things_break(tmp_path: Path) -> None:
    """The same pages, the same items and stats, the same end, and nothing left."""
    expected = undisturbed(tmp_path / "undisturbed", SHORT.layout.n_pages)
    report = perform(SHORT, tmp_path / "crawl", expected)
    assert not report.violations, "\n".join(report.lines())
    assert report.faults.total() >= 4, "\n".join(report.story)


def test_plans_are_the_same_for_the_same_seed() -> None:
    """Also one of them alone."""
    first, again = (list(islice(plans(7), 10)) for _ in range(2))
    assert first == again
    assert plan(7, 6) == first[6]
    assert list(islice(plans(8), 10)) != first


def test_plans_have_all_faults_equally_often() -> None:
    """As the cards of a pack come round."""
    found = list(islice(plans(1), 100))
    counts = Counter(fault for plan_ in found for fault in plan_.faults)
    assert set(counts) == set(FAULTS)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert all(N_FAULTS[0] <= len(plan_.faults) <= N_FAULTS[1] for plan_ in found)


def test_plans_give_their_faults_what_these_need() -> None:
    """Ways that can break, small disks, wrong clocks, a sender."""
    for plan_ in islice(plans(2), 100):
        kinds = [FAULTS[fault] for fault in plan_.faults]
        layout = plan_.layout
        assert layout.is_proxied or not any(kind.needs_proxies for kind in kinds)
        assert layout.small_disks or not any(kind.needs_small_disk for kind in kinds)
        assert layout.clocks or not any(kind.needs_clocks for kind in kinds)
        assert not (layout.is_detached and any(kind.needs_sender for kind in kinds))


def test_table_counts_a_crawl_once_for_each_of_its_faults() -> None:
    """A violation shows in the row of every fault that may have caused it."""
    clean = Report(1, 0, Counter({"a": 2, "b": 1}), pages=10, seconds=3)
    bad = replace(clean, crawl=1, faults=Counter({"b": 1}), violations=[Violation("items twice", "x", 5)], seconds=4)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table([clean, bad])]
    assert cells[0][:7] == ["fault", "times", "crawls", "pages", "pages missing", "items missing", "items twice"]
    assert [row[:4] + row[6:7] + row[-1:] for row in cells[2:]] == [
        ["a", "2", "1", "10", "0", "3"],
        ["b", "2", "2", "20", "5", "4"],
        ["all", "4", "2", "20", "5", "4"],
    ]
