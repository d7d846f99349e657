"""Python's warnings at the sender's terminal: once, whoever gives them."""

from __future__ import annotations

import warnings

import pytest

from vscrapy.sender import warned

WARNING = "/project/shop/spiders.py:12: UserWarning: this is old\n  self.old()\n"


def test_warning_of_another_crawl_process_is_repeated() -> None:
    """The process that gave it first may give it again, as with the filter "always"."""
    found = warned.Warned()

    assert [found.is_repeated(WARNING, process) for process in (1, 1, 2, 3, 1)] == [False, False, True, True, False]


def test_warning_that_was_given_here_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has shown or logged, the crawl processes need not say again."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    warned.note()
    text = warnings.formatwarning("this is old", UserWarning, "/project/shop/spiders.py", 12, "self.old()")

    assert text == WARNING
    assert warned.Warned().is_repeated(text, 1)


@pytest.mark.parametrize("text", ["", "a line\n", "a.py:1: no category here\n", "12:30:00: noon\n"])
def test_other_text_is_never_repeated(text: str) -> None:
    """Prints are shown as often as they come."""
    found = warned.Warned()

    assert not any(found.is_repeated(text, process) for process in (1, 2, 1, 2))
