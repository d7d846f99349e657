"""``vscrapy items 7 -o FILE``: fetch the items of a task, in the project's directory."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import IO, Any

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import ConfigError
from vscrapy.store.streams import Cursors, Streams
from vscrapy.store.tasks import Tasks
from vscrapy.wire import decode_items, task_key


def run(argv: list[str]) -> int:
    """
    Write the items that a task has on Redis, with one of Scrapy's exporters.

    Must be run where the project's item classes can be imported. Items that an attached sender has taken are
    in its feeds, not here.

    Raises:
        TaskGone: There is no such task.
        NotVerified: The items were signed with another secret; nothing was unpickled.
    """
    parser = argparse.ArgumentParser(prog="vscrapy items", description="Fetch the items of a task.")
    parser.add_argument("taskid", metavar="ID")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", metavar="FILE", help="FILE or FILE:FORMAT (default: JSON lines on stdout)")
    target.add_argument("-O", "--overwrite-output", metavar="FILE", help="the same, also where FILE is there already")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    [taskid] = _store.taskids([opts.taskid])
    store = _store.store(opts)
    Tasks(store).record(taskid)
    path, format_ = _target(opts.output or opts.overwrite_output)
    streams, key = Streams(store), task_key(store.endpoint.secret, taskid)
    if path is None:
        try:
            _export(streams, taskid, key, sys.stdout.buffer, format_)
            sys.stdout.flush()
        except BrokenPipeError:  # as in "vscrapy items 7 | head": whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    try:
        file = path.open("wb" if opts.overwrite_output else "xb")
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already; -O {path} writes over it") from error
    with file:
        n_items = _export(streams, taskid, key, file, format_)
    print(f"{n_items} items of task {taskid} in {path}")
    return 0


def _tell(error: Exception) -> None:
    print(f"vscrapy: an item cannot be read here: {error!r}", file=sys.stderr)


def _target(output: str | None) -> tuple[Path | None, str]:
    if output is None:
        return None, "jsonlines"
    name, _, format_ = output.rpartition(":")
    if not name:
        name, format_ = output, Path(output).suffix.removeprefix(".")
    if not format_:
        raise ConfigError(f"{output!r} does not tell a format; name one, as in -o {output}:jsonlines")
    return (None if name == "-" else Path(name)), format_


def _export(streams: Streams, taskid: int, key: bytes, file: IO[bytes], format_: str) -> int:
    from scrapy.utils.misc import load_object
    from scrapy.utils.project import get_project_settings

    settings = get_project_settings()
    exporters: Any = settings.getwithbase("FEED_EXPORTERS")
    if exporters.get(format_) is None:
        raise ConfigError(f"{format_!r} is not a format; there are {', '.join(sorted(exporters))}")
    exporter = load_object(exporters[format_])(file, encoding=settings["FEED_EXPORT_ENCODING"] or "utf-8")
    exporter.start_exporting()
    n_items = 0
    cursors = Cursors(log="$")
    while True:
        _, entries = streams.read(taskid, cursors, with_items=True, block_ms=1)
        if not entries:
            break
        for entry in entries:
            for item in decode_items(entry.signed, key, _tell):
                exporter.export_item(item)
                n_items += 1
        cursors = Cursors(log="$", items=entries[-1].cursor)
    exporter.finish_exporting()
    return n_items
