"""
What the agent sees of one crawl process from outside: whether its reactor still turns, and how much memory it takes.

Pure but for the file in ``/proc`` that is read: it is told when an answer came and when it is looked at. Only time
in which the agent itself looked counts, so a machine that was suspended accuses nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

#: Time between an answer and the next question (s).
ASK_S: Final = 2.0
#: Silence after which it is told that a process is stuck (s).
STUCK_S: Final = 30.0
#: Silence after which it is killed, when its task does not say (``VSCRAPY_REQUEST_TIMEOUT``; s).
REQUEST_TIMEOUT_S: Final = 600.0
#: The longest time between two looks that counts (s).
_MOST_GAP_S: Final = 2.0
#: A process with so much more than its limit is killed; below, it leaves.
_TOO_MUCH: Final = 1.25


class Sign(StrEnum):
    """What follows from a look."""

    ASK = "ask"
    STUCK = "stuck"
    DEAD = "dead"


@dataclass(slots=True)
class Pulse:
    """One crawl process's answers."""

    #: Silence after which it is killed (s); 0: never.
    timeout_s: float = REQUEST_TIMEOUT_S
    #: Time without an answer (s).
    silent_s: float = 0.0
    _looked_s: float | None = None
    _is_asked: bool = False
    _is_told: bool = False

    def answered(self) -> None:
        """Its reactor turns."""
        self.silent_s = 0.0
        self._is_asked = self._is_told = False

    def look(self, now_s: float) -> Sign | None:
        """What is to be done now, if anything."""
        if self._looked_s is not None:
            self.silent_s += min(now_s - self._looked_s, _MOST_GAP_S)
        self._looked_s = now_s
        if not self._is_asked:
            if self.silent_s < ASK_S:
                return None
            self._is_asked, self.silent_s = True, 0.0
            return Sign.ASK
        if self.timeout_s and self.silent_s >= self.timeout_s:
            return Sign.DEAD
        if self.silent_s >= STUCK_S and not self._is_told:
            self._is_told = True
            return Sign.STUCK
        return None


class Excess(StrEnum):
    """What follows from a process's memory."""

    LEAVE = "leave"
    KILL = "kill"


def excess(used_bytes: int, limit_bytes: int) -> Excess | None:
    """Is it more than the limit, or much more? 0 is no limit."""
    if not limit_bytes or used_bytes <= limit_bytes:
        return None
    return Excess.KILL if used_bytes > limit_bytes * _TOO_MUCH else Excess.LEAVE


def memory_bytes(pid: int) -> int:
    """Resident memory of a process, with what it shares (bytes); 0 where that cannot be seen."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
