"""The local worker: ``vscrapy worker`` as a daemon, started as free of the sender's surroundings as any worker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final

from vscrapy import config
from vscrapy.embedded import daemon
from vscrapy.embedded.place import Place, size_bytes
from vscrapy.errors import EmbeddedError
from vscrapy.model import Endpoint

#: Seconds a worker may take until it is live.
START_S = 20.0
#: What the sender's environment says of its project and its Redis: the worker outlives that sender, and serves
#: others with other projects.
SENDERS_OWN: Final = frozenset(
    {"SCRAPY_SETTINGS_MODULE", "SCRAPY_PROJECT", "PYTHONPATH", "VSCRAPY_REDIS_URL", "VSCRAPY_SECRET"}
)


def start(place: Place, endpoint: Endpoint, *, slots: int, idle_exit_s: float, is_live: Callable[[], bool]) -> None:
    """
    Start the worker, and wait until one is live.

    Raises:
        EmbeddedError: It did not become live; with the last lines of its log.
    """
    # -P: the home, its working directory, is not on its sys.path.
    command = [sys.executable, "-P", "-m", "vscrapy", "worker", "--embedded"]
    command += ["--slots", str(slots), "--idle-exit", str(idle_exit_s)]
    environ = {name: value for name, value in os.environ.items() if name not in SENDERS_OWN}
    environ["VSCRAPY_HOME"] = str(place.home)
    offset = size_bytes(place.worker_log)
    try:
        process = daemon.spawn(command, cwd=place.home, log=place.worker_log, environ=environ)
    except OSError as error:
        raise EmbeddedError(f"The local worker cannot be started: {error}") from error
    deadline = time.monotonic() + START_S
    while True:
        code = process.poll()
        # In this order: a worker that ends because another one is live already is no failure.
        if is_live():
            return
        if code is not None:
            why = f"ended at once (exit code {code})"
        elif time.monotonic() > deadline:
            daemon.end(process.pid, process.poll)
            why = f"was not live within {START_S:g} s"
        else:
            time.sleep(daemon.POLL_S)
            continue
        last_lines = daemon.tail(place.worker_log, offset)
        raise EmbeddedError(
            f"The local worker for {config.redact(endpoint.url)} {why}; see {place.worker_log}{last_lines}"
        )


def end(place: Place) -> bool:
    """End the worker of *place*; tell whether there was one."""
    pid = place.worker_pid()
    if pid is None:
        return False
    daemon.end(pid, lambda: None if place.worker_pid() == pid else 0)
    return True
