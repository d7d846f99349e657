"""
Run a command that does not outlive whoever started it: ``python bound.py NICENESS COMMAND...``.

Stdin is a pipe whose other end the starter holds, and nobody else: when it closes, the starter is dead, however it
died, and the whole process group ends with it. That holds for a package's build below uv, too, of which
``PR_SET_PDEATHSIG`` would know nothing. It must be the leader of its group, and imports nothing but the standard
library, for it is run as a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def end_with_starter() -> None:
    """Wait for the end of stdin, and end the group."""
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def main(argv: list[str]) -> int:
    """Run the command; its exit code, or as a shell has it when a signal ended it."""
    os.nice(int(argv[1]))
    threading.Thread(target=end_with_starter, daemon=True).start()
    code = subprocess.call(argv[2:], stdin=subprocess.DEVNULL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
