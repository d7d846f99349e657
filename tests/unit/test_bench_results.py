"""``make bench``: what was measured before stays in the results, and the chart shows what was measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import crowd, rivals, run, speed
from benchmarks.rivals import Rival
from benchmarks.speed import Pair
from benchmarks.way import Sample


def test_parts_that_were_not_measured_anew_stay(tmp_path: Path) -> None:
    """In their order, whichever was measured first."""
    results = tmp_path / "RESULTS.md"
    run.write(results, "make bench", {"memory": "| 61 bytes |"})
    run.write(results, "make bench", {"speed": "| 400 pages/s |"})
    run.write(results, "make bench", {"memory": "| 62 bytes |"})
    text = results.read_text()
    assert text.index("## Pages a second") < text.index("| 400 pages/s |") < text.index("## Memory")
    assert "| 62 bytes |" in text
    assert "| 61 bytes |" not in text


def test_chart_shows_what_the_tables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By processes where there is no round trip, by round trip where there is one process; also of earlier runs."""
    monkeypatch.setattr(run, "CHART", tmp_path / "growth.svg")
    results = tmp_path / "RESULTS.md"
    pages = {
        "vscrapy, 1 crawl process, 0 ms": [300, 200, 100],
        "vscrapy, 2 crawl processes, 0 ms": [400],
        "vscrapy, 1 crawl process, 5 ms": [150],
        "vscrapy, 2 crawl processes, 5 ms": [390],
    }
    pairs = {way: [Pair(Sample(100, 1, 1), Sample(each, 1, 1)) for each in found] for way, found in pages.items()}
    crowds = "| 1 | 20 | 20 | 1.0 |\n| 50 | 1000 | 1,000 | 1.0 |\n| 200 | 4000 | 3145 | 16.0 |"
    run.draw("# Benchmarks\n")
    assert not run.CHART.exists()
    for name, text in {
        "speed": speed.table(pairs),
        "crowd": f"{crowd.HEAD}\n{crowds}",
        "rivals": rivals.table([Rival(rivals.SCRAPY, 200.0), Rival("scrapy-redis 0.9.1, 5 ms", 50.0)]),
    }.items():
        run.write(results, "make bench", {name: text})
    run.draw(results.read_text())
    titles = {found.text for found in ElementTree.parse(run.CHART).iter("{http://www.w3.org/2000/svg}title")}
    assert titles == {
        "real crawls, all on this machine: 1, 200 pages/s",
        "real crawls, all on this machine: 2, 400 pages/s",
        "simulated: Redis by itself: 1, 20 pages/s",
        "simulated: Redis by itself: 50, 1000 pages/s",
        "vscrapy, 1 crawl process: 0, 200 pages/s",
        "vscrapy, 1 crawl process: 5, 150 pages/s",
        "scrapy-redis: 5, 50 pages/s",
    }
