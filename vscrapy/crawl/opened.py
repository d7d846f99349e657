"""
How a crawl process opens the files that it writes: to add to them, or to write them anew; and which lie elsewhere.

Heard from Python itself, as the files are opened. What C code or a subprocess opens is not heard of: such a file
counts as written anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

_WRITES: Final = os.O_WRONLY | os.O_RDWR
#: Where programs keep what is nobody's output.
_SYSTEM: Final = tuple(
    f"{path}{os.sep}" for path in ("/dev", "/proc", "/sys", os.path.realpath(tempfile.gettempdir()), sys.prefix)
)


class Opened:
    """
    The opened files of this process.

    Args:
        directory: What counts as the project.
        checkout: The directory of this process that the project is in.
    """

    def __init__(self, directory: Path, checkout: Path) -> None:
        self._inside = f"{os.path.realpath(directory)}{os.sep}"
        self._checkout = f"{os.path.realpath(checkout)}{os.sep}"
        #: Path -> it was only added to, since that began.
        self._added: dict[str, bool] = {}
        #: Path -> how often it was written anew, or made, before it was first added to.
        self._renewals: dict[str, int] = {}
        #: Files beyond the project, in order; those of the checkout are removed with it.
        self.outside: dict[str, bool] = {}

    def watch(self) -> None:
        """Listen from now on. It cannot be undone: once per process."""

        def hear(event: str, args: tuple[Any, ...]) -> None:
            if event == "open":
                path, _, flags = args
                if flags & _WRITES and isinstance(path, (str, bytes)):
                    self._on_open(os.path.realpath(os.fsdecode(path)), flags)
            elif event == "os.rename":
                for path in args[:2]:
                    if isinstance(path, (str, bytes)):
                        self._added.pop(os.path.realpath(os.fsdecode(path)), None)

        sys.addaudithook(hear)

    def _on_open(self, path: str, flags: int) -> None:
        if not path.startswith(self._inside):
            self._note_outside(path)
        elif flags & os.O_APPEND:
            self._added.setdefault(path, True)
        elif path in self._added:
            self._added[path] = False
        else:
            self._renewals[path] = self._renewals.get(path, 0) + 1

    def _note_outside(self, path: str) -> None:
        is_removed = path.startswith(self._checkout)
        if not is_removed and f"{path}{os.sep}".startswith(_SYSTEM):  # O_TMPFILE opens a directory
            return
        hidden = path.removeprefix(self._checkout).split(os.sep)
        if not any(part.startswith(".") or part == "__pycache__" for part in hidden):
            self.outside.setdefault(path, is_removed)

    def is_added_to(self, path: str) -> bool:
        """Was the file opened to add to it (``"a"``), and not written otherwise after that?"""
        return self._added.get(path, False)

    def renewals(self, path: str) -> int:
        """How often the file was written anew, or made, before it was first added to."""
        return self._renewals.get(path, 0)
