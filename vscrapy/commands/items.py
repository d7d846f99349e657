"""``vscrapy items 7 -o FILE``: fetch the items of a task, in the project's directory."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import ConfigError, NotVerified, StoreRefused
from vscrapy.states import TaskState
from vscrapy.store.streams import Cursors, Streams
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.wire import decode_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy import Spider
    from scrapy.settings import Settings


def run(argv: list[str]) -> int:
    """
    Write the items that a task has on Redis, as Scrapy's feed exporter would with this project's settings.

    Must be run where the project's item classes can be imported. Items that an attached sender has taken are
    in its feeds, not here.

    Raises:
        TaskGone: There is no such task.
        ConfigError: The format is not known.
        NotVerified: The task was signed with another secret; nothing was unpickled.

    Returns:
        0; ``NotVerified``'s exit code when a batch was not signed with this cluster's secret: it was left out.
    """
    from scrapy.cmdline import ScrapyArgumentParser  # it takes "-o -:json"

    parser: argparse.ArgumentParser = ScrapyArgumentParser(
        prog="vscrapy items", description="Fetch the items of a task."
    )
    parser.add_argument("taskid", metavar="ID")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="add the items to the end of FILE, or FILE:FORMAT; - is stdout (default: JSON lines on stdout)",
    )
    target.add_argument("-O", "--overwrite-output", metavar="FILE", help="write FILE anew")
    parser.add_argument("--take", action="store_true", help="remove them from Redis when they are written")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    [taskid] = _store.taskids([opts.taskid])
    store = _store.store(opts)
    record = Tasks(store).record(taskid)
    path, format_ = _target(opts.output or opts.overwrite_output)
    job, key = _store.job(store, taskid)
    feed = _Feed(str(job["spider"]), path, format_, is_anew=bool(opts.overwrite_output))
    batches = _Batches(Streams(store), taskid, key)
    try:
        n_items = feed.write(batches.items())
        sys.stdout.flush()
    except BrokenPipeError:  # as in "vscrapy items 7 | head": whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if not batches.n_refused:
        _note(batches, is_drop=opts.take)
    if path is not None:
        print(f"{n_items} items of task {taskid} in {path}")
    _tell_rest(record, n_items)
    if batches.n_refused:
        print(f"vscrapy: {batches.n_refused} batches of items were refused: {batches.refusal}", file=sys.stderr)
    return NotVerified.exit_code if batches.n_refused else 0


def _note(batches: _Batches, *, is_drop: bool) -> None:
    """Note that they have been fetched; who may only look has them all the same."""
    try:
        batches.note(is_drop=is_drop)
    except StoreRefused as error:
        if is_drop:
            raise
        print(f"vscrapy: that they were fetched is not noted: {error}", file=sys.stderr)


def _tell_rest(record: TaskRecord, n_items: int) -> None:
    """Say what these items are not."""
    taskid = record.taskid
    if record.is_attached:
        n_gone = max(0, record.items - n_items)
        print(f"vscrapy: task {taskid} has a sender: {n_gone} items went home, to its feeds", file=sys.stderr)
    elif record.state not in (TaskState.FINISHED, TaskState.STORING):
        print(f"vscrapy: task {taskid} is {record.state.value}; these are its items until now", file=sys.stderr)


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


class _Batches:
    """The batches of items that are there now."""

    def __init__(self, streams: Streams, taskid: int, key: bytes) -> None:
        self._streams = streams
        self._taskid = taskid
        self._key = key
        self._cursor = ""
        #: Batches that were left out, and why the first of them was.
        self.n_refused = 0
        self.refusal = ""

    def items(self) -> Iterator[Any]:
        """All items; what is not signed is left out."""
        cursors = Cursors(log="$")
        while True:
            _, entries = self._streams.read(self._taskid, cursors, with_items=True)
            if not entries:
                return
            for entry in entries:
                yield from self._open(entry.signed)
            self._cursor = entries[-1].cursor
            cursors = Cursors(log="$", items=self._cursor)

    def _open(self, signed: bytes) -> list[Any]:
        try:
            return decode_items(signed, self._key, _tell)
        except (NotVerified, ValueError) as error:
            self.n_refused += 1
            self.refusal = self.refusal or str(error)
            return []

    def note(self, *, is_drop: bool) -> None:
        """They have been written."""
        if self._cursor:
            self._streams.fetched_items(self._taskid, self._cursor, is_drop=is_drop)


class _Feed:
    """
    One file, or stdout, with the project's options.

    Those of its feed of that name, or its fields, indent and encoding for all.

    Raises:
        ConfigError: From the constructor; there is no such format.
    """

    def __init__(self, spider: str, path: Path | None, format_: str, *, is_anew: bool) -> None:
        from scrapy.utils.conf import feed_complete_default_values_from_settings
        from scrapy.utils.misc import load_object
        from scrapy.utils.project import get_project_settings

        settings = get_project_settings()
        self._spider = _load(settings, spider)
        self._spider.update_settings(settings)
        exporters = {name: cls for name, cls in settings.getwithbase("FEED_EXPORTERS").items() if cls is not None}
        if format_ not in exporters:
            raise ConfigError(f"{format_!r} is not a format; there are {', '.join(sorted(exporters))}")
        feeds = {str(uri): options for uri, options in settings.getdict("FEEDS").items()}
        own = {**feeds.get(str(path), {}), "format": format_, "overwrite": is_anew}
        self._options = feed_complete_default_values_from_settings(own, settings, str(path))
        self._path = path
        self._settings = settings
        self._exporters = {format_: load_object(exporters[format_])}

    def write(self, items: Iterator[Any]) -> int:
        """Export all items; how many."""
        from scrapy import Spider, crawler
        from scrapy.extensions.feedexport import FeedSlot, FileFeedStorage, ItemFilter, StdoutFeedStorage
        from scrapy.utils.misc import load_object

        storage: Any = (
            StdoutFeedStorage("-")
            if self._path is None
            else FileFeedStorage(str(self._path), feed_options=self._options)
        )
        accepts = load_object(self._options.get("item_filter", ItemFilter))(self._options)
        slot: Any = FeedSlot(
            storage=storage,
            uri=str(self._path),
            format=self._options["format"],
            store_empty=True,
            batch_id=1,
            uri_template=str(self._path),
            filter=accepts,
            feed_options=self._options,
            spider=Spider(name="items"),  # for the storage, which does not look at it
            exporters=self._exporters,
            settings=self._settings,
            crawler=crawler.Crawler(self._spider, self._settings),
        )
        slot.start_exporting()
        n_items = 0
        for item in items:
            if accepts.accepts(item):
                slot.exporter.export_item(item)
                n_items += 1
        slot.finish_exporting()
        storage.store(_file_of(slot.file))
        return n_items


def _load(settings: Settings, name: str) -> type[Spider]:
    """The task's spider, for its ``custom_settings``; where it is not in this project, any."""
    from scrapy import Spider

    from vscrapy import internals

    try:
        spider: type[Spider] = internals.spider_loader(settings).load(name)
        return spider
    except (KeyError, ImportError):  # of runspider, or of another project: its items may be dicts
        return Spider


def _file_of(file: Any) -> IO[bytes]:
    """The file below post-processing, which is completed."""
    from scrapy.extensions.postprocessing import PostProcessingManager

    if not isinstance(file, PostProcessingManager):
        found: IO[bytes] = file
        return found
    file.close()
    below: IO[bytes] = file.file
    return below
