"""One crawl of the load, in one of the ways that are compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Time for one crawl (seconds).
CRAWL_S: Final = 600.0
_STAT: Final = r"'{}': ([0-9.]+)"


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of one crawl."""

    pages: int
    #: From the command's begin to its end (seconds).
    wall_s: float
    #: From the spider's begin to its end, as its stats say (seconds).
    crawl_s: float

    @property
    def pages_a_s(self) -> float:
        """While the spider is open."""
        return self.pages / self.crawl_s

    @property
    def pages_a_s_of_all(self) -> float:
        """From the command's begin to its end."""
        return self.pages / self.wall_s


def named(processes: int, round_trip_ms: int) -> str:
    """What a crawl of vscrapy's is called in the tables."""
    return f"vscrapy, {processes} crawl process{'es' * (processes > 1)}, {round_trip_ms} ms"


@contextmanager
def reached(endpoint: Endpoint, round_trip_ms: int) -> Iterator[str]:
    """The URL at which a server answers after so long; 0: its own, without a proxy."""
    if not round_trip_ms:
        yield endpoint.url
        return
    with Proxy(endpoint) as proxy:
        proxy.delay(round_trip_ms / 2000)
        yield proxy.url


def crawl(
    command: Sequence[str], project: Path, *, pages: int, env: dict[str, str], items: Path, spider: str = "pages"
) -> Sample:
    """
    Crawl, and see that it is whole.

    Args:
        command: What stands before ``crawl``, as ``["scrapy"]``, and what stands after the spider's name after that.
        items: Where to; a file that is written anew, with one beside it for stderr (:func:`log_of`).

    Raises:
        RuntimeError: The crawl failed, or did not give each page once.
    """
    program, *options = command
    args = [str(Path(sys.executable).parent / program), "crawl", spider, *options]
    args += ["-s", f"PAGES={pages}", "-O", f"{items}:jsonlines"]
    log = log_of(items)
    log.unlink(missing_ok=True)
    with log.open("ab") as output:
        begin_s = time.monotonic()
        done = subprocess.run(
            args, cwd=project, env=os.environ | env, stdout=output, stderr=output, timeout=CRAWL_S, check=False
        )
        wall_s = time.monotonic() - begin_s
    n_items = len(items.read_text().splitlines()) if items.exists() else 0
    if done.returncode or n_items != pages:
        raise RuntimeError(f"{args} gave {n_items} items of {pages}, exit code {done.returncode}:\n{log.read_text()}")
    return Sample(pages, wall_s, _stat(log.read_text(), "elapsed_time_seconds"))


def log_of(items: Path) -> Path:
    """Where the log of a crawl is that writes *items*; with ``--logfile`` it may name the same file."""
    return items.with_suffix(".log")


def _stat(log: str, name: str) -> float:
    found = re.search(_STAT.format(re.escape(name)), log)
    if found is None:
        raise RuntimeError(f"the log has no stat {name}:\n{log}")
    return float(found[1])
