"""Versions of what a crawl depends on, at its sender and on its workers."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from vscrapy import __version__

#: In the order in which they are shown.
NAMES: Final = ("python", "scrapy", "twisted", "vscrapy")


def versions_here() -> dict[str, str]:
    """Those of this process; of vscrapy, that of the code which runs, whatever has been installed since."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("scrapy", "twisted")},
        "vscrapy": __version__,
    }


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Name what has another minor version in the one than in the other; what is not known does not differ."""
    return [name for name in NAMES if one.get(name) and other.get(name) and _minor(one[name]) != _minor(other[name])]


def _minor(words: str) -> list[str]:
    return re.findall(r"\d+", words)[:2]


def told(versions: Mapping[str, str], names: list[str]) -> str:
    """Say some of them, as in a sentence."""
    return " and ".join(f"{name.capitalize() if name != 'vscrapy' else name} {versions[name]}" for name in names)
