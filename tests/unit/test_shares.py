"""Shares as limits of a downloader: which words of Redis are of now, and which are older than what was said here."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy.settings import Settings

from tests.integration.downloads import BY_SLOT, LIMITS, MOST, Downloads
from vscrapy.errors import ConfigError
from vscrapy.politeness import Politeness
from vscrapy.store.frontier import Lease, Result


class Said:
    """A channel that keeps what was said."""

    def __init__(self) -> None:
        self.shares: dict[str, int] = {}
        self.needs: dict[str, int] = {}

    def lower_share(self, slot: str, share: int) -> None:
        self.shares[slot] = share

    def need(self, slot: str, demand: int, *, is_again: bool = False) -> None:
        self.needs[slot] = demand

    def keep_need(self, slot: str) -> bool:
        return self.needs.get(slot) == 0 and self.needs.pop(slot) == 0

    def leave(self) -> dict[str, dict[str, int]]:
        """What was said until now is on its way."""
        said = {"heard": self.shares, "needs": self.needs}
        self.shares, self.needs = {}, {}
        return said


def made(settings: dict[str, Any] | None = None) -> tuple[Politeness, Downloads, Said]:
    """A crawl process's politeness, its downloader and its words."""
    downloads, said = Downloads(lambda _: None), Said()
    fake: Any = downloads
    politeness = Politeness(fake, Settings(BY_SLOT | (settings or {})), None)
    politeness.begin(said)
    return politeness, downloads, said


def lease(number: int, slot: str = "a") -> Lease:
    """A lease of a site's."""
    return Lease(str(number), slot, "0", b"")


def test_download_with_a_lease_begins_at_once_and_needs_nothing() -> None:
    """What crawls as ever costs no word."""
    politeness, downloads, said = made()
    politeness.add_leases([lease(1)])
    politeness.use({"a": MOST}, {}, {})
    downloads.put("a")
    downloads.end("a")
    politeness.end_leases([Result("done", "1")])
    assert (downloads.begun["a"], said.leave()) == (0, {"heard": {}, "needs": {}})


def test_download_without_a_lease_is_held_until_there_is_a_share() -> None:
    """And its end gives the share back, unless another one comes before that was heard."""
    politeness, downloads, said = made()
    downloads.put("a")
    downloads.put("a")
    assert (downloads.running("a"), said.needs) == (0, {"a": 2})
    politeness.use({"a": 1}, **said.leave())
    assert downloads.running("a") == 1
    downloads.end("a")
    downloads.end("a")
    assert said.needs == {"a": 0}
    downloads.put("a")
    assert (downloads.running("a"), said.needs) == (1, {})


def test_download_after_its_share_was_given_back_is_held() -> None:
    """A share that was told to be needed no more is another's at any moment."""
    politeness, downloads, said = made()
    downloads.put("a")
    politeness.use({"a": MOST}, **said.leave())
    downloads.end("a")
    said.leave()
    downloads.put("a")
    assert (downloads.running("a"), said.needs) == (0, {"a": 1})


def test_share_of_leases_that_were_handed_over_is_not_used() -> None:
    """It was given before the end of the last lease was told."""
    politeness, downloads, said = made()
    politeness.add_leases([lease(1)])
    politeness.use({"a": MOST}, {}, {})
    politeness.end_leases([Result("done", "1")])
    on_its_way = said.leave()
    downloads.put("a")
    politeness.use({"a": MOST}, **on_its_way)
    assert downloads.running("a") == 0
    politeness.use({"a": MOST}, **said.leave())
    assert downloads.running("a") == 1


def test_share_that_is_older_than_a_smaller_one_that_was_told_is_not_used() -> None:
    """Others may have the rest already."""
    politeness, downloads, said = made()
    politeness.add_leases([lease(number) for number in range(3)])
    politeness.use({"a": 1}, {}, {})
    on_its_way = said.leave()
    for _ in range(3):
        downloads.put("a")
    politeness.use({"a": 3}, {}, {})
    assert downloads.running("a") == 1
    politeness.use({"a": 3}, **on_its_way)
    assert downloads.running("a") == 3


def test_share_is_kept_by_downloads_when_the_last_lease_ends() -> None:
    """The need leaves no later than the lease."""
    politeness, downloads, said = made()
    politeness.add_leases([lease(1)])
    politeness.use({"a": MOST}, {}, {})
    downloads.put("a")
    politeness.end_leases([Result("done", "1")])
    assert said.needs == {"a": 1}
    downloads.put("a")
    assert downloads.running("a") == 2


def test_turn_that_is_over_lets_end_what_runs_and_holds_the_rest() -> None:
    """The leases stay, and what they are for waits for the next turn."""
    politeness, downloads, said = made()
    politeness.add_leases([lease(1), lease(2)])
    politeness.use({"a": 1}, {}, {})
    said.leave()
    downloads.put("a")
    downloads.put("a")
    politeness.use({"a": 0}, {"a": 1}, {})
    assert said.shares == {}
    downloads.end("a")
    assert (downloads.running("a"), said.shares, said.needs) == (0, {"a": 0}, {"a": 1})
    politeness.use({"a": 1}, **said.leave())
    assert downloads.running("a") == 1


def test_nothing_is_held_when_nobody_else_downloads_any_more() -> None:
    """After the task's end, home goes on by Scrapy's own limits."""
    politeness, downloads, _ = made()
    for slot in LIMITS:
        downloads.put(slot)
    politeness.end()
    downloads.put("a")
    assert [downloads.running(slot) for slot in LIMITS] == [2, 1, 1]


def test_nothing_is_held_when_limits_are_those_of_each_process() -> None:
    """VSCRAPY_POLITENESS = "worker"."""
    _, downloads, said = made({"VSCRAPY_POLITENESS": "worker"})
    downloads.put("a")
    assert (downloads.running("a"), said.needs) == (1, {})


def test_one_queue_has_one_share_for_all_slots() -> None:
    """Without a queue for each slot, the smallest limit and the longest delay are those of all."""
    politeness, _, _ = made({"SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.ScrapyPriorityQueue"})
    assert (politeness.limits.most, politeness.limits.delay_ms) == (1, 10)


def test_most_is_the_smaller_of_concurrency_and_requests_in_flight() -> None:
    """One process has no more in flight, so no site sees more of it."""
    politeness, _, _ = made({"CONCURRENT_REQUESTS": 2})
    assert (politeness.limits.most, politeness.limits.special["one"][0]) == (2, 1)


def test_another_word_is_refused() -> None:
    """With the words that there are."""
    with pytest.raises(ConfigError, match='it takes "task" or "worker"'):
        made({"VSCRAPY_POLITENESS": "none"})
