"""The Lua scripts, one atomic operation a file; ``-- include: NAME`` puts in ``_NAME.lua``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).with_name("scripts")
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """
    Read the script *name* with its includes.

    Raises:
        FileNotFoundError: There is no such script.
    """
    text = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: (_FOLDER / f"_{match.group(1)}.lua").read_text(encoding="utf-8"), text)


@cache
def preload() -> None:
    """Read all scripts now: a later upgrade on disk must not mix with the code that runs."""
    for path in _FOLDER.glob("[!_]*.lua"):
        source(path.stem)
