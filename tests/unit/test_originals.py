"""Requests that are kept beside their payloads."""

from __future__ import annotations

from scrapy import Request

from vscrapy.crawl.originals import Originals


def test_request_with_an_object_is_given_back_itself_and_once() -> None:
    """Two of the same payload are given back one after the other."""
    originals = Originals()
    first, second = (Request("http://x", meta={"basket": {}}) for _ in range(2))
    originals.keep(b"same", first)
    originals.keep(b"same", second)
    assert originals.take(b"same") is first
    assert originals.take(b"same") is second
    assert originals.take(b"same") is None
    assert len(originals) == 0


def test_request_with_plain_values_is_not_kept() -> None:
    """A copy of it does as well, and there may be millions."""
    originals = Originals()
    originals.keep(b"plain", Request("http://x", meta={"depth": 1, "name": "x"}, cb_kwargs={"page": 2.0}))
    assert len(originals) == 0
    originals.keep(b"kwargs", Request("http://x", cb_kwargs={"basket": []}))
    assert len(originals) == 1


def test_filtered_request_is_forgotten() -> None:
    """Of two with one payload, the one that was filtered."""
    originals = Originals()
    first, second = (Request("http://x", meta={"basket": {}}) for _ in range(2))
    originals.keep(b"same", first)
    originals.keep(b"same", second)
    originals.forget(b"same", second)
    assert originals.take(b"same") is first
    assert len(originals) == 0
    originals.forget(b"same", first)
    assert len(originals) == 0
