"""The figures of the parity suite, from access logs that are made up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.parity.figure import Figure, at_least, at_most, between, used
from tests.parity.traffic import arrivals_a_s, at_once, shortest_gap_s


def entry(start_s: float, end_s: float, *, slot: str = "a", let_go_s: float | None = None) -> dict[str, Any]:
    """A request, in the site's log."""
    mark = start_s if let_go_s is None else let_go_s
    return {"start_monotonic_s": start_s, "end_monotonic_s": end_s, "user_agent": f"{slot} {mark!r}"}


def test_at_once_is_the_most_requests_that_overlap() -> None:
    """One that ends as another begins is not beside it."""
    assert at_once([entry(0, 2), entry(1, 3), entry(2, 4), entry(5, 6)]) == 2
    assert at_once([]) == 0


def test_shortest_gap_is_counted_from_when_requests_were_let_go() -> None:
    """Not from when they arrived, and in whatever order they did."""
    log = [entry(1.4, 2, let_go_s=1.0), entry(0.3, 1, let_go_s=0.25), entry(1.5, 2, let_go_s=1.5)]
    assert shortest_gap_s(log) == 0.5


def test_arrivals_are_counted_between_the_first_and_the_last() -> None:
    """Three in two seconds are one a second."""
    assert arrivals_a_s([entry(4, 5), entry(3, 5), entry(2, 5)]) == 1


@pytest.mark.parametrize(
    ("bounds", "expected", "right", "wrong"),
    [
        (at_most(4), 3, 4, 5),
        (at_most(4), 6, 6, 7),
        (at_least(0.1), 0.2, 0.1, 0.09),
        (at_least(0.1), 0.08, 0.08, 0.07),
        (used(100), 80, 72, 71),
        (used(100), 200, 90, 89),
        (used(100, most=101), 100, 101, 102),
        (between({"3 processes": (5, 6)}), 0, 5, 7),
        (between({"1 process": (5, 6)}), 0, math.inf, None),
    ],
)
def test_figure_names_what_is_out_of_bounds(bounds: Any, expected: float, right: float, wrong: float | None) -> None:
    """By the limit, and by what Scrapy had."""
    figure = Figure(shows="{} pages", measure=lambda runs: 0, bounds=bounds, says="bounded", digits=2)
    assert figure.problem("3 processes", expected, right) is None
    if wrong is not None:
        assert str(figure.problem("3 processes", expected, wrong)).startswith(f"{wrong:.2f} pages, not ")
