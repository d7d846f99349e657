"""How often each path has failed, for pages that heal when they are asked again."""

from __future__ import annotations

from collections import Counter


class Failures:
    """One count a path; the query does not matter."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def is_due(self, path: str, limit: int) -> bool:
        """Count a request of *path*, and tell whether it is among the first *limit*."""
        if self._counts[path] >= limit:
            return False
        self._counts[path] += 1
        return True

    def reset(self) -> None:
        """Forget all: every page is ill again."""
        self._counts.clear()
