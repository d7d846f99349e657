"""Which workers a task takes, by their labels and names; and why it waits when there is none."""

from __future__ import annotations

import re

import pytest

from vscrapy import __version__
from vscrapy.errors import ConfigError
from vscrapy.labels import Choice, labels_from_text, labels_to_text, parse_choice, parse_labels
from vscrapy.model import PROTOCOL
from vscrapy.sender.waiting import MOST_NAMED, why_waiting
from vscrapy.store.workers import WorkerRecord

LABELS = {"region": "eu", "size": "big"}


@pytest.mark.parametrize(
    ("on", "exclude", "is_taken"),
    [
        ([], [], True),
        (["region=eu"], [], True),
        (["region=us"], [], False),
        (["region=us,eu"], [], True),
        (["region=eu", "size=big"], [], True),
        (["region=eu", "size=small"], [], False),
        (["colour=red"], [], False),
        (["name=w1"], [], True),
        (["name=w2,w3"], [], False),
        ([], ["region=us"], True),
        ([], ["region=us,eu"], False),
        ([], ["region=us", "size=big"], False),
        ([], ["w1"], False),
        ([], ["w2,w1"], False),
        ([], ["w2"], True),
        (["region=eu"], ["w1"], False),
    ],
)
def test_choice_takes_a_worker_whose_labels_hold(on: list[str], exclude: list[str], is_taken: bool) -> None:
    """All that is asked for with --on, and nothing that is excluded."""
    assert parse_choice(on, exclude).takes("w1", LABELS) is is_taken


@pytest.mark.parametrize("word", ["", "eu", "region=", "=eu", "region=eu,", "region=e u", "a=b=c"])
def test_demand_that_is_none_is_refused(word: str) -> None:
    """With the option and the word in one line."""
    with pytest.raises(ConfigError, match="--on is"):
        parse_choice([word], [])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["eu"], "a label is NAME=VALUE"), (["a=b", "a=c"], "two values for 'a': b and c"), (["name=x"], "--name")],
)
def test_label_that_is_none_is_refused(words: list[str], said: str) -> None:
    """With where it comes from."""
    with pytest.raises(ConfigError, match=f"VSCRAPY_LABELS has .*{said}"):
        parse_labels(words, "VSCRAPY_LABELS")


def test_labels_are_read_as_they_were_written() -> None:
    """Through a record on Redis; what is no label there is left out."""
    assert labels_from_text(labels_to_text(LABELS)) == LABELS
    assert labels_from_text("region=eu \x1b[31m=x nothing") == {"region": "eu"}


def worker(name: str, *, is_alive: bool = True, is_draining: bool = False, protocol: int = PROTOCOL) -> WorkerRecord:
    """A worker in its region, which is the first two letters of its name."""
    return WorkerRecord(
        *(name, is_alive, 2, 0, "host", 1, "99.0", "3.11.1", "2.19.0", protocol, 0, 0, 0, {"region": name[:2]}),
        is_draining=is_draining,
    )


EU = Choice(("region=eu",))


@pytest.mark.parametrize(
    ("workers", "choice", "has_begun", "said"),
    [
        ([], Choice(), True, "no worker is online; start one on any machine with: vscrapy worker --redis URL"),
        ([worker("eu1", is_alive=False)], EU, True, "no worker is online; .* --label region=eu$"),
        ([worker("eu1", is_draining=True)], EU, True, r"no worker is online that does not end \(1 do\); "),
        (
            [worker("us1"), worker("us2")],
            EU,
            True,
            r"it may run on \(--on region=eu\); online: us1 \(region=us\), us2 \(region=us\); .*--label region=eu$",
        ),
        (
            [worker("eu1", protocol=0), worker("us1")],
            EU,
            True,
            rf"another version of vscrapy \(99.0, here {__version__}",
        ),
        ([worker("eu1"), worker("us1")], EU, False, "all 2 slots of 1 workers are taken"),
        ([worker("eu1"), worker("us1")], EU, True, "^$"),
    ],
)
def test_reason_to_wait_is_the_one_that_counts(
    workers: list[WorkerRecord], choice: Choice, has_begun: bool, said: str
) -> None:
    """Nobody is there, nobody fits, who fits speaks otherwise, or all are busy."""
    why = why_waiting(workers, choice, has_begun=has_begun)
    assert re.search(said, why), why


def test_reason_to_wait_names_a_few_workers() -> None:
    """A hundred workers are no line."""
    why = why_waiting([worker(f"us{n}") for n in range(100)], EU, has_begun=True)
    assert why.count("(region=us)") == MOST_NAMED
    assert f"and {100 - MOST_NAMED} more" in why
