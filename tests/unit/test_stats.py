"""Many processes' stats as one set: what is added up, what is merged, and what comes of both."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vscrapy.stats import decode_values, encode_values, merge

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def sent(**values: Any) -> dict[str, Any]:
    """What arrives of the stats that a process has set."""
    decoded: dict[str, Any] = json.loads(encode_values(values))
    return decoded


def span(start_s: float, finish_s: float) -> dict[str, Any]:
    """What a process that ran from one second to another has set."""
    return sent(start_time=NOON + timedelta(seconds=start_s), finish_time=NOON + timedelta(seconds=finish_s))


def test_values_come_out_as_they_went_in() -> None:
    """Numbers, texts and times; what JSON lacks is text from there on."""
    values = {"n": 3, "word": "é", "at": NOON, "deep": {"list": [NOON]}}
    assert decode_values(encode_values({**values, "odd": {1}})) == {**values, "odd": "{1}"}


def test_merge_keeps_what_was_counted() -> None:
    """Redis has added it up already."""
    assert merge({"n": 3, "half": 0.5}, []) == {"n": 3, "half": 0.5}


def test_merge_takes_the_largest_of_set_numbers() -> None:
    """Memory, depth: the worst process counts."""
    assert merge({}, [sent(memory=3), sent(memory=10), sent(memory=9.5)]) == {"memory": 10}


@pytest.mark.parametrize("values", [("a", "b"), (1, "b"), (True, False), ([1], [2]), (1, None)])
def test_merge_takes_the_last_of_other_values(values: tuple[Any, Any]) -> None:
    """Words and truths have no largest."""
    assert merge({}, [sent(word=values[0]), sent(word=values[1])]) == {"word": values[1]}


def test_merge_spans_from_the_earliest_start_to_the_latest_finish() -> None:
    """The task's time is not that of its last process."""
    found = merge({}, [span(10, 20), span(0, 15), span(5, 30)])
    assert (found["start_time"], found["finish_time"], found["elapsed_time_seconds"]) == (
        NOON,
        NOON + timedelta(seconds=30),
        30.0,
    )


def test_merge_makes_rates_of_the_sums() -> None:
    """Two processes with 60 pages a minute each are one task with 120."""
    rates = sent(responses_per_minute=60.0, items_per_minute=30.0)
    found = merge(
        {"response_received_count": 240, "item_scraped_count": 120}, [span(0, 120) | rates, span(0, 60) | rates]
    )
    assert (found["responses_per_minute"], found["items_per_minute"]) == (120.0, 60.0)


def test_merge_makes_no_rate_where_scrapy_makes_none() -> None:
    """Without LogStats there are no rates."""
    assert "responses_per_minute" not in merge({"response_received_count": 240}, [span(0, 60)])


def test_merge_makes_no_rate_of_no_time() -> None:
    """A crawl of less than a second has none, as with Scrapy."""
    found = merge({"item_scraped_count": 5}, [span(0, 0.5) | sent(items_per_minute=None)])
    assert found["items_per_minute"] is None


def test_merge_counts_nothing_as_a_rate_of_zero() -> None:
    """No item is no reason to fail."""
    assert merge({}, [span(0, 60) | sent(items_per_minute=None)])["items_per_minute"] == 0


def test_merge_puts_in_the_task_s_reason() -> None:
    """A process that left early has its own, which is not the task's."""
    found = merge({}, [sent(finish_reason="shutdown")], reason="finished")
    assert found["finish_reason"] == "finished"


def test_merge_keeps_a_process_s_reason_while_the_task_has_none() -> None:
    """Before the end, the last word stands."""
    assert merge({}, [sent(finish_reason="shutdown")])["finish_reason"] == "shutdown"


def test_merge_of_nothing_is_nothing() -> None:
    """A task without a process has no stats."""
    assert merge({}, []) == {}


@pytest.mark.parametrize("name", ["start_time", "finish_time"])
@pytest.mark.parametrize("odd", ["now", None, datetime(2026, 1, 2), [1]])
def test_merge_survives_times_that_do_not_compare(name: str, odd: Any) -> None:
    """A project's own odd stat must not cost all others."""
    assert merge({"n": 1}, [sent(**{name: NOON}), sent(**{name: odd})])["n"] == 1


@pytest.mark.parametrize(
    "value",
    [
        *(1, -0.5, True, None, "é\udcff", [1, "a"], {"a": {"b": []}}),
        *(NOON, datetime(2026, 1, 2, 3, 4, 5, 6), NOON.astimezone()),
        *([NOON], {"last": {"seen": NOON}}),
    ],
)
def test_value_comes_out_as_it_went_in(value: Any) -> None:
    """JSON types, and datetimes at any depth."""
    assert merge({}, [sent(x=value)]) == {"x": value}


@pytest.mark.parametrize("value", [{1, 2}, object, b"bytes", 1j, {(1, 2): 3}, {1: "a", "b": 2}])
def test_value_that_json_lacks_is_shown(value: Any) -> None:
    """As the log would show it, or as near as JSON comes."""
    found = merge({}, [sent(x=value, n=1)])
    assert (found["n"], str(found["x"])) == (1, repr(value))


def test_name_that_json_lacks_is_shown() -> None:
    """Scrapy takes any name."""
    assert json.loads(encode_values({("a", 1): 2, "b": 3})) == {"('a', 1)": 2, "b": 3}  # type: ignore[dict-item]


def test_value_that_holds_itself_does_not_stop_the_rest() -> None:
    """A circle is shown as Python shows it."""
    circle: list[Any] = []
    circle.append(circle)
    assert merge({}, [sent(x=circle, n=1)]) == {"x": "[[...]]", "n": 1}


def test_encoded_values_are_equal_whatever_their_order() -> None:
    """The order in which stats were set is no change."""
    assert encode_values({"a": 1, "b": 2}) == encode_values({"b": 2, "a": 1})
