"""The contents of a file in a form that two runs can be compared by: the order of items is not part of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import marshal
import pickle
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, Final

#: Files whose lines come in the order in which pages arrive, which Scrapy does not promise.
_LINES: Final = frozenset({".jsonl", ".jl", ".jsonlines", ".json", ".csv", ".xml", ".txt", ".log"})
_DATABASES: Final = frozenset({".sqlite", ".sqlite3", ".db"})
_UNPACK: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


def read(path: Path, *, is_exact: bool) -> Any:
    """
    Read a file.

    Args:
        is_exact: As bytes; else compressed files are unpacked, and feeds and databases are counted items, lines or
            rows.
    """
    data = path.read_bytes()
    if is_exact:
        return data
    suffixes = path.suffixes
    while suffixes and suffixes[-1] in _UNPACK:
        data = _UNPACK[suffixes.pop()](data)
    kind = suffixes[-1] if suffixes else ""
    if kind in _LINES:
        return _lines(data)
    if kind == ".pickle":
        return _loaded(data, pickle.load)
    if kind == ".marshal":
        return _loaded(data, marshal.load)
    if kind in _DATABASES:
        return _rows(path)
    return data


def _lines(data: bytes) -> Counter[str]:
    # A JSON array has a comma behind each item but the last; XML has no newlines.
    text = data.decode("utf-8", "surrogateescape").replace("</item>", "</item>\n")
    return Counter(line.removesuffix(",").rstrip("\r") for line in text.split("\n"))


def _loaded(data: bytes, load: Callable[[BytesIO], Any]) -> Counter[str]:
    """The objects that stand one after the other in a feed of pickles, or of marshalled items."""
    stream = BytesIO(data)
    found: Counter[str] = Counter()
    while stream.tell() < len(data):
        found[repr(load(stream))] += 1
    return found


def _rows(path: Path) -> dict[str, Counter[str]]:
    """The rows of all tables of an SQLite file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: Counter(map(repr, database.execute(f'SELECT * FROM "{name}"'))) for name in names}
