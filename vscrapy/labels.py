"""
Labels of workers, and which workers a task takes: the words of ``--label``, ``--on`` and ``--exclude``.

A label is NAME=VALUE. Each worker has one more that nobody gives it: ``name``, its own. On Redis, labels and demands
are words with blanks between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vscrapy.errors import ConfigError

#: The label that is a worker's name.
OWN_NAME: Final = "name"
_LABEL: Final = re.compile(r"([\w.-]+)=([\w.-]+)")
_DEMAND: Final = re.compile(r"[\w.-]+=[\w.-]+(,[\w.-]+)*")
_NAMES: Final = re.compile(r"[\w.-]+(,[\w.-]+)*")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which workers a task takes; without a demand, all of them."""

    #: Demands that all must hold; ``region=eu,us``: one of these values.
    on: tuple[str, ...] = ()
    #: Demands of which none may hold.
    exclude: tuple[str, ...] = ()

    def takes(self, worker: str, labels: Mapping[str, str]) -> bool:
        """Does the task take this worker?"""
        has = {**labels, OWN_NAME: worker}
        return all(_holds(demand, has) for demand in self.on) and not any(
            _holds(demand, has) for demand in self.exclude
        )

    def __str__(self) -> str:
        """As on the command line."""
        return " ".join(
            [*(f"--on {demand}" for demand in self.on), *(f"--exclude {demand}" for demand in self.exclude)]
        )


#: Whatever worker there is.
ANY: Final = Choice()


def _holds(demand: str, has: Mapping[str, str]) -> bool:
    name, _, values = demand.partition("=")
    return has.get(name) in values.split(",")


def parse_choice(on: Iterable[str], exclude: Iterable[str]) -> Choice:
    """
    Read what stands behind ``--on`` and ``--exclude``.

    Raises:
        ConfigError: It is not NAME=VALUE[,VALUE...]; behind ``--exclude``, nor names of workers.
    """
    demands = tuple(on)
    for demand in demands:
        if not _DEMAND.fullmatch(demand):
            raise ConfigError(f"--on is {demand!r}; give a label, as in --on region=eu or --on name=w1,w2")
    excluded = []
    for demand in exclude:
        if not (_DEMAND.fullmatch(demand) or _NAMES.fullmatch(demand)):
            raise ConfigError(f"--exclude is {demand!r}; give a label or a worker's name, as in --exclude region=eu")
        excluded.append(demand if "=" in demand else f"{OWN_NAME}={demand}")
    return Choice(demands, tuple(excluded))


def parse_labels(words: Iterable[str], source: str) -> dict[str, str]:
    """
    Read labels.

    Args:
        source: Where they come from, for messages.

    Raises:
        ConfigError: One is not NAME=VALUE, or a name has two values.
    """
    labels: dict[str, str] = {}
    for word in words:
        found = _LABEL.fullmatch(word)
        if found is None:
            raise ConfigError(
                f"{source} has {word!r}; a label is NAME=VALUE, of letters, digits, '.', '_' and '-', as in region=eu"
            )
        name, value = found.groups()
        if name == OWN_NAME:
            raise ConfigError(f"{source} has {word!r}; the label 'name' is the worker's name, which --name sets")
        if labels.setdefault(name, value) != value:
            raise ConfigError(f"{source} has two values for {name!r}: {labels[name]} and {value}; give one")
    return labels


def labels_to_text(labels: Mapping[str, str]) -> str:
    """Write labels as words."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def labels_from_text(text: str) -> dict[str, str]:
    """Read labels that a worker has written; whatever else stands there, counts for nothing."""
    return dict(found.groups() for word in text.split() if (found := _LABEL.fullmatch(word)))  # type: ignore[misc]
