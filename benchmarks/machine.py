"""On what it was measured."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vscrapy.embedded.server import binary

#: Time for which loops are counted (seconds).
LOOPS_S: Final = 2.0


def scaling() -> float:
    """How many times the work of one process two of them do at once that share nothing: on two cores of a host, 2."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_loops, [0.01, 0.01])  # both are there
        one = sum(pool.map(_loops, [LOOPS_S]))
        return sum(pool.map(_loops, [LOOPS_S, LOOPS_S], chunksize=1)) / one


def _loops(seconds: float) -> int:
    deadline_s, n_done = time.monotonic() + seconds, 0
    while time.monotonic() < deadline_s:
        for _ in range(10_000):
            pass
        n_done += 1
    return n_done


def describe() -> str:
    """Processor, cores and versions, in one line."""
    server = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    packages = ", ".join(f"{name} {version(name)}" for name in ("Scrapy", "Twisted", "redis", "hiredis", "vscrapy"))
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores; {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}, {packages}; {server.split(' sha=')[0].strip()}"
    )


def _processor() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()
