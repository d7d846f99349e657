"""The crowd that the server is measured with: it does what it counts, and leaves a task as real processes do."""

from __future__ import annotations

import pytest

from benchmarks import burst, crowd
from benchmarks.crowd import Plan, gathered
from benchmarks.simulated import Pages
from tests.integration.machine import wait_for
from tests.integration.support import faults, view
from vscrapy.model import Endpoint
from vscrapy.store.base import Store
from vscrapy.store.frontier import Limits
from vscrapy.store.tasks import Tasks

#: Pages that wait from the beginning.
KNOWN = 300


def test_crowd_keeps_all_invariants_and_counts_what_it_does(store: Store) -> None:
    """Each page that is done has ended a lease, no request is lost, and Redis has counted the same."""
    plan = Plan(3, pages=Pages(KNOWN, sites=4, remembered=0.5), limits=Limits(8))
    with gathered(store.endpoint, plan) as simulated:
        wait_for(lambda: simulated.tally.pages >= 30, 60, "30 pages")
        simulated.stop()
        tally, seen = simulated.tally, view(store, simulated.taskid)
        assert seen.faults() == []
        assert tally.enqueued == tally.pages, "each page has one new link"
        assert tally.enqueued < tally.sent < 20 * tally.pages
        assert (seen.payloads().total(), seen.number("leased")) == (KNOWN, 0)
        stats, _ = Tasks(store).stats(simulated.taskid)
        assert stats["response_received_count"] == stats["item_scraped_count"] == tally.pages
        assert stats["scheduler/enqueued"] == KNOWN + tally.pages
        assert stats["dupefilter/filtered"] == 19 * tally.pages
    assert faults(store) == []


def test_measured_row_is_of_what_was_done(store: Store) -> None:
    """The measured rate, the costs and the parts of a core are those of some work."""
    row = crowd.measure_one(store.endpoint, Plan(2, pages=Pages(KNOWN), clients=1), seconds=1.0, n_upkeep=5)
    assert row.pages_a_s > 0
    assert 0 < row.links_new <= 1.01
    assert row.links_new < row.links_sent <= 20
    assert row.core * 1e6 == pytest.approx(row.page_us * row.pages_a_s)
    assert min(row.beat_us, row.look_us, row.bytes_in, row.bytes_out) > 0


def test_bursts_are_taken_and_larger_commits_send_the_same(own_server: Endpoint) -> None:
    """The server takes commits that were made before it gave their leases; a page sends what it sends."""
    row = burst.measure_one(own_server, 4, 1.0, bursts=2)
    assert (row.pages_a_commit, row.links_sent, len(row.page_us)) == (4, 1.0, 2)
    assert min(row.page_us) > 0
