"""
The files of a crawl process that has ended, kept for the next one of that project: to write them takes much longer.

What lies in a spare counts for nothing: whoever takes it reads every file and compares it with the hash in the
signed manifest, writes anew what differs, and removes what is not in the manifest. Any trouble with a spare is none
for the crawl, whose files are unpacked as if there had been no spare.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vscrapy.errors import BundleError
from vscrapy.model import BundleFile, Manifest
from vscrapy.worker.tree import Tree, restore, salvage

#: Files from which on a spare is kept: to write fewer takes 2 ms at most on a disk that is not slow.
FEWEST_FILES: Final = 20
#: Files, and their size (bytes), beyond which none is kept; a sender ships no more bytes when nothing is configured.
MOST_FILES: Final = 20_000
MOST_BYTES: Final = 64 * 1024 * 1024
#: Time after which a spare that nobody took is removed (s), when somebody looks.
KEPT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A spare that is there."""

    place: Path
    tree: Tree
    #: Type and permissions of its directories.
    directory_mode: int
    #: Since when (monotonic, s).
    since_s: float


class Spare:
    """
    The spare of one agent: one at most. All of it may be called in any thread, and blocks on the disk.

    Args:
        place: Number -> a directory that nobody else uses.
        remove: Removes a directory, if it is there; raises nothing.
        kept_s: See ``KEPT_S``.
    """

    def __init__(
        self, place: Callable[[int], Path], remove: Callable[[Path], None], *, kept_s: float = KEPT_S
    ) -> None:
        self._place = place
        self._remove = remove
        self._kept_s = kept_s
        #: Whoever has taken ``_kept`` away under it has the spare for himself.
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._number = 0
        self._is_closed = False

    def put(self, directory: Path, manifest: Manifest) -> None:
        """
        Keep the files of *manifest* in a directory that nobody needs any more, in the place of an earlier spare.

        Projects that gain nothing leave the earlier one. What is not kept stays in *directory*, to be removed.
        """
        n_files = sum(len(root.files) for root in manifest.roots)
        if not FEWEST_FILES <= n_files <= MOST_FILES or manifest.size_bytes > MOST_BYTES:
            return
        tree = Tree.of(manifest)
        with self._lock:
            if self._is_closed or (self._kept is not None and self._kept.tree == tree):
                return
            self._number += 1
            place = self._place(self._number)
        try:
            mode = salvage(str(directory), tree, str(place))
        except OSError:
            self._remove(place)
            return
        with self._lock:
            old, self._kept = self._kept, _Kept(place, tree, mode, time.monotonic())
            if self._is_closed:
                old, self._kept = self._kept, None
        if old is not None:
            self._remove(old.place)

    def take(self, manifest: Manifest, read: Callable[[BundleFile], bytes], target: Path) -> bool:
        """
        Make *target* a checkout of *manifest* from the spare, if there is one of nearly the same files.

        Args:
            read: Gives a file's content; what it raises is raised, but for OSError and BundleError.
            target: Where nothing is.

        Returns:
            Is it there? Otherwise nothing is.
        """
        with self._lock:
            kept = self._kept
            if kept is None:
                return False
            tree = Tree.of(manifest)
            if not tree.has_most_of(kept.tree):
                return False
            self._kept = None
        try:
            restore(str(kept.place), tree, read, directory_mode=kept.directory_mode)
            os.rename(kept.place, target)
        except (OSError, BundleError):  # Who unpacks says so, if it was not only the spare.
            return False
        finally:
            self._remove(kept.place)
        return True

    def trim(self) -> None:
        """Remove a spare that nobody took for long."""
        self._drop(lambda kept: time.monotonic() - kept.since_s >= self._kept_s)

    def close(self) -> None:
        """Remove the spare, and keep none any more."""
        with self._lock:
            self._is_closed = True
        self._drop(lambda _: True)

    def _drop(self, is_unwanted: Callable[[_Kept], bool]) -> None:
        with self._lock:
            kept = self._kept
            if kept is None or not is_unwanted(kept):
                return
            self._kept = None
        self._remove(kept.place)
