"""
What a crawl process has counted, packed into one value on Redis; ``scripts/_commits.lua`` adds it up in the end.

A commit replaces the value of its process with one command, where each stat would take one of its own.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from vscrapy.store.base import text

#: Operations of a change: of a stat, or of what the process's worker has done.
PLUS: Final = "+"
MAX: Final = "max"
MIN: Final = "min"
WORKER: Final = "worker"
_N = TypeVar("_N", int, float)
_HEAD: Final = re.compile(rb"(\d+) (\S+) (\S+) ")


@dataclass(frozen=True, slots=True)
class StatChanges:
    """Changes of counted stats, and of what the worker has done."""

    added: Mapping[str, int | float] = field(default_factory=dict)
    raised: Mapping[str, int | float] = field(default_factory=dict)
    lowered: Mapping[str, int | float] = field(default_factory=dict)
    work: Mapping[str, int] = field(default_factory=dict)

    @property
    def are_there(self) -> bool:
        """Is there any?"""
        return bool(self.added or self.raised or self.lowered or self.work)

    def plus(self, other: StatChanges) -> StatChanges:
        """With what came after them."""
        return StatChanges(
            _merged(self.added, other.added, operator.add),
            _merged(self.raised, other.raised, max),
            _merged(self.lowered, other.lowered, min),
            _merged(self.work, other.work, operator.add),
        )

    def packed(self) -> bytes:
        """As Redis has them."""
        groups = {PLUS: self.added, MAX: self.raised, MIN: self.lowered, WORKER: self.work}
        return b"".join(
            _packed(name, operation, number) for operation, group in groups.items() for name, number in group.items()
        )


def _merged(old: Mapping[str, _N], new: Mapping[str, _N], both: Callable[[_N, _N], _N]) -> Mapping[str, _N]:
    if not new:
        return old
    return {**old, **{name: both(old[name], number) if name in old else number for name, number in new.items()}}


def _packed(name: str, operation: str, number: int | float) -> bytes:
    data = str(name).encode("utf-8", "backslashreplace")  # a project may name a stat by a number
    # By its base type: a subclass, such as numpy's, may have a repr of its own.
    value = repr(int(number) if isinstance(number, int) else float(number))
    return b"%d %s %s %s" % (len(data), operation.encode(), value.encode(), data)


def of_commit(commit: bytes) -> bytes:
    """What is packed in a process's last commit (``scripts/_commits.lua``)."""
    return b"".join(commit.split(b" ", 4)[4:])


def unpacked(data: bytes) -> Iterator[tuple[str, str, int | float]]:
    """Read what is packed: name, operation, number. What cannot be read, or is no finite number, is left out."""
    at = 0
    while (head := _HEAD.match(data, at)) is not None:
        at = head.end() + int(head[1])
        number = number_of(text(head[3]))
        if number is not None and is_finite(number):
            yield text(data[head.end() : at]), text(head[2]), number


def is_finite(number: int | float) -> bool:
    """Is it a number that Redis can count?"""
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that is no float
        return False


def number_of(value: str) -> int | float | None:
    """A number as Redis keeps it; None: it is none."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def added_up(counted: Mapping[str, int | float], changes: Iterable[bytes]) -> dict[str, int | float]:
    """Stats with what is to be added to them."""
    found = dict(counted)
    for packed in changes:
        for name, operation, number in unpacked(packed):
            old = found.get(name)
            if operation == PLUS:
                found[name] = (old or 0) + number
            elif operation == MAX:
                found[name] = number if old is None else max(old, number)
            elif operation == MIN:
                found[name] = number if old is None else min(old, number)
    return found
