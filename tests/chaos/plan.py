"""
What happens to one crawl, and when: made from a seed and the crawl's number, and from nothing else.

The kinds of faults come round like the cards of a pack that is shuffled each time, so all of them are equally
frequent in a long run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.lab import N_PAGES
from tests.chaos.stage import Layout

#: Faults of one crawl, at least and at most.
N_FAULTS: Final = (3, 6)
#: The first and the last moments, by pages that were crawled: from when processes start until they end.
FIRST_PAGE: Final = 0
LAST_PAGE: Final = N_PAGES + 150
#: How often two faults come at once.
TWO_AT_ONCE: Final = 0.2
#: How often a task is detached.
DETACHED: Final = 0.2


@dataclass(frozen=True, slots=True)
class Moment:
    """When so many pages have been crawled, these faults strike."""

    page: int
    faults: tuple[str, ...]
    seed: int

    def __str__(self) -> str:
        return f"page {self.page}: {' and '.join(self.faults)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One crawl."""

    seed: int
    crawl: int
    layout: Layout
    moments: tuple[Moment, ...]

    @property
    def faults(self) -> list[str]:
        """All faults in it."""
        return [fault for moment in self.moments for fault in moment.faults]


def plans(seed: int, kinds: Sequence[str] = tuple(FAULTS)) -> Iterator[Plan]:
    """All crawls of a seed, one after the other, without end."""
    pack = random.Random(f"{seed}")
    hand: list[str] = []
    crawl = 0
    while True:
        chance = random.Random(f"{seed}/{crawl}")
        n_faults = chance.randint(*N_FAULTS)
        while len(hand) < n_faults:
            more = list(kinds)
            pack.shuffle(more)
            hand += more
        faults, hand = hand[:n_faults], hand[n_faults:]
        yield make_plan(seed, crawl, faults, chance)
        crawl += 1


def plan(seed: int, crawl: int, kinds: Sequence[str] = tuple(FAULTS)) -> Plan:
    """One crawl of a seed."""
    return next(found for found in plans(seed, kinds) if found.crawl == crawl)


def make_plan(seed: int, crawl: int, faults: Sequence[str], chance: random.Random) -> Plan:
    """Decide all else of a crawl with these faults."""
    kinds = [FAULTS[fault] for fault in faults]
    has_clocks = any(kind.needs_clocks for kind in kinds)
    slots = tuple(chance.choice((1, 2)) for _ in range(chance.choice((2, 3, 3))))
    layout = Layout(
        slots=slots,
        is_proxied=any(kind.needs_proxies for kind in kinds),
        small_disks=frozenset(["w1"]) if any(kind.needs_small_disk for kind in kinds) else frozenset(),
        clocks=(("w1", 0.0), ("w2", chance.choice((-3600.0, 3600.0)))) if has_clocks else (),
        is_detached=not any(kind.needs_sender for kind in kinds) and chance.random() < DETACHED,
        delay_ms=chance.choice((100, 200, 300)),
    )
    moments: list[Moment] = []
    waiting = list(faults)
    groups = []
    while waiting:
        n_at_once = 2 if len(waiting) > 1 and chance.random() < TWO_AT_ONCE else 1
        groups.append(tuple(waiting[:n_at_once]))
        waiting = waiting[n_at_once:]
    # Half of them early: what strikes late has less to break.
    pages = sorted(chance.randint(FIRST_PAGE, chance.choice((LAST_PAGE // 2, LAST_PAGE))) for _ in groups)
    for page, group in zip(pages, groups, strict=True):
        moments.append(Moment(page, group, chance.randrange(10**9)))
    return Plan(seed, crawl, layout, tuple(moments))
