"""``vscrapy worker``: run crawl processes of any task on this Redis, here."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from vscrapy import config, embedded
from vscrapy.errors import ConfigError, EmbeddedError, VscrapyError
from vscrapy.labels import parse_labels
from vscrapy.model import Endpoint
from vscrapy.store.base import Store
from vscrapy.store.tasks import Tasks

_NAME = re.compile(r"[\w.-]+")
#: The most that crawl processes can be nice.
_NICEST: Final = 19


def run(argv: list[str]) -> int:
    """Run a worker until it is told to end; errors are one line on stderr, and their exit code."""
    options = _parser().parse_args(argv)
    try:
        _work(options)
    except VscrapyError as error:
        print(f"vscrapy worker: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="vscrapy worker",
        description="Run crawl processes of any task on this Redis. It needs no project, and no update for one.",
        allow_abbrev=False,
    )
    config.add_redis_options(parser)
    parser.add_argument("--slots", type=int, metavar="N", help="crawl processes at a time; default: one a CPU")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="resident memory that a crawl process may take, as in 800M or 2G; one with more leaves its task",
    )
    parser.add_argument("--name", help="its name in lists and logs; default: the host's")
    parser.add_argument(
        "--no-build",
        action="store_true",
        help="leave projects alone that need what is not installed here, instead of building an environment",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for tasks that choose their workers (vscrapy crawl --on NAME=VALUE); can be given several times",
    )
    parser.add_argument(
        "--max-tasks",
        type=int,
        default=0,
        metavar="N",
        help="finish and end after N crawl processes, so that a supervisor starts it anew",
    )
    parser.add_argument(
        "--nice", type=int, default=0, metavar="N", help="lower the priority of crawl processes, as nice(1) does"
    )
    parser.add_argument("--idle-exit", type=float, metavar="S", help=argparse.SUPPRESS)
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    return parser


def _work(options: argparse.Namespace) -> None:
    # Here, not above: "vscrapy worker --help" needs no Twisted.
    from vscrapy.worker.agent import AgentOptions
    from vscrapy.worker.checkout import LIMIT_BYTES
    from vscrapy.worker.run import run as run_agent
    from vscrapy.worker.watch import CLOSE_TIMEOUT_S

    slots = (os.cpu_count() or 1) if options.slots is None else options.slots
    if slots < 1:
        raise ConfigError(f"--slots is {slots}; a worker needs at least 1.")
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise ConfigError(f"--name is {options.name!r}; use letters, digits, '.', '_' and '-' only.")
    if options.max_tasks < 0:
        raise ConfigError(f"--max-tasks is {options.max_tasks}; give a number from 1 on, or 0 for no end.")
    if not 0 <= options.nice <= _NICEST:
        raise ConfigError(f"--nice is {options.nice}; it takes 0 to {_NICEST}.")
    home = config.ensure_home()
    agent_options = AgentOptions(
        slots=slots,
        home=home,
        name=options.name,
        idle_exit_s=options.idle_exit,
        close_timeout_s=_number("VSCRAPY_CLOSE_TIMEOUT", "seconds", CLOSE_TIMEOUT_S),
        memory_bytes=_size(options.memory) if options.memory else 0,
        may_build=not options.no_build,
        labels=_labels(options.label),
        max_tasks=options.max_tasks,
        nice=options.nice,
        bundle_bytes=int(_number("VSCRAPY_BUNDLE_LIMIT", "bytes", LIMIT_BYTES)),
    )
    if not options.embedded:
        run_agent(_endpoint(options, home), agent_options)
        return
    endpoint = embedded.find(home)
    if endpoint is None:
        raise EmbeddedError(f"There is no embedded server in {home}; 'vscrapy crawl' starts it, and its worker.")
    # The server has no other guard: this worker starts it again when it is gone.
    agent_options = replace(agent_options, revive=partial(embedded.ensure, home))
    with _pid_file(home):
        is_idle_end = run_agent(endpoint, agent_options)
    if is_idle_end:
        store = Store(endpoint, name="vscrapy-worker-end")
        embedded.end_unused(home, is_used=lambda: bool(store.strangers() or Tasks(store).live_ids()))


def _endpoint(options: argparse.Namespace, home: Path) -> Endpoint:
    endpoint = config.resolve(redis=options.redis, insecure=options.insecure)
    if endpoint is not None:
        return endpoint
    endpoint = embedded.ensure(home)
    print(
        f"vscrapy worker: no Redis is configured; using the embedded server in {home}, for this machine only",
        file=sys.stderr,
    )
    return endpoint


def _labels(words: list[str]) -> dict[str, str]:
    """The labels of VSCRAPY_LABELS and of the command line, which wins."""
    ambient = re.split(r"[,\s]+", os.environ.get("VSCRAPY_LABELS", "").strip(", "))
    return {**parse_labels(filter(None, ambient), "VSCRAPY_LABELS"), **parse_labels(words, "--label")}


def _size(words: str) -> int:
    """Read a size: bytes, or with K, M, G."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", words, re.IGNORECASE)
    if found is None:
        raise ConfigError(f"--memory is {words!r}; give a size, as in 800M or 2G.")
    return int(float(found[1]) * 1024 ** ("", "K", "M", "G").index(found[2].upper()))


def _number(variable: str, unit: str, default: float) -> float:
    """Read an environment variable: how long spiders may take to close, or how large a bundle may be here."""
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{variable} is {value!r}; give a number of {unit}.") from error


@contextmanager
def _pid_file(home: Path) -> Iterator[None]:
    """Say who the local worker is (see ``vscrapy.embedded``), as long as it is this process."""
    path = home / "worker.pid"
    try:
        config.write_private(path, f"{os.getpid()}\n")
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be written ({error.strerror}).") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
