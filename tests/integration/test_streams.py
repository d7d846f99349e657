"""A task's log and items: cursors, the cap with its gaps, the end record, and every text that Python can print."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.support import Process, running, submit
from vscrapy.shown import shown
from vscrapy.states import StopMode
from vscrapy.store import frontier
from vscrapy.store.base import Store
from vscrapy.store.entries import EndRecord, LogEntry
from vscrapy.store.frontier import Result
from vscrapy.store.streams import BEGINNING, Cursors, Streams
from vscrapy.store.tasks import Tasks
from vscrapy.wire import LogLine


@pytest.fixture
def streams(store: Store) -> Streams:
    """Give the streams of a server."""
    return Streams(store)


def lines(*texts: object) -> list[LogLine]:
    """One line for each."""
    return [LogLine("out", str(text), 1.5) for text in texts]


def texts(entries: list[LogEntry]) -> list[str]:
    """The texts of all lines, in order."""
    return [line.text for entry in entries for line in entry.lines]


def read_log(streams: Streams, taskid: int, cursor: str = BEGINNING) -> list[LogEntry]:
    """Read what there is after the cursor."""
    return streams.read(taskid, Cursors(log=cursor), with_items=False)[0]


def item_feeder(store: Store) -> Process:
    """A crawl process that has given three batches of items."""
    process = running(store, submit(store))
    for n in (1, 2, 3):
        process.commit(Result("feed", items=[b"batch%d" % n, *[b""] * (n - 1)]))
    return process


# --- the log --------------------------------------------------------------------------------------------------------


def test_log_comes_in_order_with_the_numbers_of_its_lines(store: Store, streams: Streams) -> None:
    """Each entry says the number of its first line."""
    taskid = submit(store)
    streams.append_log(taskid, lines("a", "b"))
    streams.append_log(taskid, lines("c"))
    entries = read_log(streams, taskid)
    assert [(entry.first, texts([entry])) for entry in entries] == [(0, ["a", "b"]), (2, ["c"])]


def test_log_goes_on_after_the_cursor(store: Store, streams: Streams) -> None:
    """Whoever reads again gets what is new, nothing twice."""
    taskid = submit(store)
    streams.append_log(taskid, lines("a"))
    cursor = read_log(streams, taskid)[-1].cursor
    streams.append_log(taskid, lines("b"))
    assert texts(read_log(streams, taskid, cursor)) == ["b"]


def test_log_of_a_task_that_is_not_there_is_refused(store: Store, streams: Streams) -> None:
    """A late line brings no part of a task back."""
    assert (streams.append_log(7, lines("a")), store.client.keys("*")) == (False, [])


def test_log_after_the_end_is_refused(store: Store, streams: Streams) -> None:
    """The end record stays the last."""
    taskid = submit(store)
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    assert (streams.append_log(taskid, lines("a")), read_log(streams, taskid)[-1].end) == (
        False,
        EndRecord("shutdown", 0),
    )


@pytest.mark.parametrize("reason", ['é/"\\\n\t\u2028', "x" * 1000, "{}", "null", ""])
def test_end_record_keeps_any_reason(store: Store, streams: Streams, reason: str) -> None:
    """A spider may close with any word; what would control a terminal is spelled."""
    taskid = submit(store)
    Tasks(store).stop(taskid, reason=reason, mode=StopMode.GRACEFUL)
    assert read_log(streams, taskid)[-1].end == EndRecord(shown(reason), 0)


def test_log_is_capped_by_lines_and_the_cut_shows(store: Store, streams: Streams) -> None:
    """The oldest entries go; the number of the first line tells the reader how many lines are missing."""
    taskid = submit(store, log_keep=5)
    for n in range(10):
        streams.append_log(taskid, lines(f"{n}a", f"{n}b"))
    entries = read_log(streams, taskid)
    assert (entries[0].first, texts(entries)) == (16, ["8a", "8b", "9a", "9b"])


def test_log_keeps_its_newest_entry_however_long(store: Store, streams: Streams) -> None:
    """One entry that is longer than the cap replaces all others."""
    taskid = submit(store, log_keep=5)
    streams.append_log(taskid, lines("old"))
    streams.append_log(taskid, lines(*range(20)))
    streams.append_log(taskid, lines("new"))
    assert texts(read_log(streams, taskid)) == ["new"]


def test_log_with_nothing_to_append_writes_nothing(store: Store, streams: Streams) -> None:
    """No empty entries, which no cap would ever remove."""
    taskid = submit(store)
    assert (streams.append_log(taskid, []), streams.last_lines(taskid, 1)) == (True, [])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=30), level=st.integers(0, 50))
def test_log_keeps_any_text(bare_store: Store, text: str, level: int) -> None:
    """Zeros, line ends, emoji and lone surrogates travel as they are."""
    streams = Streams(bare_store)
    taskid = submit(bare_store)
    line = LogLine("log", text, 2.25, level, text, True, (("name", text), ("n", 1)), 3, text)
    streams.append_log(taskid, [line])
    assert streams.last_lines(taskid, 1)[0].lines == (line,)


@pytest.mark.parametrize("text", ["\udcff", "\ud83d\ude00", "a\0b", "\U0010ffff"])
def test_log_keeps_surrogates(store: Store, streams: Streams, text: str) -> None:
    """What Python makes of bytes that are no text comes out as it went in."""
    taskid = submit(store)
    streams.append_log(taskid, lines(text))
    assert texts(read_log(streams, taskid)) == [text]


@pytest.mark.parametrize(
    ("most", "expected"), [(0, []), (1, ["249"]), (3, ["247", "248", "249"]), (1000, [str(n) for n in range(250)])]
)
def test_last_lines_are_the_newest_in_their_order(
    store: Store, streams: Streams, most: int, expected: list[str]
) -> None:
    """As many as asked for, or all, over several pages of the stream."""
    taskid = submit(store)
    for n in range(250):
        streams.append_log(taskid, lines(n))
    assert texts(streams.last_lines(taskid, most)) == expected


@pytest.mark.parametrize("most", [150, 200, 201])
def test_last_lines_page_without_losing_any(store: Store, streams: Streams, most: int) -> None:
    """The end of a page is neither lost nor twice."""
    taskid = submit(store)
    for n in range(250):
        streams.append_log(taskid, lines(n))
    assert texts(streams.last_lines(taskid, most)) == [str(n) for n in range(250 - most, 250)]


def test_last_lines_include_the_end_record(store: Store, streams: Streams) -> None:
    """Whoever looks at a finished task sees how it ended."""
    taskid = submit(store)
    streams.append_log(taskid, lines("a", "b"))
    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    entries = streams.last_lines(taskid, 1)
    assert (texts(entries), entries[-1].end) == (["a", "b"], EndRecord("shutdown", 0))


def test_read_of_nothing_is_empty(store: Store, streams: Streams) -> None:
    """Neither stream exists yet."""
    assert streams.read(submit(store), Cursors(), with_items=True) == ([], [])


def test_read_takes_no_more_than_is_asked_for(store: Store, streams: Streams) -> None:
    """The rest comes with the next read."""
    taskid = submit(store)
    for n in range(5):
        streams.append_log(taskid, lines(n))
    logs, _ = streams.read(taskid, Cursors(), with_items=False, most=2)
    assert texts(logs) == ["0", "1"]


# --- items ----------------------------------------------------------------------------------------------------------


def test_items_come_in_order_with_their_cursors(store: Store, streams: Streams) -> None:
    """Batches come as they were signed, with their counts."""
    taskid = item_feeder(store).taskid
    _, items = streams.read(taskid, Cursors(), with_items=True)
    _, rest = streams.read(taskid, Cursors(items=items[0].cursor), with_items=True)
    assert [[(entry.n_items, entry.signed) for entry in found] for found in (items, rest)] == [
        [(1, b"batch1"), (2, b"batch2"), (3, b"batch3")],
        [(2, b"batch2"), (3, b"batch3")],
    ]


def test_items_of_a_commit_are_one_batch_of_a_bounded_size(
    store: Store, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their number, and by their bytes; what is larger by itself has a batch for itself."""
    monkeypatch.setattr(frontier, "BATCH_ITEMS", 3)
    monkeypatch.setattr(frontier, "BATCH_BYTES", 10)
    process = running(store, submit(store))
    process.commit(Result("feed", items=[b"a", b"b"]), Result("feed", items=[b"c", b"d"]))
    process.commit(Result("feed", items=[b"12345", b"6789", b"abcd", b"larger than ten", b"e"]))
    _, items = streams.read(process.taskid, Cursors(), with_items=True)
    assert [(entry.n_items, entry.signed) for entry in items] == [
        *((3, b"abc"), (1, b"d")),
        *((2, b"123456789"), (1, b"abcd"), (1, b"larger than ten"), (1, b"e")),
    ]


def test_log_and_items_are_read_together(store: Store, streams: Streams) -> None:
    """One read serves both streams."""
    taskid = item_feeder(store).taskid
    streams.append_log(taskid, lines("a"))
    logs, items = streams.read(taskid, Cursors(), with_items=True)
    assert (texts(logs), len(items)) == (["a"], 3)


def test_one_entry_in_each_stream_is_read_as_one(store: Store, streams: Streams) -> None:
    """A single entry looks much like a list of one, in either protocol."""
    process = running(store, submit(store))
    [joined], none = streams.read(process.taskid, Cursors(), with_items=True)
    assert (joined.is_joined, joined.lines, none) == (True, (), [])
    process.commit(Result("feed", items=[b"batch"]))
    streams.append_log(process.taskid, lines("a"))
    logs, items = streams.read(process.taskid, Cursors(log=joined.cursor), with_items=True)
    assert (len(logs), len(items)) == (1, 1)
    assert not logs[0].is_joined


def test_items_are_not_read_where_they_are_not_wanted(store: Store, streams: Streams) -> None:
    """Who only follows the log gets no items."""
    taskid = item_feeder(store).taskid
    assert streams.read(taskid, Cursors(), with_items=False)[1] == []


def test_trim_items_drops_up_to_the_cursor(store: Store, streams: Streams) -> None:
    """What home has taken is gone, the rest stays; again is harmless."""
    taskid = item_feeder(store).taskid
    _, items = streams.read(taskid, Cursors(), with_items=True)
    streams.fetched_items(taskid, items[1].cursor, is_drop=True)
    streams.fetched_items(taskid, items[1].cursor, is_drop=True)
    record = Tasks(store).record(taskid)
    assert record.items_bytes == len(b"batch3")
    _, left = streams.read(taskid, Cursors(), with_items=True)
    assert [entry.signed for entry in left] == [b"batch3"]


def test_trim_items_of_nothing_makes_no_key(store: Store, streams: Streams) -> None:
    """A task without items has no stream of them."""
    streams.fetched_items(7, "5-3", is_drop=True)
    assert store.client.keys("*") == []
