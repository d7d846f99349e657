"""What the benchmarks make of what they have measured: lines with their times, samples, and the tables."""

from __future__ import annotations

import pytest

from benchmarks import items, memory, relay, rivals, start
from benchmarks.lines import Heard, Line
from benchmarks.spread import share, spread

#: When the command began (seconds since the epoch).
BEGIN_S = 1000.0


def heard(*lines: tuple[float, str]) -> Heard:
    """A command that said these lines, so many seconds after its begin."""
    return Heard(BEGIN_S, BEGIN_S + 9, 0, [Line(BEGIN_S + at_s, text) for at_s, text in lines])


def cells(table: str, first: str) -> list[str]:
    """The cells of the one row of a table that begins with *first*, without that."""
    [row] = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


# --- samples


def test_spread_has_the_median_and_both_ends() -> None:
    """Of several samples, one odd one moves only an end."""
    assert spread([1.0, 100.0, 2.0], 0, " ms") == "2 ms (1 to 100)"


@pytest.mark.parametrize(("at", "expected"), [(0.0, 0), (0.5, 50), (0.99, 99), (1.0, 99)])
def test_share_is_the_value_at_its_place(at: float, expected: int) -> None:
    """Of the numbers from 0 to 99 in any order, each share lies where it should."""
    assert share(list(range(99, -1, -1)), at) == expected


def test_share_is_refused_when_there_are_no_values() -> None:
    """Nothing lies nowhere."""
    with pytest.raises(ValueError, match="no values"):
        share([], 0.5)


# --- lines


def test_logged_tells_the_commands_own_lines_from_those_of_crawl_processes() -> None:
    """By the process's name in the line; what is no line of the log is neither."""
    said = heard(
        (0.1, "vscrapy: task 7: page, 4 files (1 kB new)"),
        (0.2, "1000.150000 w1:1 Spider opened"),
        (0.3, "1000.250000 MainProcess Spider closed (finished)"),
        (0.3, "{'item_scraped_count': 1}"),
    )
    assert [(created_s, words) for _, created_s, words in said.logged(is_remote=True)] == [(1000.15, "Spider opened")]
    assert [words for _, _, words in said.logged(is_remote=False)] == ["Spider closed (finished)"]


def test_start_is_timed_to_the_first_line_of_the_crawl_process() -> None:
    """What the sender says itself does not count."""
    said = heard(
        (0.1, "1000.1 MainProcess the sender's own"),
        (0.4, "1000.3 w1:1 Scrapy started (bot: one)"),
        (0.5, " 'item_scraped_count': 1,"),
    )
    found = start.sample(start.VSCRAPY, said)
    assert found.line_s == pytest.approx(0.4)
    assert found.wall_s == pytest.approx(9)
    assert start.sample(start.SCRAPY, said).line_s == pytest.approx(0.1)


@pytest.mark.parametrize("text", ["1000.1 w1:1 Scrapy started", "'item_scraped_count': 1"])
def test_start_is_refused_when_it_did_not_crawl(text: str) -> None:
    """A crawl without a line, or without its item, is no sample."""
    with pytest.raises(RuntimeError, match="did not crawl"):
        start.sample(start.VSCRAPY, heard((0.1, text)))


def test_delays_begin_when_the_spider_opens() -> None:
    """What was said before waited for the sender, and says nothing of the relay."""
    said = heard(
        (2.0, "1000.0 w1:1 Scrapy started"),
        (2.0, "1001.9 w1:1 Spider opened"),
        (2.5, "1002.2 w1:1 timed 0"),
        (2.6, "1002.6 MainProcess Spider closed (finished)"),
    )
    assert relay.delays("lines", said).delays_s == pytest.approx((0.1, 0.3))


def test_burst_counts_what_arrives_twice_and_what_is_gone() -> None:
    """Of five lines, three come, one of them twice; two notices speak of the others."""
    said = heard(
        (0.1, "1000.0 w1:1 timed 0"),
        (0.2, "1000.1 w1:1 timed 1"),
        (0.2, "1000.1 w1:1 timed 1"),
        (0.3, "vscrapy: [... 1 lines are cut: the log keeps only the newest (VSCRAPY_LOG_KEEP) ...]"),
        (0.3, "[... 1 lines lost on worker w1: Redis was away ...]"),
        (0.5, "1000.4 w1:1 timed 4"),
        (0.5, "1000.4 w1:1 all were said in 0.250 s"),
    )
    found = relay.burst(said, 5)
    assert (found.n_said, found.n_arrived, found.n_twice, found.n_gone, len(found.notices)) == (5, 3, 1, 2, 2)
    assert (found.said_s, found.arrived_s) == pytest.approx((0.25, 0.5))


def test_span_is_from_the_remote_begin_to_the_end_at_home() -> None:
    """The items are in the file when home's spider is closed."""
    said = heard((0.5, "1000.4 w1:1 Spider opened"), (3.0, "1002.9 MainProcess Spider closed (finished)"))
    assert items.span_s(said, is_remote=True) == pytest.approx(2.5)


def test_rollup_reads_both_sizes() -> None:
    """In bytes; lines that look alike do not count."""
    text = "55-7f ---p 00000000 00:00 0 [rollup]\nRss:    2048 kB\nPss:    1024 kB\nPss_Dirty:    512 kB\n"
    assert memory.rollup(text) == (1024 * 1024, 2048 * 1024)


# --- tables


def test_table_of_starts_compares_within_a_round() -> None:
    """Ratios and differences are of the crawls of one round, and what an edit adds is told."""
    rows = []
    for more_s in (0.0, 0.5, 1.0):
        rows += [
            start.Start(start.SCRAPY, 0.2 + more_s, 0.5 + more_s),
            start.Start(start.VSCRAPY, 0.4 + 2 * more_s, 1.0 + 2 * more_s),
            start.Start(start.UNEDITED, 0.5 + more_s, 1.0),
            start.Start(start.EDITED, 0.53 + more_s, 1.0),
        ]
    table = start.table(rows)
    assert cells(table, start.VSCRAPY)[1] == "2.00 (2.00 to 2.00)"
    assert "the first line comes 0.70 s later, and the exit 1.00 s later" in table
    assert "adds 30 ms (30 to 30)" in table


def test_table_of_memory_takes_urls_off_what_waits() -> None:
    """A request's URL is its own; what the server adds is what is told."""
    rows: list[memory.ServerMemory | memory.ProcessMemory] = [
        memory.ServerMemory("seen", 1000, 9000, 8500),
        memory.ServerMemory("waiting", 100, 12_000, 11_000, urls=6000),
        memory.summary("agent, idle", [(1_000_000, 2_000_000), (3_000_000, 4_000_000), (2_000_000, 3_000_000)]),
    ]
    table = memory.table(rows)
    assert cells(table, "a request seen, of 1,000") == ["9.0", "8.5"]
    assert cells(table, "a request waiting, of 100") == ["60.0 and its URL", "50.0 and its URL"]
    assert cells(table, "agent, idle") == ["3.0", "4.0", "3.0", "4.0"]


def test_table_of_the_relay_tells_by_how_much_debug_slows() -> None:
    """Each tool against itself with less of a log, and both against each other."""
    speeds = {(relay.SCRAPY, "INFO"): 100, (relay.SCRAPY, "DEBUG"): 80, (relay.VSCRAPY, "INFO"): 200}
    rows: list[relay.Row] = [relay.Speed(way, level, speed) for (way, level), speed in speeds.items()]
    rows += [
        relay.Speed(relay.VSCRAPY, "DEBUG", 120),
        relay.Delays("calm", (0.01, 0.03, 0.02)),
        relay.Burst(1000, 990, 0, 10, ("a cut",), 2.0, 2.5),
    ]
    table = relay.table(rows)
    assert cells(table, "DEBUG") == ["80 (80 to 80)", "120 (120 to 120)", "1.50 (1.50 to 1.50)"]
    assert f"slows {relay.SCRAPY} by 20 % (20 to 20), {relay.VSCRAPY} by 40 % (40 to 40)" in table
    assert cells(table, "calm") == ["3", "20", "30", "30"]
    assert "Of 1,000 lines said in 2.0 s (500 a second), 990 arrived within 2.5 s" in table


def test_tables_of_items_and_rivals_have_a_row_a_way() -> None:
    """With the middle of its runs."""
    table = items.table([items.Rate("way", 100, seconds) for seconds in (1.0, 2.0, 4.0)])
    assert cells(table, "way") == ["50 (25 to 100)"]
    table = rivals.table([rivals.Rival(way, speed) for way, speed in ((rivals.SCRAPY, 100), ("rival", 25))])
    assert cells(table, "rival") == ["25 (25 to 25)", "0.25 (0.25 to 0.25)"]
