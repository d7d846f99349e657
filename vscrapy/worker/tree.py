"""
What lies in a directory that a bundle was unpacked to: files and directories, by their paths.

Nothing here follows a link below a directory that it is given: user code may have put one there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from vscrapy.bundle import mode_of, write
from vscrapy.model import BundleFile, Manifest

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Tree:
    """All that ``bundle.unpack`` makes of a manifest that ``bundle.check`` has let through."""

    #: By path below the directory, with ``/``.
    files: Mapping[str, BundleFile]
    directories: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The files of all roots, what they lie in, the roots, and the working directory."""
        files = {f"{root.name}/{file.path}": file for root in manifest.roots for file in root.files}
        paths = {path.rpartition("/")[0] for path in files} | {root.name for root in manifest.roots}
        if manifest.working_directory != ".":
            paths.add(f"{manifest.roots[0].name}/{manifest.working_directory}")
        directories: set[str] = set()
        for path in paths:
            while path and path not in directories:
                directories.add(path)
                path = path.rpartition("/")[0]
        return cls(files, frozenset(directories))

    def has_most_of(self, other: Tree) -> bool:
        """Are at least as many of these files in the other tree, as they are, as there are others in either?"""
        n_common = sum(other.files.get(path) == file for path, file in self.files.items())
        return 3 * n_common >= len(self.files) + len(other.files)


def salvage(source: str, tree: Tree, target: str) -> int:
    """
    Move the files of a tree that seem to be as they were to a new directory, with new directories below it.

    What else is there stays, and so does what somebody has by another name, or has changed in size; other changes
    are seen by :func:`restore`.

    Returns:
        Type and permissions of *target* and all directories below it.

    Raises:
        OSError: Some may be moved, and some not.
    """
    descriptor = os.open(source, _DIRECTORY)
    try:
        os.mkdir(target)
        mode = os.lstat(target).st_mode
        _salvage(descriptor, "", tree, target)
    finally:
        os.close(descriptor)
    return mode


def _salvage(descriptor: int, prefix: str, tree: Tree, target: str) -> None:
    with os.scandir(descriptor) as found:
        entries = list(found)
    for entry in entries:
        path = prefix + entry.name
        if path in tree.directories and entry.is_dir(follow_symlinks=False):
            below = os.open(entry.name, _DIRECTORY, dir_fd=descriptor)
            try:
                os.mkdir(os.path.join(target, path))
                _salvage(below, f"{path}/", tree, target)
            finally:
                os.close(below)
        elif path in tree.files and _seems(entry.stat(follow_symlinks=False), tree.files[path]):
            os.rename(entry.name, os.path.join(target, path), src_dir_fd=descriptor)


def restore(place: str, tree: Tree, read: Callable[[BundleFile], bytes], *, directory_mode: int) -> None:
    """
    Make a directory what ``bundle.unpack`` would have made now.

    A file stays that is regular, has one name, and has the owner, the mode and the content that it should have, which
    is read; its time is now. All else is removed, and what is missing then is written.

    Args:
        read: Gives a file's content.
        directory_mode: What :func:`salvage` gave.

    Raises:
        BundleError: What was read is not what it should be, or the disk refuses a file.
        OSError: This is another directory, or the disk refuses something else.
    """
    top = os.lstat(place)
    if top.st_mode != directory_mode:  # a link, too
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
    right: set[str] = set()
    ahead = [""]
    while ahead:
        prefix = ahead.pop()
        with os.scandir(os.path.join(place, prefix)) as found:
            entries = list(found)
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if path in tree.directories and entry.stat(follow_symlinks=False).st_mode == directory_mode:
                    ahead.append(f"{path}/")
                else:
                    shutil.rmtree(entry.path)
            elif path in tree.files and _is(entry, tree.files[path], top):
                right.add(path)
            else:
                os.unlink(entry.path)
    made: set[str] = set()
    for path, file in tree.files.items():
        if path not in right:
            write(os.path.join(place, path), file, read(file), made)
    for path in tree.directories:
        os.makedirs(os.path.join(place, path), exist_ok=True)


def _seems(status: os.stat_result, file: BundleFile) -> bool:
    """Could this be a file of the bundle, by all but its content?"""
    return (
        status.st_mode == stat.S_IFREG | mode_of(file) and status.st_nlink == 1 and status.st_size == file.size_bytes
    )


def _is(entry: os.DirEntry[str], file: BundleFile, top: os.stat_result) -> bool:
    """Is this a file of the bundle, of the same owner as its directory? Then it counts as written now."""
    if not entry.is_file(follow_symlinks=False):
        return False
    # Should it be another by now: neither through a link, nor waiting for who writes to a pipe.
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not _seems(status, file) or (status.st_uid, status.st_gid) != (top.st_uid, top.st_gid):
            return False
        if hashlib.sha256(os.read(descriptor, file.size_bytes + 1)).hexdigest() != file.sha256:
            return False
        os.utime(descriptor)
    finally:
        os.close(descriptor)
    return True
