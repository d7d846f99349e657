"""
Python's garbage collector, held while a start imports.

What is imported stays: the collector would walk through ever more of it, for nothing, for a twentieth of a start.
"""

from __future__ import annotations

import gc
from typing import Final

#: New objects until it looks for garbage again, while a start imports.
_HELD: Final = 1_000_000


class Garbage:
    """The collector of this process; a project that sets it by itself has the last word."""

    def __init__(self) -> None:
        self._own = gc.get_threshold()

    def hold(self) -> None:
        """Let it look much less often."""
        gc.set_threshold(_HELD, *self._own[1:])

    def release(self) -> None:
        """Let it look as often as ever, at what comes from now on."""
        if gc.get_threshold() == (_HELD, *self._own[1:]):
            gc.freeze()
            gc.set_threshold(*self._own)
