"""
The stats of many crawl processes, as one set of Scrapy stats.

Counted stats are added up on Redis; stats that were set travel per process and are merged here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

#: Stats that come from the merged ones, as Scrapy's CoreStats and LogStats make them.
_EARLIEST = "start_time"
_LATEST = "finish_time"
#: Both are points in time, of which the first and the last of all processes count: by one clock.
TIMES = (_EARLIEST, _LATEST)


def encode_values(values: Mapping[str, Any]) -> str:
    """Turn stats that were set into a JSON object; what JSON lacks travels as its ``repr``."""
    try:
        return json.dumps(values, default=_encode_value, sort_keys=True)
    # Names that are no text, dicts with such, circles.
    except (TypeError, ValueError, RecursionError):
        plain = {str(name): _plain(value) for name, value in values.items()}
        return json.dumps(plain, default=_encode_value, sort_keys=True)


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, default=_encode_value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return _encode_value(value)
    return value


def _encode_value(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    return {"$repr": repr(value)}


def _decode_value(value: Any) -> Any:
    if isinstance(value, dict):
        if "$datetime" in value:
            try:
                return datetime.fromisoformat(value["$datetime"])
            except (TypeError, ValueError):
                return str(value["$datetime"])
        if "$repr" in value:
            return value["$repr"]
        return {name: _decode_value(part) for name, part in value.items()}
    return [_decode_value(part) for part in value] if isinstance(value, list) else value


def decode_values(text: str) -> dict[str, Any]:
    """Read what :func:`encode_values` gave; what travelled as its ``repr`` stays that text."""
    return {name: _decode_value(value) for name, value in json.loads(text).items()}


def _is_aware(time: datetime) -> bool:
    return time.tzinfo is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _merge_values(name: str, values: list[Any]) -> Any:
    try:
        if name == _EARLIEST:
            return min(values)
        if name == _LATEST or all(_is_number(value) for value in values):
            return max(values)
    except TypeError:  # A project set something else under this name.
        pass
    return values[-1]


def merge(
    counted: Mapping[str, int | float], per_process: Iterable[Mapping[str, Any]], *, reason: str | None = None
) -> dict[str, Any]:
    """
    Make one set of stats.

    Args:
        counted: Stats that were counted, already added up.
        per_process: For each crawl process, the stats that it set, as :func:`encode_values` gave them.
        reason: Why the task ended, if it has.

    Returns:
        What one Scrapy process that did all of it would have collected. Of set numbers the largest stands, of
        other values the last; start is the earliest, finish the latest; rates come from the sums.
    """
    found: dict[str, list[Any]] = {}
    for values in per_process:
        for name, value in values.items():
            # Anybody on Redis can have written this: nothing in it may keep a crawl from its end.
            with contextlib.suppress(RecursionError):
                decoded = _decode_value(value)
                found.setdefault(name, []).append(decoded)
    merged: dict[str, Any] = dict(counted)
    merged.update({name: _merge_values(name, values) for name, values in found.items()})
    if reason is not None:
        merged["finish_reason"] = reason
    take_rates(merged)
    return merged


def take_rates(stats: dict[str, Any]) -> None:
    """Put in the time that the whole task took, and the rates that come of it, where the crawl has them."""
    start, finish = stats.get(_EARLIEST), stats.get(_LATEST)
    if not (isinstance(start, datetime) and isinstance(finish, datetime) and _is_aware(start) is _is_aware(finish)):
        return
    elapsed = finish - start
    stats["elapsed_time_seconds"] = elapsed.total_seconds()
    minutes = elapsed.seconds / 60  # as Scrapy's LogStats counts them
    for name, count in (
        ("responses_per_minute", "response_received_count"),
        ("items_per_minute", "item_scraped_count"),
    ):
        number = stats.get(count, 0)
        if name in stats and _is_number(number):
            stats[name] = number / minutes if minutes else None


def put_all(collector: Any, stats: Mapping[str, Any]) -> None:
    """
    Let a stats collector hold *stats* in the place of its own.

    Args:
        collector: One of a project's own has what Scrapy calls, so ``set_value``, but maybe no ``set_stats``.
    """
    if hasattr(collector, "set_stats"):
        collector.set_stats(dict(stats))
    else:
        for name, value in stats.items():
            collector.set_value(name, value)
