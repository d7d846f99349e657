"""A figure of a case: a number that its crawls give, and the bounds within which it may differ from Scrapy's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from tests.parity.case import Way
    from tests.parity.run import Run

#: What must be used, of what ``scrapy crawl`` uses.
LEAST_PART: Final = 0.9
#: The least and the most that a way may have, by what Scrapy had.
Bounds: TypeAlias = "Callable[[Way, float], tuple[float, float]]"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that is measured in each way, shown, and kept within bounds."""

    #: With ``{}`` for the number, as ``{} pages``.
    shows: str
    #: From the crawls of a way; more than one where the case runs several at once.
    measure: Callable[[Sequence[Run]], float]
    bounds: Bounds
    #: The bounds in words, for the table.
    says: str
    #: Decimal places that are shown.
    digits: int = 0

    def shown(self, number: float) -> str:
        """As it stands in the table."""
        return self.shows.format(f"{number:.{self.digits}f}")

    def problem(self, way: Way, expected: float, found: float) -> str | None:
        """What is wrong with a way's number; *expected*: Scrapy's."""
        least, most = self.bounds(way, expected)
        if least <= found <= most:
            return None
        return f"{self.shown(found)}, not {least:g} to {most:g} (scrapy: {self.shown(expected)}; {self.says})"


def at_most(most: float) -> Bounds:
    """Never more; more is fine only where Scrapy itself had more."""
    return lambda way, expected: (-math.inf, max(most, expected))


def at_least(least: float) -> Bounds:
    """Never less; less is fine only where Scrapy itself had less."""
    return lambda way, expected: (min(least, expected), math.inf)


def between(bounds: Mapping[Way, tuple[float, float]]) -> Bounds:
    """For each way its own; for other ways none."""
    return lambda way, expected: bounds.get(way, (-math.inf, math.inf))


def used(whole: float, *, most: float | None = None, part: float = LEAST_PART) -> Bounds:
    """
    As much as Scrapy uses, or a good part of it.

    Args:
        whole: All there is to use; Scrapy may happen to use more.
        most: Never more than this.
    """
    return lambda way, expected: (part * min(expected, whole), math.inf if most is None else most)
