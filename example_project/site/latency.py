"""The latency added to each page: given at the start, changed by an observer, as at the start after a reset."""

from __future__ import annotations


class Latency:
    """Milliseconds that each page takes longer."""

    def __init__(self, ms: int) -> None:
        self._first_ms = ms
        self.ms = ms

    def reset(self) -> None:
        """Be as at the start."""
        self.ms = self._first_ms
