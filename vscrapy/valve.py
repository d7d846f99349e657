"""
The valve: which lines of a task's log are relayed to Redis while it runs.

Text on stdout counts as INFO and on stderr as WARNING, so that tracebacks are kept where warnings are.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vscrapy.wire import LogLine

#: The level that lets everything through, and the one that lets nothing through.
ALL: Final = 0
NOTHING: Final = 1 << 30
#: The level of what is kept of a task that nobody listens to.
UNATTENDED: Final = logging.WARNING
#: How much texts weigh, by their stream.
TEXT_LEVELS: Final = {"out": logging.INFO, "err": logging.WARNING}


class Valve(StrEnum):
    """How a task's valve is turned."""

    #: Everything while somebody listens, else warnings and worse.
    AUTO = "auto"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"
    OFF = "off"

    def least(self, *, is_attended: bool) -> int:
        """
        Say from which level on lines are relayed.

        Args:
            is_attended: The task has a sender, or somebody follows it.
        """
        if self is Valve.AUTO:
            return ALL if is_attended else UNATTENDED
        return NOTHING if self is Valve.OFF else logging.getLevelNamesMapping()[self.value]


def weight(line: LogLine) -> int:
    """Say how much a line weighs, as a level; a text may have one of its own."""
    return line.level if line.stream == "log" else line.level or TEXT_LEVELS.get(line.stream, logging.WARNING)
