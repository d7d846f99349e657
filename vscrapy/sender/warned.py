"""
Python's warnings: each is shown once, whoever gives it, as the single process of ``scrapy crawl`` shows it once.

The sender imports the same project and opens the same spider as every crawl process, so all of them warn alike.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Final

#: How a warning begins, as ``warnings.formatwarning`` writes it.
_WARNING: Final = re.compile(r"\S[^\n]*?:\d+: \w+: ")


class _Noting:
    """In the place of ``warnings.formatwarning``, which all warnings go through that are shown or logged."""

    def __init__(self, formatted: Callable[..., str]) -> None:
        self._formatted = formatted
        self.given: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        text = self._formatted(message, category, filename, lineno, line)
        self.given.add(text.rstrip("\n"))
        return text


def note() -> None:
    """From now on, note the warnings that this Python process gives; to be called before it imports the project."""
    warnings.formatwarning = _Noting(warnings.formatwarning)


class Warned:
    """Remembers which crawl process gave a warning first."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}

    def is_repeated(self, text: str, process: int) -> bool:
        """Is this a warning that another crawl process, or this very Python process, has given?"""
        if not _WARNING.match(text):
            return False
        text = text.rstrip("\n")
        if text in getattr(warnings.formatwarning, "given", ()):
            return True
        return self._first.setdefault(text, process) != process
