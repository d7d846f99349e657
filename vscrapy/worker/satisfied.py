"""Does the environment that a worker runs in have what a project needs?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from vscrapy.requirements import Requirements, redact

#: The file of a distribution that says where it was installed from, if that was no index.
_DIRECT: Final = "direct_url.json"


def lacking(requirements: Requirements, sums: Mapping[str, str]) -> str:
    """
    Say what this environment lacks; '': it has all.

    What an installed package itself depends on is not looked at: it is there, as somebody has put it.

    Args:
        sums: Path of a file in the project -> its SHA-256.
    """
    names: list[tuple[str, frozenset[str]]] = []
    for needed in requirements.requirements:
        if needed.is_local:
            if not _has_archive(sums.get(needed.path, "")):
                return f"{needed.path} is not installed"
            continue
        try:
            parsed = Requirement(needed.text)
        except InvalidRequirement:  # a bare URL
            if not any(_is_from(found, needed.text) for found in distributions()):
                return f"{redact(needed.text)} is not installed"
            continue
        missing = _missing(parsed, frozenset({""}))
        if missing:
            return missing
        if _applies(parsed, frozenset({""})):
            names.append((parsed.name, frozenset(parsed.extras)))
    bounds = {canonicalize_name(bound.name): bound for bound in map(Requirement, requirements.constraints)}
    for name in _reached(names) if bounds else ():
        bound = bounds.get(canonicalize_name(name))
        missing = _missing(bound, frozenset({""})) if bound is not None else ""
        if missing:
            return missing
    return ""


def _missing(needed: Requirement, extras: frozenset[str]) -> str:
    """Say what is not there of one requirement and of the extras that it names."""
    if not _applies(needed, extras):
        return ""
    found = _find(needed.name)
    if found is None:
        return f"{needed.name} is not installed"
    if needed.url is not None and not _is_from(found, needed.url):
        return f"{needed.name} is not that of {redact(needed.url)}"
    if not needed.specifier.contains(found.version, prereleases=True):
        return f"{needed.name} is {found.version}, not {needed.specifier}"
    wanted = frozenset(needed.extras)
    for inner in _requires(found) if wanted else ():
        is_of_extra = _applies(inner, wanted) and not _applies(inner, frozenset({""}))
        # A package that names itself puts its extras together.
        words = _missing(inner, wanted) if is_of_extra else ""
        if words:
            return words
    return ""


def _applies(needed: Requirement, extras: frozenset[str]) -> bool:
    return needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _requires(found: Distribution) -> Iterator[Requirement]:
    for text in found.requires or ():
        try:
            yield Requirement(text)
        except InvalidRequirement:  # an old package's; pip does not take it, either
            continue


def _reached(names: list[tuple[str, frozenset[str]]]) -> set[str]:
    """The packages that these need, and those in turn, as far as they are installed."""
    reached: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(names)
    while waiting:
        name, extras = waiting.pop()
        key = (canonicalize_name(name), extras)
        found = None if key in seen else _find(name)
        seen.add(key)
        if found is None:
            continue
        reached.add(name)
        waiting += [
            (inner.name, frozenset(inner.extras))
            for inner in _requires(found)
            if _applies(inner, extras | frozenset({""}))
        ]
    return reached


def _direct(found: Distribution) -> dict[str, Any]:
    text = found.read_text(_DIRECT)
    try:
        data = json.loads(text) if text else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _has_archive(sha256: str) -> bool:
    """Is something installed from an archive with this sum?"""
    return bool(sha256) and any(
        (_direct(found).get("archive_info") or {}).get("hashes", {}).get("sha256") == sha256
        for found in distributions()
    )


def _is_from(found: Distribution, url: str) -> bool:
    """Is it installed from this very URL? Of a branch nobody knows whether it has moved on since."""
    direct = _direct(found)
    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    vcs = direct.get("vcs_info")
    if isinstance(vcs, dict):
        known = f"{vcs.get('vcs')}+{direct.get('url')}@{vcs.get('commit_id')}"
        return bool(vcs.get("commit_id")) and plain == known
    return bool(direct.get("archive_info") is not None and direct.get("url") == plain)
