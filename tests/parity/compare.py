"""What differs between two runs of a case, in few words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.parity.case import Kind, Unequal, Way
from tests.parity.run import Run

#: Differences of one kind that are spelled out.
_MOST_TOLD: Final = 6
#: Longest form of a value or a name in a message.
_MOST_CHARS: Final = 300
_NOTHING: Final = "nothing"


def _views(run: Run) -> dict[Kind, Mapping[str, Any]]:
    """All that is compared, as names with values."""
    return {
        "items": run.items,
        "files": run.files,
        "stats": run.stats,
        "exit code": {"exit code": run.finished.exit_code},
        "log": Counter(f"[{record.logger}] {record.level} {record.message}" for record in run.log),
        "prints": Counter(run.finished.stdout.splitlines()),
        "requests": run.requests,
    }


def differences(expected: Run, found: Run, unequal: tuple[Unequal, ...]) -> list[str]:
    """
    What differs and may not, one line each.

    Args:
        unequal: What may differ.
    """
    expected_views, views = _views(expected), _views(found)
    told = [
        line
        for kind in expected_views
        for line in _compare(kind, expected_views[kind], views[kind], _patterns(kind, found.way, unequal))
    ]
    most = max(expected.case.most_at_once, expected.peak)
    if found.peak > most and not _patterns("load", found.way, unequal):
        told.append(f"load: {found.peak} requests at once, not {most}")
    return told


def _patterns(kind: Kind, way: Way, unequal: tuple[Unequal, ...]) -> list[re.Pattern[str]]:
    return [re.compile(each.names, re.DOTALL) for each in unequal if each.kind == kind and way in each.ways]


def _compare(
    kind: Kind, expected: Mapping[str, Any], found: Mapping[str, Any], excused: list[re.Pattern[str]]
) -> Iterator[str]:
    names = [
        name
        for name in sorted(expected.keys() | found.keys())
        if _value(expected, name) != _value(found, name) and not any(pattern.search(name) for pattern in excused)
    ]
    for name in names[:_MOST_TOLD]:
        yield f"{kind}: {_short(name)}: {_change(_value(expected, name), _value(found, name))}"
    if len(names) > _MOST_TOLD:
        yield f"{kind}: ... and {len(names) - _MOST_TOLD} more"


def _value(view: Mapping[str, Any], name: str) -> Any:
    return view.get(name, 0 if isinstance(view, Counter) else _NOTHING)


def _change(expected: Any, found: Any) -> str:
    if isinstance(expected, Counter) and isinstance(found, Counter):
        missing, more = expected - found, found - expected
        return f"missing {_short(dict(missing))}, too many {_short(dict(more))}"
    return f"{_short(found)}, not {_short(expected)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
