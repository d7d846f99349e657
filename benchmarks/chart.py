"""
``benchmarks/growth.svg``: pages a second against processes, and against the round trip to Redis.

Plain SVG, without a library; its colours follow the reader's light or dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

#: Of each of the two charts, side by side (pixels).
WIDTH: Final = 460
HEIGHT: Final = 320
#: Room left of an axis, above it and below it (pixels).
LEFT: Final = 70
TOP: Final = 48
BOTTOM: Final = 66

#: Points of a line: x, and pages a second.
Points = Sequence[tuple[float, float]]

_STYLE: Final = """\
text { font: 12px sans-serif; fill: #1f2328; } .title { font-size: 14px; font-weight: bold; }
.axis { stroke: #59636e; } .grid { stroke: #d1d9e0; }
.back { fill: #ffffff; }
.one { stroke: #0969da; fill: #0969da; }
.two { stroke: #bc4c00; fill: #bc4c00; }
.three { stroke: #1a7f37; fill: #1a7f37; }
polyline.one, polyline.two, polyline.three { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .axis { stroke: #9198a1; } .grid { stroke: #3d444d; } .back { fill: #0d1117; }
.one { stroke: #4493f8; fill: #4493f8; }
.two { stroke: #f0883e; fill: #f0883e; }
.three { stroke: #3fb950; fill: #3fb950; }
}"""
_COLOURS: Final = ("one", "two", "three")


@dataclass(frozen=True, slots=True)
class Axis:
    """From numbers to pixels."""

    low: float
    high: float
    #: Where *low* and *high* are (pixels).
    begin: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a number is (pixels)."""
        low, high, value = (math.log10(x) if self.is_log else x for x in (self.low, self.high, value))
        return round(self.begin + (value - low) / (high - low) * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        """Round numbers along it."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
        while (self.high - self.low) / step > 6:
            step *= 2 if (self.high - self.low) / step <= 12 else 2.5
        return [self.low + step * n for n in range(int((self.high - self.low) / step) + 1)]


def draw(path: Path, by_processes: Points, simulated: Points, by_round_trip: Mapping[str, Points]) -> None:
    """
    Write the charts.

    Args:
        by_processes: Real crawls: crawl processes, pages a second.
        simulated: The crowd of ``benchmarks/crowd.py``: the same.
        by_round_trip: For each line, by its name: round trip (ms), pages a second; three lines at most.
    """
    left = _chart(
        "Pages a second against crawl processes",
        "crawl processes",
        {"real crawls, all on this machine": by_processes, "simulated: Redis by itself": simulated},
        offset=0,
        is_log=True,
    )
    right = _chart(
        "Pages a second against the round trip to Redis",
        "round trip to Redis (ms)",
        by_round_trip,
        offset=WIDTH,
        is_log=False,
    )
    size = f'width="{2 * WIDTH}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH} {HEIGHT}"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>\n{_STYLE}\n</style>\n'
        f'<rect class="back" width="{2 * WIDTH}" height="{HEIGHT}"/>\n{left}\n{right}\n</svg>\n'
    )


def _chart(title: str, below: str, lines: Mapping[str, Points], *, offset: int, is_log: bool) -> str:
    lines = {name: sorted(points) for name, points in lines.items() if points}
    if not lines:
        return ""
    points = [point for found in lines.values() for point in found]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    right, bottom = offset + WIDTH - 20, HEIGHT - BOTTOM
    x_axis = Axis(min(xs) if is_log else 0, max(max(xs), 1.001 * min(xs), 1), offset + LEFT, right, is_log)
    y_axis = Axis(
        10.0 ** math.floor(math.log10(max(min(ys), 1))) if is_log else 0, 1.1 * max(ys), bottom, TOP, is_log
    )
    parts = [f'<text class="title" x="{offset + LEFT}" y="22">{escape(title)}</text>']
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{offset + LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(f'<text x="{offset + LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:,.0f}</text>')
    for x_value in sorted(set(xs)):
        parts.append(f'<text x="{x_axis.at(x_value)}" y="{bottom + 18}" text-anchor="middle">{x_value:g}</text>')
    parts.append(f'<line class="axis" x1="{offset + LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    parts.append(f'<line class="axis" x1="{offset + LEFT}" y1="{bottom}" x2="{offset + LEFT}" y2="{TOP}"/>')
    parts.append(f'<text x="{right}" y="{bottom + 36}" text-anchor="end">{escape(below)}</text>')
    parts.append(f'<text x="{offset + LEFT}" y="{TOP - 8}">pages/s</text>')
    for number, (name, found) in enumerate(lines.items()):
        colour, y = _COLOURS[number % len(_COLOURS)], bottom + 36 + 15 * number
        path = " ".join(f"{x_axis.at(x)},{y_axis.at(pages_a_s)}" for x, pages_a_s in found)
        parts.append(f'<polyline class="{colour}" points="{path}"/>')
        for x, pages_a_s in found:
            told = escape(f"{name}: {x:g}, {pages_a_s:.0f} pages/s")
            at = f'cx="{x_axis.at(x)}" cy="{y_axis.at(pages_a_s)}"'
            parts.append(f'<circle class="{colour}" {at} r="3"><title>{told}</title></circle>')
        parts.append(f'<circle class="{colour}" cx="{offset + LEFT}" cy="{y - 4}" r="4"/>')
        parts.append(f'<text x="{offset + LEFT + 10}" y="{y}">{escape(name)}</text>')
    return "\n".join(parts)
