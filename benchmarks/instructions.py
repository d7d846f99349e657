"""
Instructions of the server for a page: the commits of :mod:`benchmarks.burst`, on a server under Valgrind's callgrind.

CPU time is at the mercy of the machine, and of what else it does; instructions are not. Needs ``valgrind``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.burst import CASES, Recorded
from vscrapy.embedded.server import binary
from vscrapy.model import Endpoint

#: Time for the server to begin, which is some thirty times as slow as it is (seconds).
READY_S: Final = 60.0
#: Pages that only warm up, and pages that are counted.
WARM: Final = 64
COUNTED: Final = 640
HEAD: Final = """\
| pages a commit, links sent a page | instructions a page | a commit |
| --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted of one kind of commits."""

    pages_a_commit: int
    links_sent: float
    a_page: float
    a_commit: float


@contextmanager
def counted_server(directory: Path) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    """A server under callgrind, which counts nothing yet; its files are in *directory*."""
    if shutil.which("valgrind") is None:
        raise SystemExit("benchmarks.instructions: there is no 'valgrind' on the PATH; install it (Debian: valgrind)")
    socket = directory / "valkey.sock"
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={directory / 'out'}"]
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", ""]
    command += [str(binary()), *options, "--appendonly", "yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + READY_S
        while not socket.exists():
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise RuntimeError("the server did not begin")
            time.sleep(0.1)
        yield Endpoint(f"unix://{socket}", "callgrind", "secret"), process
    finally:
        process.terminate()
        process.wait()


def _control(option: str, pid: int) -> None:
    command = ["callgrind_control", *option.split(), str(pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure_one(pages_a_commit: int, remembered: float, *, pages: int = COUNTED) -> Count:
    """Count one kind of commits, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="vscrapy-bench-") as directory:
        with counted_server(Path(directory)) as (endpoint, process), Recorded(endpoint, remembered) as commits:
            commits.make(pages_a_commit, max(WARM, 4 * pages_a_commit))
            commits.send()
            made = commits.make(pages_a_commit, pages)
            _control("-i on", process.pid)
            _control("-z", process.pid)
            commits.send()
            _control("-d", process.pid)
        [dump] = Path(directory).glob("out.*")
        found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
        if found is None:
            raise RuntimeError(f"callgrind has counted nothing: {dump}")
    n = int(found[1])
    return Count(pages_a_commit, made.links / made.pages, n / made.pages, n / made.commits)


def table(counts: Sequence[Count]) -> str:
    """What was counted, as Markdown."""
    return "\n".join(
        [
            HEAD,
            *(
                f"| {count.pages_a_commit}, {count.links_sent:.0f} | {count.a_page:,.0f} | {count.a_commit:,.0f} |"
                for count in counts
            ),
        ]
    )


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--pages", type=int, default=COUNTED, help="pages that are counted of each kind of commits")
    options = parser.parse_args()
    print(table([measure_one(pages, remembered, pages=options.pages) for pages, remembered in CASES]))


if __name__ == "__main__":
    main()
