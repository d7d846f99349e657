"""The garbage collector, held while a start imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vscrapy.sender.garbage import Garbage


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    own = gc.get_threshold()
    yield
    gc.set_threshold(*own)
    gc.unfreeze()


def test_held_collector_is_given_back_as_it_was() -> None:
    """And it need not walk through what was there by then."""
    own, garbage = gc.get_threshold(), Garbage()
    garbage.hold()
    assert gc.get_threshold()[0] > 1000 * own[0]
    assert gc.isenabled()
    n_frozen = gc.get_freeze_count()
    garbage.release()
    assert gc.get_threshold() == own
    assert gc.get_freeze_count() > n_frozen


def test_project_that_sets_the_collector_has_the_last_word() -> None:
    """What it chose as it was imported stands."""
    garbage = Garbage()
    garbage.hold()
    gc.set_threshold(123, 4, 5)
    garbage.release()
    assert gc.get_threshold() == (123, 4, 5)
