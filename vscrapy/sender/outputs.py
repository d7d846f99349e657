"""
Outputs of earlier runs, which do not travel: the files that a sender's own process wrote below its project.

Feeds, pipelines' files and databases are seen as they are opened. Which they were is remembered per project.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from vscrapy import config

#: Python's caches are no output.
_NOT_OUTPUT: Final = ("__pycache__", ".pyc")


class Outputs:
    """The outputs of one project, remembered in one file of this user's home."""

    def __init__(self, project: Path) -> None:
        self._project = project.resolve()
        self._file = config.ensure_home() / "outputs.json"
        self._written: set[str] = set()

    def watch(self) -> None:
        """From now on, note what this process opens to write. It cannot be undone: once per process."""
        prefix = f"{self._project}{os.sep}"

        def hear(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(args[0], str) and _is_write(args[1], args[2]):
                name = args[0]
            elif event == "sqlite3.connect" and isinstance(args[0], (str, Path)):
                name = str(args[0])
            else:
                return
            path = os.path.abspath(name)
            if path.startswith(prefix) and not any(part in path for part in _NOT_OUTPUT):
                self._written.add(path)

        sys.addaudithook(hear)

    def note(self, paths: Iterable[Path]) -> None:
        """Also these are outputs."""
        self._written.update(str(path) for path in paths)

    def earlier(self, *, but: Iterable[str]) -> list[Path]:
        """
        The outputs of earlier runs that are still there.

        Args:
            but: Words of the command line: an output that one of them names is an input of this run.
        """
        known = self._read().get(str(self._project), [])
        words = list(but)
        return [Path(path) for path in known if os.path.exists(path) and not _is_named(path, words)]

    def keep(self) -> None:
        """Remember what was written, with what was known before."""
        every = self._read()
        known = [path for path in every.get(str(self._project), []) if os.path.exists(path)]
        every[str(self._project)] = sorted({*known, *self._written})
        config.write_private(self._file, json.dumps(every, indent=1))

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # not there yet, or damaged: outputs travel once more, which only costs time
        return found if isinstance(found, dict) else {}


def _is_write(mode: str | None, flags: int) -> bool:
    return any(sign in mode for sign in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))


def _is_named(path: str, words: list[str]) -> bool:
    return any(os.path.basename(path) in word for word in words)
