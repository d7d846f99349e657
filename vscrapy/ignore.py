"""
The rules that keep files of a project at home: ``.gitignore``, ``.vscrapyignore``, and what never travels.

Invariants: history and secrets stay, whatever a rule says; ``.vscrapyignore`` has the last word on all else,
and in a ``.gitignore`` no line brings back a cache or an output.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vscrapy.errors import BundleError

if TYPE_CHECKING:
    from pathspec import RegexPattern

#: The project's own list of what stays at home, in the syntax of ``.gitignore``.
IGNORE_FILE = ".vscrapyignore"

#: History and secrets: no rule brings these back.
_NEVER = re.compile(r"\.git|\.hg|\.svn|\.env(\..*)?", re.DOTALL)
#: Directories of caches and outputs.
_CACHES: Final = frozenset(
    {
        *("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".tox", ".nox"),
        *("node_modules", ".scrapy"),
    }
)


def never_travels(name: str) -> bool:
    """
    Is this the name of a file or directory with history or secrets?

    Also one that some file system takes for such a name: it may fold case, or look past signs that have no width,
    and dots and spaces at the end.
    """
    if not name.startswith(".") and name.isascii():
        return False
    folded = unicodedata.normalize("NFKD", name).casefold()
    visible = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf").rstrip(". ")
    return _NEVER.fullmatch(visible) is not None


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of an ignore file."""

    pattern: RegexPattern
    is_directory_only: bool

    def matches(self, path: str, *, is_directory: bool) -> bool:
        """Does the line match this very path, and not only a directory above it?"""
        if self.is_directory_only and not is_directory:
            return False
        result = self.pattern.match_file(path)
        # The one capturing group of pathspec's expressions marks a match by a directory above.
        return result is not None and result.match.lastindex is None


@dataclass(frozen=True, slots=True)
class _IgnoreFile:
    """The rules of one ignore file, for the paths below its directory."""

    directory: Path
    rules: tuple[_Rule, ...]
    #: Directories to look into although they are ignored: a ``!`` line names something below them.
    passages: tuple[_Rule, ...]

    def verdict(self, path: Path, *, is_directory: bool) -> bool | None:
        """Ignored, brought back, or not spoken of; the last line that matches has it."""
        below = path.relative_to(self.directory).as_posix()
        for rule in reversed(self.rules):
            if rule.matches(below, is_directory=is_directory):
                return rule.pattern.include
        return None

    def leads_through(self, path: Path) -> bool:
        """Does a ``!`` line name something below this directory?"""
        below = path.relative_to(self.directory).as_posix()
        return any(rule.matches(below, is_directory=True) for rule in self.passages)


def _compile(lines: Iterable[str]) -> tuple[_Rule, ...]:
    """Compile the lines that are rules; git drops malformed ones in silence, so do we."""
    from pathspec import GitIgnoreSpec  # not each project has an ignore file, and this takes as long as it

    rules = []
    for line in lines:
        text = line if line.endswith("\\ ") else line.rstrip()
        # pathspec sees files only, and lets a trailing slash match all that is below. The walk asks for
        # each directory itself, as git does, and needs the answer for the path alone.
        with contextlib.suppress(ValueError, re.error):
            for pattern in GitIgnoreSpec.from_lines([text.removesuffix("/")]).patterns:
                if pattern.include is not None:
                    rules.append(_Rule(pattern, is_directory_only=text.endswith("/")))
    return tuple(rules)


def _passages(line: str) -> list[str]:
    """
    Name the directories that lead to what a ``!`` line brings back: ``!/a/b/c`` gives ``/a/`` and ``/a/b/``.

    A line that may match anywhere (``!*.csv``) opens no ignored directory; else one such line
    would make us search every ``node_modules``.
    """
    path = line.strip().removeprefix("!").rstrip("/")
    if not line.startswith("!") or "/" not in path or path.startswith("**"):
        return []
    parts = path.removeprefix("/").split("/")
    return [f"/{'/'.join(parts[:depth])}/" for depth in range(1, len(parts))]


def _read_ignore_file(directory: Path, name: str) -> tuple[_IgnoreFile, ...]:
    """Read one ignore file, as a tuple of one, or of none where there is none."""
    path = directory / name
    if not path.is_file():
        return ()
    try:
        lines = path.read_text("utf-8-sig", "surrogateescape").split("\n")
    except OSError as error:
        raise BundleError(f"{path} cannot be used: {error.strerror or error}.") from error
    passages = [passage for line in lines for passage in _passages(line)]
    return (_IgnoreFile(directory, _compile(lines), _compile(passages)),)


def is_cache(name: str, *, is_directory: bool) -> bool:
    """Is this the name of a cache or an output, which is no part of a project? Only ``.vscrapyignore`` says no."""
    return name == ".DS_Store" or name.endswith((".pyc", ".egg-info")) or (is_directory and name in _CACHES)


@dataclass(frozen=True, slots=True)
class Rules:
    """All that is in force in one directory, outermost first."""

    git: tuple[_IgnoreFile, ...] = ()
    ours: tuple[_IgnoreFile, ...] = ()

    def inside(self, directory: Path) -> Rules:
        """Add what this directory's own ignore files say."""
        return Rules(
            self.git + _read_ignore_file(directory, ".gitignore"),
            self.ours + _read_ignore_file(directory, IGNORE_FILE),
        )

    def is_ignored(self, path: Path, *, is_directory: bool, is_parent_ignored: bool = False) -> bool:
        """Ask ours, which has the last word; then outputs, which git's cannot bring back; then git's."""
        verdict = _last_verdict(self.ours, path, is_directory)
        if verdict is not None:
            return verdict
        if is_parent_ignored or is_cache(path.name, is_directory=is_directory):
            return True
        return bool(_last_verdict(self.git, path, is_directory))

    def leads_through(self, directory: Path) -> bool:
        """Is this ignored directory worth a look, for something below it that is brought back?"""
        return any(file.leads_through(directory) for file in self.ours)


def _last_verdict(files: tuple[_IgnoreFile, ...], path: Path, is_directory: bool) -> bool | None:
    verdicts = (file.verdict(path, is_directory=is_directory) for file in reversed(files))
    return next((verdict for verdict in verdicts if verdict is not None), None)


def rules_above(root: Path) -> Rules:
    """Read the ``.gitignore`` files from git's top level down to *root*, unless they ignore all of *root*."""
    top = next((path for path in (root, *root.parents) if (path / ".git").exists()), root)
    rules = Rules()
    way_down = [path for path in (*reversed(root.parents), root) if top in path.parents]
    for child in way_down:
        rules = Rules(rules.git + _read_ignore_file(child.parent, ".gitignore"))
        if rules.is_ignored(child, is_directory=True):
            return Rules()
    return rules
