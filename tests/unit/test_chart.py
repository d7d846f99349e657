"""The chart of growth: well-formed, with each point that it was given."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart
from benchmarks.chart import Axis

_SVG = "{http://www.w3.org/2000/svg}"


def told(path: Path) -> list[str]:
    """What the points say that are drawn, in order."""
    return [title.text or "" for title in ElementTree.parse(path).iter(f"{_SVG}title")]


def test_chart_is_well_formed_and_has_each_point(tmp_path: Path) -> None:
    """All points are in it, of names with any characters, too, and inside of it."""
    path = tmp_path / "growth.svg"
    chart.draw(path, [(1, 300.0), (2, 580.0)], [(1, 20.0), (200, 4000.0)], {"1 & <2>": [(0, 310.0), (20, 290.0)]})
    assert told(path) == [
        "real crawls, all on this machine: 1, 300 pages/s",
        "real crawls, all on this machine: 2, 580 pages/s",
        "simulated: Redis by itself: 1, 20 pages/s",
        "simulated: Redis by itself: 200, 4000 pages/s",
        "1 & <2>: 0, 310 pages/s",
        "1 & <2>: 20, 290 pages/s",
    ]
    circles = [dict(circle.attrib) for circle in ElementTree.parse(path).iter(f"{_SVG}circle")]
    assert all(0 <= float(at["cx"]) <= 2 * chart.WIDTH and 0 <= float(at["cy"]) <= chart.HEIGHT for at in circles)


def test_chart_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    """Without figures for it, a line, or a whole chart, is not drawn."""
    path = tmp_path / "growth.svg"
    chart.draw(path, [], [(10, 200.0)], {})
    assert told(path) == ["simulated: Redis by itself: 10, 200 pages/s"]


@pytest.mark.parametrize("is_log", [False, True])
def test_axis_keeps_order_and_ends(is_log: bool) -> None:
    """Its ends are where they were put, and a larger number is further along."""
    axis = Axis(1, 1000, 70, 440, is_log)
    places = [axis.at(value) for value in (1, 10, 500, 1000)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (70, 440)


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [(Axis(0, 600, 0, 1), [0, 100, 200, 300, 400, 500, 600]), (Axis(1, 4400, 0, 1, is_log=True), [1, 10, 100, 1000])],
)
def test_ticks_are_round_numbers(axis: Axis, ticks: list[float]) -> None:
    """They are few, and easily read."""
    assert axis.ticks() == ticks
