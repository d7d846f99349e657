"""The order in which a crawl process does what it has leased."""

from __future__ import annotations

from collections import Counter

from vscrapy.crawl.buffer import Buffer
from vscrapy.store.frontier import Lease


def lease(number: int, slot: str = "", queue: str = "0") -> Lease:
    """A lease of a slot's."""
    return Lease(str(number), slot, queue, b"")


def popped(buffer: Buffer, active: Counter[str] | None = None) -> list[str]:
    """All that is in it, in its order: slot and number; each is a download of its slot from then on."""
    found = []
    while (each := buffer.pop()) is not None:
        assert isinstance(each, Lease)
        found.append(each.slot + each.id)
        if active is not None:
            active[each.slot] += 1
    assert (len(buffer), buffer.n_leases) == (0, 0)
    return found


def test_buffer_takes_priority_first_and_later_batches_before_earlier() -> None:
    """As LIFO queues have it."""
    buffer = Buffer(is_lifo=True, active=lambda _: 0)
    buffer.add([lease(1), lease(2), lease(3, queue="5")])
    buffer.add([lease(4), lease(5, queue="-1"), lease(6, queue="5")])
    assert popped(buffer) == ["6", "3", "4", "1", "2", "5"]


def test_buffer_takes_of_the_slots_those_with_fewest_downloads_in_turn() -> None:
    """Whatever priority the others have: a slow site does not fill the downloader."""
    active = Counter({"a": 3, "b": 1})
    buffer = Buffer(is_lifo=True, active=lambda slot: active[slot])
    buffer.add([lease(n, "a", queue="9") for n in range(3)] + [lease(n, "b") for n in range(3)])
    buffer.add([lease(n, "c") for n in range(2)])
    assert popped(buffer, active) == ["c0", "b0", "c1", "b1", "a0", "b2", "a1", "a2"]


def test_buffer_gives_back_leases_also_the_one_that_is_chosen() -> None:
    """And what is chosen stays the next, whatever comes."""
    buffer = Buffer(is_lifo=False, active=lambda _: 0)
    buffer.add([lease(1, "a"), lease(2, "b")])
    buffer.choose()
    buffer.add([lease(3, "a", queue="7")])
    assert buffer.n_leases == 3
    first = buffer.pop()
    assert isinstance(first, Lease)
    assert first.id == "1"
    buffer.choose()
    assert {found.id for found in buffer.take_leases()} == {"2", "3"}
    assert len(buffer) == 0
