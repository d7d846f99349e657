"""What the commands that only talk with the store have in common: which Redis, which tasks, a word in their logs."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from vscrapy import config, embedded
from vscrapy.errors import BundleError, ConfigError, StoreUnavailable
from vscrapy.model import Endpoint
from vscrapy.store.base import Store
from vscrapy.store.streams import Streams
from vscrapy.store.tasks import Tasks
from vscrapy.wire import LogLine, open_job


def endpoint(opts: argparse.Namespace) -> Endpoint:
    """
    The configured Redis, or the embedded one that runs.

    Raises:
        StoreUnavailable: Nothing is configured, and the embedded server does not run.
    """
    found = config.resolve(redis=opts.redis, insecure=opts.insecure) or embedded.find(config.home())
    if found is None:
        raise StoreUnavailable(
            f"no Redis is configured, and the embedded server of {config.home()} does not run; "
            "'vscrapy crawl' starts it, --redis URL names another"
        )
    return found


def store(opts: argparse.Namespace) -> Store:
    """
    A store on that Redis, which answers.

    Raises:
        StoreUnavailable, StoreRefused: It does not.
    """
    made = Store(endpoint(opts), name="vscrapy-cli")
    made.check()
    return made


def job(store: Store, taskid: int) -> tuple[dict[str, Any], bytes]:
    """
    A task's job, and the key that signs the task's payloads.

    Raises:
        TaskGone: There is no such task.
        NotVerified: It was not signed with this cluster's secret.
        BundleError: It was sent by another version of vscrapy.
    """
    try:
        return open_job(Tasks(store).job(taskid), store.endpoint.secret, taskid)
    except ValueError as error:
        raise BundleError(f"task {taskid}: {error}") from error


def taskid(word: str) -> int:
    """
    Read one taskid.

    Raises:
        ConfigError: The word is not one.
    """
    found = taskids([word])
    if len(found) != 1:
        raise ConfigError(f"{word!r} is not one taskid; a taskid is a number, 'vscrapy -l' lists them")
    return found[0]


def taskids(words: list[str]) -> list[int]:
    """
    Read taskids, with commas or spaces between them.

    Raises:
        ConfigError: A word is not a taskid.
    """
    return numbers(words, "a taskid", "a taskid is a number, 'vscrapy -l' lists them")


def numbers(words: list[str], what: str, hint: str) -> list[int]:
    """
    Read numbers from 1 on, with commas or spaces between them.

    Raises:
        ConfigError: A word is not such a number.
    """
    found = [word for word in re.split(r"[,\s]+", " ".join(words)) if word]
    for word in found:
        if not word.isdecimal() or int(word) < 1:
            raise ConfigError(f"{word!r} is not {what}; {hint}")
    return list(dict.fromkeys(int(word) for word in found))


def say_in_log(store: Store, taskid: int, words: str) -> None:
    """Put a line of vscrapy's own into a task's log, for its sender and all who follow it."""
    Streams(store).append_log(taskid, [LogLine("err", f"vscrapy: {words}\n", time.time())])
