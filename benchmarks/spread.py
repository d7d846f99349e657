"""Several samples of one figure, in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """The median, and the least and the greatest in brackets."""
    middle, least, greatest = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle}{unit} ({least} to {greatest})"


def share(values: Sequence[float], at: float) -> float:
    """
    The value below which the share *at* (0 to 1) of the values lies.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]
