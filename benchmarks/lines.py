"""Run a command, and note when each line of its stderr arrives; by the clock that log records have, too."""

from __future__ import annotations

import compileall
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import vscrapy

#: Time for one command (seconds).
COMMAND_S: Final = 300.0
#: Tells who said a line: of a line that came from a crawl process, the sender makes this WORKER:NUMBER.
LOG_FORMAT: Final = "%(created).6f %(processName)s %(message)s"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and when its end was there (seconds since the epoch)."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A command that has ended."""

    #: Seconds since the epoch.
    begin_s: float
    end_s: float
    exit_code: int
    lines: list[Line]

    @property
    def wall_s(self) -> float:
        """From its begin to its end."""
        return self.end_s - self.begin_s

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(line.text for line in self.lines)

    def logged(self, *, is_remote: bool) -> list[tuple[Line, float, str]]:
        """
        Give the lines that are in ``LOG_FORMAT``: the line, when it was said (seconds since the epoch), and what.

        Args:
            is_remote: Those of crawl processes; otherwise the command's own.
        """
        found = []
        for line in self.lines:
            created, _, rest = line.text.partition(" ")
            who, _, words = rest.partition(" ")
            if created.replace(".", "", 1).isdigit() and (":" in who) == is_remote:
                found.append((line, float(created), words))
        return found


@cache
def compile_vscrapy() -> None:
    """Compile it, as pip does when it installs, and as Scrapy is: an editable one may be compiled at each start."""
    compileall.compile_dir(Path(vscrapy.__file__).parent, quiet=2)


def program(name: str) -> str:
    """A command of this environment."""
    compile_vscrapy()
    return str(Path(sys.executable).parent / name)


def listen(args: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Heard:
    """
    Run a command to its end; its stdout is dropped.

    Args:
        env: In addition to this process's.

    Raises:
        RuntimeError: It takes too long, or ends with another exit code than 0.
    """
    begin_s = time.time()
    process = subprocess.Popen(
        args, cwd=cwd, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stderr is not None
    lines: list[Line] = []
    rest = b""
    with selectors.DefaultSelector() as selector, process.stderr as stream:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0, begin_s + COMMAND_S - time.time())):
                process.kill()
                process.wait()
                raise RuntimeError(f"{args} takes more than {COMMAND_S:g} s")
            data = os.read(stream.fileno(), 1 << 20)
            at_s = time.time()
            if not data:
                break
            *ended, rest = (rest + data).split(b"\n")
            lines.extend(Line(at_s, text.decode("utf-8", "replace")) for text in ended)
        exit_code = process.wait()
    heard = Heard(begin_s, time.time(), exit_code, lines)
    if exit_code:
        raise RuntimeError(f"{args} ended with exit code {exit_code}:\n{heard.text}")
    return heard
