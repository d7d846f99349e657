"""Bytes of a crawl process to log lines."""

from __future__ import annotations

import json

import pytest

from vscrapy.wire import LogLine
from vscrapy.worker.lines import CUT, LINE_CHARS, OBJECT_BYTES, ChannelLines, TextLines


def text_lines() -> TextLines:
    """Text of process 3 on worker w1, at the time 5."""
    return TextLines("out", process=3, worker="w1", clock=lambda: 5.0)


def channel_lines() -> ChannelLines:
    """Objects of process 3 on worker w1, at the time 5."""
    return ChannelLines(process=3, worker="w1", clock=lambda: 5.0)


def test_text_is_split_at_newlines_and_kept_as_it_came() -> None:
    """Each line keeps its end; the part behind the last one waits."""
    lines = text_lines()
    assert [line.text for line in lines.feed(b"one\r\n\ntwo\nthr")] == ["one\r\n", "\n", "two\n"]
    assert lines.is_partial
    assert [line.text for line in lines.feed(b"ee\n")] == ["three\n"]
    assert not lines.is_partial


def test_text_has_process_worker_and_time() -> None:
    """The agent says who has written it."""
    assert text_lines().feed(b"x\n") == [LogLine("out", "x\n", 5.0, process=3, worker="w1")]


def test_character_that_is_cut_by_the_pipe_is_put_together() -> None:
    """Half a character is no error, and is not shown before its other half has come."""
    lines = text_lines()
    encoded = "€\n".encode()
    assert lines.feed(encoded[:1]) == []
    assert lines.flush() == []
    assert [line.text for line in lines.feed(encoded[1:])] == ["€\n"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    """Whatever a C library writes is shown somehow."""
    assert [line.text for line in text_lines().feed(b"a\xff\n")] == ["a\ufffd\n"]


def test_flush_gives_a_part_without_its_end() -> None:
    """A prompt or a progress bar is shown; what follows is a part, too."""
    lines = text_lines()
    assert lines.feed(b"50 %") == []
    assert [line.text for line in lines.flush()] == ["50 %"]
    assert lines.flush() == []
    assert [line.text for line in lines.feed(b"\r100 %\n")] == ["\r100 %\n"]


def test_end_gives_half_a_character() -> None:
    """Nothing that was written is dropped at the end."""
    lines = text_lines()
    assert lines.feed("€".encode()[:2]) == []
    assert [line.text for line in lines.flush(is_end=True)] == ["\ufffd"]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_long_text_is_cut_with_a_mark(size: int) -> None:
    """A line over the limit is cut once, however it comes in; the next one is whole."""
    lines = text_lines()
    data = b"x" * (LINE_CHARS + 500) + b"\nnext\n"
    found = []
    for at in range(0, len(data), size):
        found += lines.feed(data[at : at + size])
    text = "".join(line.text for line in found)
    assert text == "x" * LINE_CHARS + CUT + "\nnext\n"


def test_endless_text_is_cut_although_it_is_flushed() -> None:
    """Text without any newline does not become an endless log."""
    lines = text_lines()
    text = ""
    for _ in range(300):
        text += "".join(line.text for line in lines.feed(b"x" * 1000) + lines.flush())
    assert text == "x" * LINE_CHARS + CUT


def test_object_becomes_a_line_of_its_process() -> None:
    """What the crawl process says of itself is replaced by what the agent knows."""
    data = LogLine("log", "Crawled", 2.5, 10, "scrapy", True, (("lineno", 3),), 99, "liar").to_data()
    lines = channel_lines()
    encoded = json.dumps(data).encode() + b"\n"
    assert lines.feed(encoded[:10]) == []
    assert lines.feed(encoded[10:]) == [LogLine("log", "Crawled", 2.5, 10, "scrapy", True, (("lineno", 3),), 3, "w1")]


def test_object_without_time_gets_the_present_one() -> None:
    """A print carries no time."""
    assert channel_lines().feed(b'{"s": "out", "x": "hello"}\n') == [
        LogLine("out", "hello", 5.0, process=3, worker="w1")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        "7",
        "null",
        "{}",
        '{"s": "log"}',
        '{"s": "log", "x": 7}',
        '{"s": "log", "x": "a", "a": 7}',
        '{"s": "log", "x": "a", "l": Infinity}',
        "[" * 100_000,
    ],
)
def test_malformed_object_is_shown_as_text(text: str) -> None:
    """A project can write anything to the channel; nothing of it raises, and all of it is seen."""
    (line,) = channel_lines().feed(text.encode() + b"\n")
    assert line.stream == "err"
    assert line.text.startswith(text[:LINE_CHARS])


def test_long_text_in_an_object_is_cut() -> None:
    """A log record over the limit is cut, and stays a record."""
    (line,) = channel_lines().feed(json.dumps({"s": "log", "x": "x" * 100_000}).encode() + b"\n")
    assert (line.stream, line.text) == ("log", "x" * LINE_CHARS + CUT)


def test_object_beyond_all_measure_does_not_fill_the_memory() -> None:
    """An object without an end is cut, the rest of it is skipped, and the next one is read."""
    lines = channel_lines()
    found = []
    for _ in range(OBJECT_BYTES // 65536 * 2):
        found += lines.feed(b"x" * 65536)
    found += lines.feed(b'x\n{"s": "log", "x": "next"}\n')
    assert [line.text[-5:] for line in found] == [(CUT + "\n")[-5:], "next"]


def test_end_gives_an_object_without_newline() -> None:
    """The last words of a process that was killed are shown."""
    lines = channel_lines()
    assert lines.feed(b'{"s": "out", "x": "la') == []
    assert [line.text for line in lines.end()] == ['{"s": "out", "x": "la\n']
