"""
Outputs of earlier runs, which do not travel: the files that a sender's own process wrote below its project.

Feeds, pipelines' files and databases are seen as they are opened. Which they were is remembered per project. What
came home from crawl processes travels again, for a spider may look for it; but of much of it, the largest stay.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from vscrapy import config

#: Most that travels again of what came home from crawl processes (bytes).
CAME_LIMIT_BYTES: Final = 16 * 1024 * 1024
#: Python's caches are no output.
_NOT_OUTPUT: Final = ("__pycache__", ".pyc")


class Outputs:
    """The outputs of one project, remembered in one file of this user's home."""

    def __init__(self, project: Path) -> None:
        self._project = project.resolve()
        self._file = config.ensure_home() / "outputs.json"
        self._written: set[str] = set()
        self._came: set[str] = set()

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
            if path.startswith(prefix) and path not in self._came and not any(part in path for part in _NOT_OUTPUT):
                self._written.add(path)

        sys.addaudithook(hear)

    def note(self, paths: Iterable[Path]) -> None:
        """Also these are outputs."""
        self._written.update(str(path) for path in paths)

    def came(self, path: Path) -> None:
        """A crawl process has written this file, and it is about to be written here."""
        self._came.add(os.path.abspath(path))

    def earlier(self, *, but: Iterable[str], came_limit_bytes: int = CAME_LIMIT_BYTES) -> list[Path]:
        """
        The outputs of earlier runs that are still there, and do not travel.

        Args:
            but: Words of the command line: an output that one of them names is an input of this run.
            came_limit_bytes: Most that travels again of what came home from crawl processes.
        """
        words = list(but)
        written, came = ([path for path in known if not _is_named(path, words)] for known in self._known())
        sizes = sorted((os.path.getsize(path), path) for path in came)
        left_bytes = came_limit_bytes
        for size, path in sizes:
            left_bytes -= size
            if left_bytes < 0:
                written.append(path)
        return [Path(path) for path in written]

    def keep(self) -> None:
        """Remember what was written, with what was known before."""
        written, came = map(set, self._known())
        every = self._read()
        every[str(self._project)] = {
            "written": sorted((written | self._written) - self._came),
            "came": sorted((came | self._came) - self._written),
        }
        config.write_private(self._file, json.dumps(every, indent=1))

    def _known(self) -> tuple[list[str], list[str]]:
        """What was written in earlier runs, and what came from crawl processes; as far as it is still there."""
        found = self._read().get(str(self._project), {})
        if not isinstance(found, dict):
            found = {"written": found}  # as it was kept before files came home
        written, came = (list(filter(os.path.isfile, found.get(what, []))) for what in ("written", "came"))
        return written, came

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # not there yet, or damaged: outputs travel once more, which only costs time
        return found if isinstance(found, dict) else {}


def _is_write(mode: str | None, flags: int) -> bool:
    return any(sign in mode for sign in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))


def _is_named(path: str, words: list[str]) -> bool:
    return any(os.path.basename(path) in word for word in words)
