"""What is made of the figures of a crowd."""

from __future__ import annotations

import pytest

from benchmarks.crowd import HEAD, Plan, Row, table
from benchmarks.load import N_LINKS
from benchmarks.simulated import Pages


def row(processes: int) -> Row:
    """A crowd that was measured, with plain figures."""
    return Row(Plan(processes), 100.0, 1.0, 19.5, 1.0, 50.0, 0.25, 20.0, 200.0, 5000.0, 600.0, 0.5)


def test_upkeep_is_that_of_all_workers_at_their_pace() -> None:
    """200 processes are 100 workers: a heartbeat every 2 s, a look every half second."""
    found = row(200)
    assert (found.workers, found.offered) == (100, 4000)
    assert found.beats_core == pytest.approx(100 * 20e-6 / 2)
    assert found.looks_core == pytest.approx(100 * 200e-6 / 0.5)


def test_odd_process_has_a_worker_of_its_own() -> None:
    """Two processes are on a worker, and the last one may be alone."""
    assert row(3).workers == 2


def test_table_has_a_row_for_each_crowd() -> None:
    """As many cells as the head has, in the order of the rows."""
    lines = table([row(1), row(200)]).splitlines()
    assert "\n".join(lines[:2]) == HEAD
    assert {line.count("|") for line in lines} == {HEAD.count("|") // 2}
    assert lines[3] == "| 200 | 4000 | 100 | 1.0 | 19.5 | 50 | 25.0% | 0.10% | 4.00% | 5000 + 600 | 50% |"


@pytest.mark.parametrize(("remembered", "n_old"), [(0.0, N_LINKS - 1), (1.0, 0)])
def test_page_links_to_one_new_page_and_to_known_ones(remembered: float, n_old: int) -> None:
    """A page links to one that no other page links to, and to those of the known ones that are not remembered."""
    pages = Pages(1000, remembered=remembered)
    links = [list(pages.links(number)) for number in range(3000)]
    assert len({found[0] for found in links}) == 3000
    assert all(found[0] >= 1000 and len(found) == 1 + n_old for found in links)
    assert all(linked < 1000 for found in links for linked in found[1:])


def test_payloads_are_as_long_whatever_the_number() -> None:
    """A request has its own payload and fingerprint, of the same length."""
    one, other = Pages(1000, sites=3).request(7), Pages(1000, sites=3).request(12_345_678)
    assert len(one.payload) == len(other.payload) > 150
    assert one.payload != other.payload
    assert one.seen != other.seen
