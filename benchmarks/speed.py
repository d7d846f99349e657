"""
Pages a second, against ``scrapy crawl``: one crawl process and two, with Redis at several round trips.

The crawls of a round follow each other, so a ratio is of crawls that the machine did at nearly the same time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import load
from benchmarks.way import Sample, crawl
from tests.integration.proxy import Proxy
from vscrapy.testing import server

#: Time for a worker to be there (seconds).
READY_S: Final = 30.0
#: Round trips to Redis (ms); 0: its unix socket, and no proxy.
ROUND_TRIPS_MS: Final = (0, 1, 5, 20)
HEAD: Final = """\
| | pages/s | of `scrapy crawl` | start to exit (s) | of `scrapy crawl`: whole tool |
| --- | --- | --- | --- | --- |"""


@contextmanager
def worker(redis: str, home: Path, *, slots: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready."""
    log, command = home / "worker.log", [str(Path(sys.executable).parent / "vscrapy"), "worker"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--redis", redis, "--slots", str(slots)],
            stdout=output,
            stderr=output,
            env=os.environ | {"VSCRAPY_HOME": str(home)},
        )
    try:
        deadline_s = time.monotonic() + READY_S
        while b" ready: " not in log.read_bytes():
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise RuntimeError(f"the worker did not begin:\n{log.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def line(name: str, samples: Sequence[Sample], scrapy: Sequence[Sample]) -> str:
    """A row of the table; the ratios are of the crawls of one round."""
    crawled = [one.pages_a_s / other.pages_a_s for one, other in zip(samples, scrapy, strict=True)]
    whole = [other.wall_s / one.wall_s for one, other in zip(samples, scrapy, strict=True)]
    pages_a_s = median(sample.pages_a_s for sample in samples)
    wall_s = median(sample.wall_s for sample in samples)
    return f"| {name} | {pages_a_s:.0f} | {_spread(crawled)} | {wall_s:.2f} | {_spread(whole)} |"


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def measure(directory: Path, *, pages: int, runs: int, round_trips_ms: Sequence[int]) -> dict[str, list[Sample]]:
    """Crawl in each way in turn, so many times; the samples of each."""
    project = load.write(directory / "project")
    samples: dict[str, list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        endpoint = stack.enter_context(server())
        ways: dict[str, tuple[list[str], dict[str, str]]] = {"scrapy crawl": (["scrapy"], {})}
        for round_trip_ms in round_trips_ms:
            url, home = endpoint.url, directory / f"home-{round_trip_ms}"
            home.mkdir(mode=0o700)
            if round_trip_ms:
                proxy = stack.enter_context(Proxy(endpoint))
                proxy.delay(round_trip_ms / 2000)
                url = proxy.url
            for processes in (1, 2) if round_trip_ms else (1, 2, 4):
                name = f"vscrapy, {processes} crawl process{'es' * (processes > 1)}, {round_trip_ms} ms"
                ways[name] = (["vscrapy", "--redis", url, "--workers", str(processes)], {"VSCRAPY_HOME": str(home)})
        for number in range(runs + 1):
            for name, (command, env) in ways.items():
                with ExitStack() as own:
                    if command[0] == "vscrapy":
                        own.enter_context(worker(command[2], Path(env["VSCRAPY_HOME"]), slots=4))
                    sample = crawl(command, project, pages=pages, env=env, items=directory / "items.jsonl")
                if number:  # the first round only warms up
                    samples[name].append(sample)
                print(f"{number} {name}: {sample.pages_a_s:.0f} pages/s, {sample.wall_s:.2f} s", file=sys.stderr)
    return samples


def table(samples: dict[str, list[Sample]]) -> str:
    """What was measured, as Markdown."""
    return "\n".join([HEAD, *(line(name, found, samples["scrapy crawl"]) for name, found in samples.items())])
