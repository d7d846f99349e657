"""``vscrapy shutdown``: end the embedded server and the local worker of this home."""

from __future__ import annotations

import argparse

from vscrapy import config, embedded


def run(argv: list[str]) -> int:
    """
    End what runs, and say what it was; nothing to end is fine.

    Raises:
        EmbeddedError: It did not end.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy shutdown",
        description="End the embedded server and the local worker. Tasks and their data stay on disk.",
        allow_abbrev=False,
    )
    parser.parse_args(argv)
    home = config.home()
    before = embedded.running(home)
    if not embedded.shutdown(home):
        print(f"Nothing was running ({home}).")
        return 0
    ended = []
    if before.server_pid is not None:
        ended.append(f"the embedded server (pid {before.server_pid})")
    if before.worker_pid is not None:
        ended.append(f"the local worker (pid {before.worker_pid})")
    print(f"Ended {' and '.join(ended) or 'what was just starting'} ({home}).")
    return 0
