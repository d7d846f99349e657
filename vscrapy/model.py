"""Frozen values that travel between the parts: what a task is, where the store is, what a bundle holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

#: Version of the keys, the payloads and the scripts. Both sides of a Redis must have the same.
PROTOCOL = 7


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the store is, and what was told about it."""

    #: ``redis://``, ``rediss://`` or ``unix://`` URL, with the password in it.
    url: str = field(repr=False)
    #: Where the URL comes from, for messages: ``--redis``, ``VSCRAPY_REDIS_URL``, a file, ``embedded``.
    source: str
    #: The cluster's secret; signatures are made with a key derived from it.
    secret: str = field(repr=False)
    #: The user accepts a Redis without a password beyond this machine.
    is_insecure_allowed: bool = False


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle."""

    #: Path below the root it belongs to, with ``/``.
    path: str
    sha256: str
    size_bytes: int
    is_executable: bool = False


@dataclass(frozen=True, slots=True)
class BundleRoot:
    """One directory of a bundle: the project itself, or a directory that local modules were imported from."""

    #: Directory name below the place where the bundle is unpacked; the project is ``project``.
    name: str
    #: Is this directory put on ``sys.path``, in the order of the roots?
    is_import_root: bool
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The list of a bundle's files: what is stored, in which directory, by content."""

    roots: tuple[BundleRoot, ...]
    #: The sender's working directory, below the first root, with ``/``; ``.`` for the root itself.
    working_directory: str = "."

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of all files."""
        return sum(file.size_bytes for root in self.roots for file in root.files)


def canonical_json(data: object) -> str:
    """JSON with sorted keys, no spaces, ASCII only: equal data give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
