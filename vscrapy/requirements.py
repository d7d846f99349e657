"""
What a project needs of third parties, as plain data: read at the sender, sent in the signed job, met on workers.

Paths are below the project, with ``/``: what lies there travels. URLs may hold passwords, and are never shown as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final
from urllib.parse import unquote

#: User and password of a URL, wherever it stands in a text.
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@]+(?=@)")
#: Values of a URL's query that are secrets more often than not.
_TOKENS: Final = re.compile(
    r"(?<=[?&])(?P<name>\w*(?:token|password|key|secret|signature)\w*=)[^&\s#]+", re.IGNORECASE
)
#: A user that says nothing, as in ``git+ssh://git@host``.
_PLAIN_USERS: Final = frozenset({"git", "hg"})
#: Characters from which on a secret is hidden also where it stands alone: shorter ones are parts of many a word.
LEAST_SECRET: Final = 4


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of what a project needs."""

    #: As PEP 508 has it, or a URL; of what lies in the project, what follows its path: extras and marker.
    text: str
    #: An archive or a directory in the project; '.': none.
    path: str = "."
    #: As pip has them, ``sha256:...``.
    hashes: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Does it lie in the project?"""
        return self.path != "."

    def __str__(self) -> str:
        return f"{self.path}{self.text}" if self.is_local else redact(self.text)


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that a project needs, and where it is to be had."""

    #: The file that says so, for people.
    source: str
    requirements: tuple[Requirement, ...] = ()
    #: As PEP 508 has them.
    constraints: tuple[str, ...] = ()
    #: Empty: the worker's own.
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    #: URLs.
    find_links: tuple[str, ...] = ()
    #: Directories in the project with archives.
    find_paths: tuple[str, ...] = ()
    is_without_index: bool = False
    takes_prereleases: bool = False
    no_binary: tuple[str, ...] = ()
    only_binary: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """What must lie in the project."""
        return (*(found.path for found in self.requirements if found.is_local), *self.find_paths)

    def to_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> Requirements:
        """
        Read what :meth:`to_data` gave.

        Raises:
            ValueError: Not such an object.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or not isinstance(data.get("source"), str) or not data.keys() <= known:
            raise ValueError("the task's requirements cannot be read; was it sent by another version of vscrapy?")
        try:
            lines = tuple(
                Requirement(_line(line["text"]), _below(line["path"]), tuple(_line(one) for one in line["hashes"]))
                for line in data["requirements"]
            )
            texts = {
                name: tuple(_line(one) for one in data[name])
                for name in (
                    *("constraints", "extra_index_urls", "find_links", "no_binary", "only_binary"),
                    "trusted_hosts",
                )
            }
            return cls(
                source=_line(data["source"]),
                requirements=lines,
                index_url=_line(data["index_url"]),
                find_paths=tuple(_below(path) for path in data["find_paths"]),
                is_without_index=data["is_without_index"] is True,
                takes_prereleases=data["takes_prereleases"] is True,
                **texts,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the task's requirements cannot be read: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class PythonNeeded:
    """Which Python a project asks for."""

    #: The file that says so, for people.
    source: str
    #: As PEP 440 has them: ``>=3.11,<4``.
    versions: str

    def takes(self, version: str) -> bool:
        """Does it run with this Python?"""
        from packaging.specifiers import SpecifierSet  # most projects ask for none

        return SpecifierSet(self.versions).contains(version, prereleases=True)

    def to_data(self) -> dict[str, str]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> PythonNeeded:
        """
        Read what :meth:`to_data` gave.

        Raises:
            ValueError: Not such an object.
        """
        try:
            return cls.checked(_line(data["source"]), _line(data["versions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the Python that the task needs cannot be read: {error!r}") from error

    @classmethod
    def checked(cls, source: str, versions: Any) -> PythonNeeded:
        """
        Make one of what stands in a file.

        Raises:
            ValueError: It is no set of versions.
        """
        from packaging.specifiers import SpecifierSet

        try:
            return cls(source, str(SpecifierSet(versions)))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{versions!r} is no set of versions") from error


def _line(value: Any) -> str:
    """Take a text that stays one line where it is written to a file of lines."""
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError("a requirement is no line of text")
    return value


def _below(value: Any) -> str:
    path = _line(value)
    parts = path.split("/")
    if path != "." and (not all(parts) or {".", ".."} & set(parts) or "\\" in path):
        raise TypeError(f"{path!r} is no path in the project")
    return path


def redact(text: str) -> str:
    """Replace users and passwords of URLs in a text by ``***``."""
    return _TOKENS.sub(r"\g<name>***", _CREDENTIALS.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    return found[0] if found[0] in _PLAIN_USERS else "***"


def secrets_in(urls: Iterable[str]) -> frozenset[str]:
    """Give what must not be shown of some URLs, quoted and not."""
    found: set[str] = set()
    for url in urls:
        for credentials in _CREDENTIALS.findall(url):
            user, colon, password = credentials.partition(":")
            found.add(password if colon else user)  # a user alone is often a token
        found.update(matched[0].partition("=")[2] for matched in _TOKENS.finditer(url))
    return frozenset(secret for secret in {*found, *map(unquote, found)} if len(secret) >= LEAST_SECRET)
