"""On what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from vscrapy.embedded.server import binary


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
