"""
Where packages come from on this machine, as pip is told by its environment variables and its files.

It is for uv, which reads its own only. What uv is told itself (``UV_INDEX_URL`` and the like) comes before it.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Sections of pip's files that count for an installation, the later ones more.
_SECTIONS: Final = ("global", "install")
#: What uv's own variables say instead.
_OWN: Final = {
    "index-url": ("UV_INDEX_URL", "UV_DEFAULT_INDEX"),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", "UV_INDEX"),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
}
_YES: Final = frozenset({"1", "yes", "true", "on", "y", "t"})


@dataclass(frozen=True, slots=True)
class Indexes:
    """Where packages come from, unless a project says otherwise."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    #: URLs and paths.
    find_links: tuple[str, ...] = ()
    is_without_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    #: File with the certificates of who is trusted; '': uv's own, or the system's.
    certificates: str = ""


def read(environ: Mapping[str, str] | None = None) -> Indexes:
    """Read what pip is told here; a file that cannot be read says nothing."""
    environ = os.environ if environ is None else environ
    told: dict[str, str] = {}
    for path in _files(environ):
        told |= _settings(path)
    for name in _OWN:
        value = environ.get(f"PIP_{name.upper().replace('-', '_')}")
        if value:
            told[name] = value
    for name, variables in _OWN.items():
        if any(environ.get(variable) for variable in variables):
            told.pop(name, None)
    return Indexes(
        index_url=told.get("index-url", "").strip(),
        extra_index_urls=tuple(told.get("extra-index-url", "").split()),
        find_links=tuple(told.get("find-links", "").split()),
        is_without_index=told.get("no-index", "").strip().lower() in _YES,
        trusted_hosts=tuple(told.get("trusted-host", "").split()),
        certificates=told.get("cert", "").strip(),
    )


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """pip's files, the weakest first."""
    own = environ.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    user = Path(environ.get("HOME") or Path.home())
    for directory in reversed((environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
        yield Path(directory, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    yield user / ".pip" / "pip.conf"
    if sys.platform == "darwin":
        yield user / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or user / ".config", "pip", "pip.conf")
    yield Path(sys.prefix, "pip.conf")
    if own:
        yield Path(own)


def _settings(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    found: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    return {name: value for name, value in found.items() if name in _OWN}
