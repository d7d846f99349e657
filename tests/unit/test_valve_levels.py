"""Which lines a valve lets through."""

from __future__ import annotations

import logging

import pytest

from vscrapy.valve import ALL, NOTHING, Valve, weight
from vscrapy.wire import LogLine


@pytest.mark.parametrize(
    ("valve", "is_attended", "least"),
    [
        (Valve.AUTO, True, ALL),
        (Valve.AUTO, False, logging.WARNING),
        (Valve.DEBUG, False, logging.DEBUG),
        (Valve.ERROR, True, logging.ERROR),
        (Valve.OFF, True, NOTHING),
    ],
)
def test_level_that_was_asked_for_holds_whoever_listens(valve: Valve, is_attended: bool, least: int) -> None:
    """Only the automatic valve looks who is there."""
    assert valve.least(is_attended=is_attended) == least


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (LogLine("log", "x", level=logging.DEBUG), logging.DEBUG),
        (LogLine("log", "x", level=0), 0),
        (LogLine("out", "x"), logging.INFO),
        (LogLine("err", "x"), logging.WARNING),
        (LogLine("err", "x", level=logging.CRITICAL), logging.CRITICAL),
        (LogLine("strange", "x"), logging.WARNING),
    ],
)
def test_line_weighs_as_its_level_or_its_stream(line: LogLine, expected: int) -> None:
    """Prints are information, and what goes to stderr is a warning at least."""
    assert weight(line) == expected


def test_nothing_passes_a_valve_that_is_off() -> None:
    """Not even the worst."""
    assert weight(LogLine("log", "x", level=logging.CRITICAL)) < Valve.OFF.least(is_attended=True)
