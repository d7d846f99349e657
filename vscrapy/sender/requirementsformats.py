"""
What a file says of a project's needs: pip's requirements files, pyproject.toml, setup.cfg, and scripts.

What lies beside the project cannot be had by workers, so a path that leaves it is an error here, before anything is
sent.
"""

from __future__ import annotations

import codecs
import configparser
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from vscrapy.errors import ConfigError
from vscrapy.requirements import Requirement, Requirements, redact

#: Files nested in each other at most.
MOST_NESTED: Final = 50

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: As pip has them.
_COMMENT: Final = re.compile(r"(^|\s+)#.*$")
_VARIABLE: Final = re.compile(r"\$\{([A-Z0-9_]+)\}")
_ARCHIVE: Final = re.compile(r"\.(whl|zip|tar\.gz|tgz|tar\.bz2|tbz|tar\.xz|txz|tar)$", re.IGNORECASE)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: What stands behind a path: extras and a marker.
_BEHIND: Final = re.compile(r"^(?P<path>[^;\[\]]+?)(?P<rest>\s*(?:\[[^\]]*\])?\s*(?:;.*)?)$")
#: Dependencies that a single file names in itself, as PEP 723 has it.
_SCRIPT: Final = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
#: Options of pip's that take a value, by the name that they count under here.
_WITH_VALUE: Final = {
    **dict.fromkeys(("-r", "--requirement"), "requirement"),
    **dict.fromkeys(("-c", "--constraint"), "constraint"),
    **dict.fromkeys(("-e", "--editable"), "editable"),
    **dict.fromkeys(("-i", "--index-url", "--pypi-url"), "index_url"),
    "--extra-index-url": "extra_index_url",
    **dict.fromkeys(("-f", "--find-links"), "find_links"),
    "--no-binary": "no_binary",
    "--only-binary": "only_binary",
    "--trusted-host": "trusted_host",
    "--use-feature": "nothing",
}
_WITHOUT_VALUE: Final = {
    "--no-index": "no_index",
    "--pre": "pre",
    "--prefer-binary": "nothing",
    "--require-hashes": "nothing",  # what has hashes is held against them in any case
}


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    #: The project's directory, real.
    project: Path
    tell: Callable[[str], None]
    requirements: list[Requirement] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    index_url: str = ""
    extra_index_urls: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    find_paths: list[str] = field(default_factory=list)
    is_without_index: bool = False
    takes_prereleases: bool = False
    no_binary: list[str] = field(default_factory=list)
    only_binary: list[str] = field(default_factory=list)
    trusted_hosts: list[str] = field(default_factory=list)
    #: Files that have been read, and as what.
    seen: set[tuple[Path, bool]] = field(default_factory=set)
    is_poetry_told: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something stands, for messages and for what is relative to it."""

    path: Path
    shown: str
    line: int = 0
    is_constraint: bool = False

    def __str__(self) -> str:
        return f"{self.shown}, line {self.line}" if self.line else self.shown

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self}: {what}")


def read(path: Path, project: Path, tell: Callable[[str], None]) -> Requirements | None:
    """
    Read a file, as what its name says that it is; None: it says nothing of what is needed.

    Args:
        project: The project's directory, real.
        tell: Gets a line on what does not count.

    Raises:
        ConfigError: It cannot be read, a line of it is wrong, or names what lies beside the project.
    """
    found, place = _Found(project, tell), _Place(path, shown(path, project))
    if path.name == "pyproject.toml":
        names = _pyproject_names(found, place)
    elif path.name == "setup.cfg":
        names = _setup_cfg_names(found, place)
    else:
        _read_file(found, place, depth=0)
        return _made(found, place.shown)
    if names is None:
        return None
    _add_names(found, names, place)
    return _made(found, place.shown)


def read_script(script: Path, project: Path, tell: Callable[[str], None]) -> Requirements | None:
    """
    Read what a single file says that it needs itself; None: it says nothing.

    Args, Raises: as :func:`read`.
    """
    found, place = _Found(project, tell), _Place(script, script.name)
    data = _script_data(place) or {}
    if "dependencies" not in data:
        return None
    _add_names(found, _names(data["dependencies"], place, "dependencies"), place)
    return _made(found, place.shown)


def requires_python(path: Path, *, is_script: bool) -> Any:
    """
    What stands for requires-python in a pyproject.toml or a single file; None: nothing.

    Raises:
        ConfigError: It cannot be read.
    """
    place = _Place(path, path.name)
    if is_script:
        return (_script_data(place) or {}).get("requires-python")
    table = _toml(place, _text(place)).get("project")
    return table.get("requires-python") if isinstance(table, dict) else None


def has_metadata(script: Path) -> bool:
    """
    Does a single file say anything of itself?

    Raises:
        ConfigError: It cannot be read.
    """
    return _script_data(_Place(script, script.name)) is not None


def _made(found: _Found, source: str) -> Requirements:
    return Requirements(
        source=source,
        requirements=tuple(dict.fromkeys(found.requirements)),
        constraints=tuple(dict.fromkeys(found.constraints)),
        index_url=found.index_url,
        extra_index_urls=tuple(dict.fromkeys(found.extra_index_urls)),
        find_links=tuple(dict.fromkeys(found.find_links)),
        find_paths=tuple(dict.fromkeys(found.find_paths)),
        is_without_index=found.is_without_index,
        takes_prereleases=found.takes_prereleases,
        no_binary=tuple(found.no_binary),
        only_binary=tuple(found.only_binary),
        trusted_hosts=tuple(dict.fromkeys(found.trusted_hosts)),
    )


def shown(path: Path, root: Path) -> str:
    """A file's path as people know it: below the project, where it lies there."""
    real = Path(os.path.realpath(path))
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else str(path)


def _text(place: _Place) -> str:
    try:
        content = place.path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{place.shown} cannot be read: {error.strerror}") from error
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place.shown} cannot be read: it is no text in {encoding}") from error


# --- pip's requirements files


def _read_file(found: _Found, place: _Place, *, depth: int) -> None:
    key = (Path(os.path.realpath(place.path)), place.is_constraint)
    if key in found.seen:
        return
    found.seen.add(key)
    if depth > MOST_NESTED:
        raise place.error("too many files are nested in each other")
    for number, line in _logical_lines(_text(place)):
        at = replace(place, line=number)
        try:
            words = shlex.split(line, posix=False) if line.startswith("-") else []
        except ValueError as error:
            raise at.error(str(error)) from error
        if words:
            _take_options(found, [word.strip("\"'") for word in words], at, depth)
        else:
            _take_line(found, line, at)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with something on them, with their numbers: joined, without comments, with variables put in."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        first = first if parts else number
        if raw.endswith("\\") and not _COMMENT.match(raw):
            parts.append(raw[:-1])
            continue
        parts.append(f" {raw}" if parts and _COMMENT.match(raw) else raw)
        line = _COMMENT.sub("", "".join(parts)).strip()
        parts = []
        if line:
            yield first, _VARIABLE.sub(lambda name: os.environ.get(name[1]) or name[0], line)


def _take_options(found: _Found, words: list[str], place: _Place, depth: int) -> None:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            option, equals, value = word[:2], "=", word[2:].removeprefix("=")
        if option in _WITHOUT_VALUE:
            _take_flag(found, _WITHOUT_VALUE[option])
            continue
        if option not in _WITH_VALUE:
            raise place.error(f"{redact(option)} is no option that is known here")
        if not equals:
            if not rest:
                raise place.error(f"{option} has no value")
            value = rest.pop(0)
        if _WITH_VALUE[option] == "editable":  # the rest of the line is of it
            value, rest = " ".join([value, *rest]), []
        _take_option(found, _WITH_VALUE[option], value, place, depth)


def _take_flag(found: _Found, name: str) -> None:
    if name == "no_index":
        found.is_without_index = True
    elif name == "pre":
        found.takes_prereleases = True


def _take_option(found: _Found, name: str, value: str, place: _Place, depth: int) -> None:
    if name in ("requirement", "constraint"):
        if _URL.match(value):
            raise place.error(f"{redact(value)} is a URL; put what it says into a file")
        path = place.path.parent / value
        nested = _Place(path, shown(path, found.project), 0, place.is_constraint or name == "constraint")
        if not path.is_file():
            raise place.error(f"there is no file {value}")
        _read_file(found, nested, depth=depth + 1)
    elif name == "editable":
        _take_line(found, value, place)
    elif name == "index_url":
        found.index_url = value
    elif name == "extra_index_url":
        found.extra_index_urls.append(value)
    elif name == "find_links":
        if _URL.match(value) and not value.startswith("file:"):
            found.find_links.append(value)
        else:
            found.find_paths.append(_path_in_project(found, value, place))
    elif name in ("no_binary", "only_binary"):
        getattr(found, name).extend(part.strip() for part in value.split(",") if part.strip())
    elif name == "trusted_host":
        found.trusted_hosts.append(value)


def _take_line(found: _Found, line: str, place: _Place) -> None:
    """Take one requirement."""
    text, *options = re.split(r"\s+(?=--)", line)
    hashes = tuple(_hash(option, place) for option in options)
    local = _local(text, place)
    if local is not None:
        path, rest = local
        below = _path_in_project(found, path, place)
        if place.is_constraint:
            raise place.error(f"{path} is a path, and no constraint")
        if below == ".":
            _take_project(found, rest, place)
        else:
            found.requirements.append(Requirement(rest.strip(), below, hashes))
    elif _URL.match(text):
        found.requirements.append(Requirement(text, hashes=hashes))
    else:
        parsed = _check_name(text, place)
        ours = ranges().get(canonicalize_name(parsed.name))
        if ours is not None and _excludes(parsed.specifier, *ours):
            found.tell(f"{place}: {text} does not count, for vscrapy runs with {parsed.name}{ours[0]} only")
        elif place.is_constraint:
            found.constraints.append(text)
        else:
            found.requirements.append(Requirement(text, hashes=hashes))


@cache
def ranges() -> Mapping[NormalizedName, tuple[SpecifierSet, Version]]:
    """The versions that vscrapy itself runs with: package -> all of them, and the one that is installed here."""
    found = {}
    for text in requires("vscrapy") or ():
        parsed = Parsed(text)
        if parsed.marker is None or parsed.marker.evaluate({"extra": ""}):
            with suppress(PackageNotFoundError):
                found[canonicalize_name(parsed.name)] = (parsed.specifier, Version(version(parsed.name)))
    return found


def _excludes(theirs: SpecifierSet, ours: SpecifierSet, here: Version) -> bool:
    """
    Is there no version that both allow, as with a pin of years ago? Such a project runs with ``scrapy crawl``, which
    never reads its file, and with nothing else here.
    """
    candidates = [here]
    for text in [one.version.removesuffix(".*") for one in (*theirs, *ours)]:
        with suppress(InvalidVersion):
            candidates += [Version(text), Version(f"{text}.1")]  # itself, and one above it
    both = theirs & ours
    return not any(both.contains(candidate, prereleases=True) for candidate in candidates)


def _hash(option: str, place: _Place) -> str:
    name, equals, value = option.partition("=")
    name, value = (name, value) if equals else (option.split()[0], "".join(option.split()[1:]))
    if name != "--hash":
        raise place.error(f"{redact(name)} is no option that is known here")
    if not re.fullmatch(r"\w+:[0-9a-fA-F]+", value.strip()):
        raise place.error(f"{value!r} is no hash; write --hash=sha256:...")
    return value.strip()


def _check_name(text: str, place: _Place) -> Parsed:
    try:
        return Parsed(text)
    except InvalidRequirement as error:
        what = str(error).splitlines()[0]
        raise place.error(f"{redact(text)!r} is no requirement: {redact(what)}") from None


def _local(text: str, place: _Place) -> tuple[str, str] | None:
    """Take a path and what stands behind it from a line that names one."""
    name, at, url = text.partition("@")
    if at and re.fullmatch(r"[\w.\s\[\],-]+", name) and url.strip().startswith("file:"):
        text = url.strip()
    if text.startswith("file:"):
        path, semicolon, marker = text.partition(" ;")
        parts = urlsplit(path)
        return unquote(parts.path), f"{semicolon}{marker}"
    if _URL.search(text):
        return None
    behind = _BEHIND.match(text)
    if behind is None:
        return None
    path, rest = behind["path"].strip(), behind["rest"]
    is_path = path.startswith((".", "/", "~")) or os.sep in path
    if is_path or (_ARCHIVE.search(path) and (place.path.parent / path).exists()):
        return os.path.expanduser(path), rest
    return None


def _path_in_project(found: _Found, path: str, place: _Place) -> str:
    """Say where a path is below the project."""
    path = unquote(urlsplit(path).path) if path.startswith("file:") else path
    whole = Path(os.path.normpath(place.path.parent / path))
    # By its name and not where a link leads: that is how it travels.
    project = next((at for at in (found.project, place.path.parent) if whole.is_relative_to(at)), None)
    if project is None and Path(os.path.realpath(whole)).is_relative_to(found.project):
        whole, project = Path(os.path.realpath(whole)), found.project
    if project is None or not Path(os.path.realpath(project)).is_relative_to(found.project):
        raise place.error(f"{redact(path)} is not in the project {found.project}, and only that travels")
    if not whole.exists():
        raise place.error(f"there is no {redact(path)}")
    return (Path(os.path.realpath(project)) / whole.relative_to(project)).relative_to(found.project).as_posix()


def _take_project(found: _Found, rest: str, place: _Place) -> None:
    """The project itself: its code travels in any case, what it depends on counts."""
    extras = re.findall(r"[\w.-]+", rest.partition(";")[0])
    for name in ("pyproject.toml", "setup.cfg"):
        at = _Place(found.project / name, name)
        if not at.path.is_file():
            continue
        read = _pyproject_names if name == "pyproject.toml" else _setup_cfg_names
        names = read(found, at, extras)
        if names is not None:
            _add_names(found, names, at)
            return
    found.tell(
        f"{place.shown}, line {place.line}: what the project itself depends on is not found in pyproject.toml or "
        "setup.cfg; workers do not look for it"
    )


# --- pyproject.toml, setup.cfg, scripts


def _add_names(found: _Found, names: list[str], place: _Place) -> None:
    for name in names:
        _take_line(found, name, place)


def _toml(place: _Place, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise place.error(f"it is no TOML: {error}") from error


def _names(value: Any, place: _Place, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise place.error(f"{what} is no list of requirements")
    return [name.strip() for name in value]


def _pyproject_names(found: _Found, place: _Place, extras: list[str] | None = None) -> list[str] | None:
    """The dependencies of a pyproject.toml; None: it has none, or another file says so."""
    data = _toml(place, _text(place))
    project = data.get("project")
    if not (isinstance(project, dict) and "dependencies" in project):
        _mention_poetry(found, place, data)
    if not isinstance(project, dict):
        return None
    optional = project.get("optional-dependencies", {})
    chosen = [name for extra in extras or [] for name in _names(optional.get(extra, []), place, f"extra {extra}")]
    if "dependencies" in project:
        return [*_names(project["dependencies"], place, "project.dependencies"), *chosen]
    if "dependencies" not in (project.get("dynamic") or []):
        return chosen or None
    dynamic = data.get("tool", {}).get("setuptools", {}).get("dynamic", {}).get("dependencies")
    files = dynamic.get("file") if isinstance(dynamic, dict) else None
    if files is None:
        return chosen or None
    _read_files(found, [files] if isinstance(files, str) else _names(files, place, "file"), place)
    return chosen


def _mention_poetry(found: _Found, place: _Place, data: Mapping[str, Any]) -> None:
    """Tell once of dependencies in a table that only Poetry understands."""
    table = data.get("tool")
    for name in ("poetry", "dependencies"):
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict) and table.keys() - {"python"} and not found.is_poetry_told:
        found.is_poetry_told = True
        found.tell(
            f"{place.shown}: [tool.poetry.dependencies] is not read; name what workers need in dependencies of "
            "[project], or in a requirements.txt ('poetry export -o requirements.txt' writes one)"
        )


def _setup_cfg_names(found: _Found, place: _Place, extras: list[str] | None = None) -> list[str] | None:
    """The install_requires of a setup.cfg; None: it has none."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(place))
    except configparser.Error as error:
        raise ConfigError(f"{place.shown} is not an INI file ({type(error).__name__})") from None
    values = [
        parser.get("options", "install_requires", fallback=None),
        *(parser.get("options.extras_require", extra, fallback=None) for extra in extras or []),
    ]
    present = [value for value in values if value is not None]
    names: list[str] = []
    for value in present:
        if value.strip().startswith("file:"):
            _read_files(found, value.strip().removeprefix("file:").split(","), place)
        else:
            names += [line.strip() for line in re.split(r"[\n]|;(?=\s*$)", value) if line.strip()]
    return names if present else None


def _read_files(found: _Found, names: list[str], place: _Place) -> None:
    for name in (name.strip() for name in names):
        path = place.path.parent / name
        if not path.is_file():
            raise place.error(f"there is no file {name}")
        _read_file(found, _Place(path, shown(path, found.project)), depth=1)


def _script_data(place: _Place) -> dict[str, Any] | None:
    """What a single file says of itself; None: nothing."""
    matched = _SCRIPT.search(_text(place))
    if matched is None:
        return None
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in matched["content"].splitlines()]
    return _toml(place, "\n".join(lines))
