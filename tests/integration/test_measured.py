"""The benchmarks measure something: each of them, with as little as it takes, against real parts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import effort, instructions, items, memory, relay, rivals, start
from benchmarks.lines import listen


def test_listen_notes_when_a_line_is_there(tmp_path: Path) -> None:
    """Lines have the time of their arrival, not that of the end."""
    words = (
        "import sys, time; print('one', file=sys.stderr, flush=True); time.sleep(0.3); print('two', file=sys.stderr)"
    )
    heard = listen([sys.executable, "-c", words], cwd=tmp_path, env={})
    first, second = heard.lines
    assert (first.text, second.text) == ("one", "two")
    assert heard.begin_s < first.at_s < second.at_s - 0.2 < heard.end_s


def test_listen_shows_what_was_said_when_a_command_fails(tmp_path: Path) -> None:
    """A failed command is no sample."""
    with pytest.raises(RuntimeError, match="exit code 3:\nwhy"):
        listen([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"], cwd=tmp_path, env={})


def test_memory_of_the_server_is_that_of_its_data() -> None:
    """A request that was seen takes eight bytes and a little; one that waits takes more than its URL."""
    seen, waiting = memory.measure_server(seen=[200_000], queued=20_000)
    assert 8 <= seen.used / seen.n <= 14
    assert waiting.urls < waiting.keys <= waiting.urls + 90 * waiting.n
    assert waiting.used == pytest.approx(waiting.keys, rel=0.2)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_of_processes_is_seen(tmp_path: Path) -> None:
    """Each of them is there while it is looked at, and shares some of what it has."""
    found = {row.what: row for row in memory.measure_processes(tmp_path, pages=500)}
    assert set(found) >= {
        "agent, idle",
        "template, idle",
        "crawl process, in the crawl",
        "`scrapy crawl`, in the crawl",
    }
    assert all(10 * memory.MB < row.pss < row.rss < 500 * memory.MB for row in found.values())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_starts_are_timed(tmp_path: Path) -> None:
    """In each way, the first line comes before the end, and is another one for a crawl process."""
    found = start.measure(tmp_path, runs=1, n_files=3)
    assert [one.way for one in found] == [start.SCRAPY, start.VSCRAPY, start.UNEDITED, start.EDITED]
    assert all(0 < one.line_s < one.wall_s for one in found)
    assert len(start.added_by_edit(found)) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_relay_is_timed(tmp_path: Path) -> None:
    """All lines of the burst arrive, or are told of; and no line arrives before it was said."""
    found = relay.measure(tmp_path, pages=100, runs=1, lines=20, rate=10_000, burst_s=0.3)
    assert len([row for row in found if isinstance(row, relay.Speed)]) == 4
    assert all(min(row.delays_s) > 0 for row in found if isinstance(row, relay.Delays))
    [burst] = [row for row in found if isinstance(row, relay.Burst)]
    assert burst.n_arrived + burst.n_gone >= burst.n_said == 3000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_items_are_counted(tmp_path: Path) -> None:
    """All ways bring all items home; what is short of one raises."""
    found = items.measure(tmp_path, pages=3, items=200, runs=1)
    assert len({rate.way for rate in found}) == 5
    assert all(rate.n_items == 600 and rate.seconds > 0 for rate in found)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_cpu_time_is_told_in_loops(tmp_path: Path) -> None:
    """All crawl processes tell of their pages; what is short of one raises."""
    found = effort.measure(tmp_path, pages=100, runs=1, cases=[(1, 0), (2, 5)])
    assert [own.way for _, own in found] == ["vscrapy, 1 crawl process, 0 ms", "vscrapy, 2 crawl processes, 5 ms"]
    assert all(scrapy.loops > 0 and own.loops > 0 for scrapy, own in found)
    assert [own.server_us is not None and own.server_us > 0 for _, own in found] == [True, True]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
def test_instructions_are_counted() -> None:
    """A page in a larger commit takes fewer, and the same commits take nearly as many again."""
    one, again, four = (instructions.measure_one(pages, 1.0, pages=40) for pages in (1, 1, 4))
    assert one.a_page == one.a_commit == pytest.approx(again.a_page, rel=0.1)
    assert four.a_page < one.a_page < four.a_commit


@pytest.mark.long
@pytest.mark.timeout(600)
def test_rival_crawls_the_load(tmp_path: Path) -> None:
    """In an environment of its own, it gives each page once, as the load's own check says."""
    found = rivals.measure(tmp_path, pages=50, runs=1, round_trips_ms=[0, 1])
    assert [rival.way for rival in found] == [rivals.SCRAPY, "scrapy-redis 0.9.1, 0 ms", "scrapy-redis 0.9.1, 1 ms"]
    assert all(rival.pages_a_s > 0 for rival in found)
