"""
One tree of errors, each a single line for a person: what happened, with which value, what to do.

A subclass's docstring is its default message. ``exit_code`` is the process's exit code when the
error reaches the command line; the codes are documented in the README.
"""

from __future__ import annotations

from typing import ClassVar


class VscrapyError(Exception):
    """Something went wrong in vscrapy."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))


class ConfigError(VscrapyError):
    """The configuration has a value that cannot be used."""

    exit_code = 2


class BundleError(VscrapyError):
    """The project cannot be bundled."""

    exit_code = 3


class StoreUnavailable(VscrapyError):
    """Redis does not answer. What was asked may have happened or not."""

    exit_code = 4


class StoreRefused(VscrapyError):
    """Redis answered, and refuses: wrong password, no rights, no memory, no disk, or too old."""

    exit_code = 5


class InsecureStore(StoreRefused):
    """This Redis has no password and is not on this machine: anyone could run code on the workers."""


class NotVerified(VscrapyError):
    """A payload's signature does not match: not made with this cluster's secret. It was not touched."""

    exit_code = 6


class TaskGone(VscrapyError):
    """There is no such task: it never was, or it has expired."""


class EnvironmentFailed(VscrapyError):
    """The environment that a project needs cannot be built."""


class EnvironmentRefused(VscrapyError):
    """This worker lacks what a project needs, and cannot or may not build it."""


class WorkerGone(VscrapyError):
    """There is no such worker, or it gives no sign of life."""


class Fenced(VscrapyError):
    """This crawl process was given up for dead; its leases belong to others now."""


class NameTaken(VscrapyError):
    """A live worker has this name."""

    exit_code = 7


class EmbeddedError(VscrapyError):
    """The embedded server or its local worker did not start."""

    exit_code = 8


class IncompatibleScrapy(VscrapyError):
    """This Scrapy lacks something vscrapy leans on."""

    exit_code = 9


class ProtocolMismatch(VscrapyError):
    """The other side speaks another version of the protocol."""

    exit_code = 10
