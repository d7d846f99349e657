"""
Where a project's HTTP cache is: at the sender, and for the crawl processes of a worker.

A cache has an identity, in a file of its own at the sender. A worker that sees that file uses the sender's very
directory; another one keeps a directory for it, which is forgotten when the sender's is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Final

#: The file in a cache's directory with its identity; it is also what is locked.
IDENTITY: Final = ".vscrapy"
#: Time after which a kept cache that no crawl has used is removed (seconds).
KEPT_S: Final = 7 * 24 * 3600.0
_IDENTITY: Final = re.compile(r"[0-9a-f]{32}")


def identify(directory: Path) -> str:
    """
    Return the identity of the sender's cache in *directory*; both are made if need be.

    Raises:
        OSError: The disk refuses.
    """
    file = directory / IDENTITY
    directory.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        new = directory / f"{IDENTITY}-{os.getpid()}"
        new.write_text(secrets.token_hex(16), encoding="ascii")
        with contextlib.suppress(FileExistsError):  # another sender was faster
            os.link(new, file)  # whole at once
        new.unlink()
    identity = file.read_text(encoding="ascii", errors="replace")
    _require(identity, directory)
    return identity


def _require(identity: str, directory: Path) -> None:
    """It becomes the name of a directory on workers, and must lead to nothing above it."""
    if not _IDENTITY.fullmatch(identity):
        raise OSError(f"the identity of the cache in {directory} is none; remove the file {IDENTITY} in it")


def place(directory: Path, identity: str, home: Path) -> Path:
    """
    Return the directory of the cache for the crawl processes of a worker with this *home*.

    Raises:
        OSError: The disk refuses.
    """
    try:
        is_here = (directory / IDENTITY).read_text(encoding="ascii") == identity and os.access(directory, os.W_OK)
    except (OSError, UnicodeDecodeError):
        is_here = False
    if is_here:
        return directory
    _require(identity, directory)
    kept = _kept(home) / identity
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(kept)
    return kept


def drop_unused(home: Path) -> None:
    """Remove the kept caches that no crawl has used for ``KEPT_S``."""
    if not _kept(home).is_dir():
        return
    for path in _kept(home).iterdir():
        if time.time() - path.stat().st_mtime > KEPT_S:
            shutil.rmtree(path, ignore_errors=True)


def _kept(home: Path) -> Path:
    return home / "cache" / "http"
