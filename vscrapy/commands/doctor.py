"""``vscrapy doctor``: is all as it must be for a crawl, here, on Redis and on the workers; and what to do if not."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from vscrapy import config, embedded
from vscrapy.commands import _doctor, _tables
from vscrapy.commands._doctor import Level, Verdict
from vscrapy.errors import VscrapyError
from vscrapy.secret import has_mark
from vscrapy.store.base import Store
from vscrapy.store.health import examine
from vscrapy.store.workers import Workers

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
#: Width of a level and of a check's name, with a blank (columns).
_WIDTHS: Final = (9, 14)
#: Spiders that a line names.
_MOST_SPIDERS: Final = 6


def run(argv: list[str]) -> int:
    """Check, and say so; 1 when there is a problem."""
    parser = argparse.ArgumentParser(
        prog="vscrapy doctor",
        description="Check Redis, the workers, the secret, and the project in this directory.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    verdicts: list[Verdict] = []
    console = _tables.console()
    for verdict in _all(opts):
        verdicts.append(verdict)
        if not opts.json:
            console.print(_line(verdict), soft_wrap=True)
    is_well = _doctor.worst(verdicts) is not Level.PROBLEM
    if opts.json:
        json.dump({"ok": is_well, "checks": [asdict(verdict) for verdict in verdicts]}, sys.stdout, indent=2)
        print()
    return 0 if is_well else 1


def _line(verdict: Verdict) -> Text:
    line = Text(f"{verdict.level:<{_WIDTHS[0]}}", style=_STYLES[verdict.level])
    line.append(f"{verdict.check:<{_WIDTHS[1]}}{verdict.said}", style="default")
    if verdict.do:
        line.append(f"; do: {verdict.do}", style="default")
    return line


def _all(opts: argparse.Namespace) -> Iterator[Verdict]:
    yield from _of_cluster(opts)
    yield _of_home()
    yield _of_project()


def _of_cluster(opts: argparse.Namespace) -> Iterator[Verdict]:
    """Redis, the workers and the secret; after the first that fails there is no more to see."""
    try:
        endpoint = config.resolve(redis=opts.redis, insecure=opts.insecure)
        is_embedded = endpoint is None
        endpoint = endpoint or embedded.find(config.home())
        if endpoint is None:
            yield Verdict("redis", Level.OK, "none is configured; the next crawl starts one here, for this machine")
            return
        store = Store(endpoint, name="vscrapy-doctor")
        store.check()
        place = f"{config.redact(endpoint.url)} (from {endpoint.source})"
        yield from _doctor.of_redis(examine(store), place)
        workers = Workers(store).list()
        yield from _doctor.of_workers(workers, is_embedded=is_embedded)
        online = [worker for worker in workers if worker.is_alive]
        yield from _doctor.of_secret(
            _secret_source(endpoint, is_embedded=is_embedded),
            [
                worker.name
                for worker in online
                if worker.mark and not has_mark(endpoint.secret, worker.token, worker.mark)
            ],
            [worker.name for worker in online if worker.refused],
        )
    except VscrapyError as error:
        what, _, do = str(error).partition("; ")
        yield Verdict("redis", Level.PROBLEM, what, do)


def _secret_source(endpoint: Endpoint, *, is_embedded: bool) -> str:
    if is_embedded:
        return "the embedded server"
    origins = config.secret_origins(endpoint.url)
    return origins[0].source if origins else ""


def _of_home() -> Verdict:
    """This machine's own directory."""
    try:
        home = config.ensure_home()
        free = shutil.disk_usage(home).free
    except (VscrapyError, OSError) as error:
        return Verdict("home", Level.PROBLEM, str(error), "set VSCRAPY_HOME to a directory of your own")
    is_scarce = free < _doctor.FREE_BYTES[1]
    return Verdict(
        "home",
        Level.PROBLEM if is_scarce else Level.OK,
        f"{home}, {free >> 20} MiB free",
        "make room there, or set VSCRAPY_HOME" if is_scarce else "",
    )


def _of_project() -> Verdict:
    """The preflight of each spider of the project in this directory, if there is one."""
    from vscrapy.sender.submit import project_dir

    directory = project_dir()
    if directory is None:
        return Verdict("project", Level.OK, "none in this directory")
    try:
        # What a project prints as it is imported is none of what this command says.
        with contextlib.redirect_stdout(sys.stderr):
            return _preflight(directory)
    except VscrapyError as error:
        return Verdict("project", Level.PROBLEM, f"{directory}: {error}")
    except Exception as error:  # noqa: BLE001 - a project may raise anything as it is imported
        said = f"{directory} cannot be loaded: {type(error).__name__}: {error}"
        return Verdict("project", Level.PROBLEM, " ".join(said.split()), "see the traceback with: scrapy list")


def _preflight(directory: Path) -> Verdict:
    from scrapy.utils.project import get_project_settings

    from vscrapy import internals
    from vscrapy.preflight.check import check
    from vscrapy.preflight.finding import Severity

    internals.check()
    settings = get_project_settings()
    loader = internals.spider_loader(settings)
    names = sorted(loader.list())
    refused, differing = [], []
    for name in names:
        spider = loader.load(name)
        placed = internals.crawl_settings(settings, spider)
        pipelines = str(placed.get("VSCRAPY_PIPELINES") or "home")
        findings = check(spider, placed, pipelines=pipelines, max_processes=0, is_attached=True)
        if any(finding.severity is Severity.REFUSED for finding in findings):
            refused.append(name)
        elif findings:
            differing.append(name)
    said = f"{directory}, {len(names)} spider{'s' if len(names) != 1 else ''}"
    for level, found, what in (
        (Level.PROBLEM, refused, "refused"),
        (Level.WARNING, differing, "not as on one process"),
    ):
        if found:
            more = f" and {len(found) - _MOST_SPIDERS} more" if len(found) > _MOST_SPIDERS else ""
            said += f"; {what}: {', '.join(found[:_MOST_SPIDERS])}{more}"
            return Verdict("project", level, said, f"see what, and why: vscrapy crawl --check {found[0]}")
    return Verdict("project", Level.OK, said)
