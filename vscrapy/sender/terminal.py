"""How lines of data look at the user's terminal: prints as they were, log records in the project's own format."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from vscrapy.sender.warned import Warned
from vscrapy.wire import LogLine

#: The engine's closing words: said by each crawl process, shown once.
_CLOSING = "Closing spider ("
_CLOSED = "Spider closed ("
_ENGINE = "scrapy.core.engine"
#: What Scrapy says right before it names the pipelines.
_BEFORE_PIPELINES = ("scrapy.middleware", "Enabled spider middlewares:")
#: No crawl process has this number.
_NOBODY = 0
#: The logger of Python's warnings.
_WARNINGS = "py.warnings"
#: A line with its end, or the rest of a text; unlike str.splitlines(), it goes on after a \r.
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
#: A crawl process's own copy of a root of the bundle, as its agent names it (``vscrapy.worker.checkout``).
_COPY = re.compile(r"(?:/[^/\s\"']+)*/run/[\w.-]+-\d+-\d+-\d+/(?P<root>project|outside-\d+)(?=[/\s\"']|$)")


class Terminal:
    """
    Shows what the crawl processes of one task say.

    Args:
        handler: Gives the logging handler that records are shown by (Scrapy's own, at home).
        prefix: Put in front of each line, when several tasks are followed.
        is_home: Home says "Spider closed" itself, after the stats.
        project: The project's directory here: paths of a crawl process's copy, in tracebacks and warnings, show
            as paths below it; see :meth:`name_outside`.
    """

    def __init__(
        self,
        handler: Callable[[], logging.Handler | None],
        *,
        prefix: str = "",
        is_home: bool = False,
        project: Path | None = None,
    ) -> None:
        self._handler = handler
        self._roots = {} if project is None else {"project": str(project)}
        self._prefix = prefix
        self._is_home = is_home
        self._workers: set[str] = set()
        self._warned = Warned()
        self._banner_from: int | None = None
        #: Warnings of starting processes -> who said them first.
        self._at_start: dict[str, int] = {}
        self._is_closing_told = False
        #: Home's own record of its pipelines, until its place among the crawl processes' lines has come.
        self._held: logging.LogRecord | None = None
        self._was_held = False
        self._lock = threading.Lock()

    def tell(self, text: str) -> None:
        """Show one line of vscrapy's own, on stderr; from any thread, which goes on when the terminal is gone."""
        with self._lock, suppress(OSError):
            _print(f"{self._prefix}vscrapy: {text}")

    def use_handler(self, handler: Callable[[], logging.Handler | None]) -> None:
        """From now on, show records by what this gives."""
        self._handler = handler

    def skip_banner(self) -> None:
        """Another task has shown it, as far as it was shown."""
        if self._banner_from is not None:
            self._banner_from = _NOBODY

    def hold(self, record: logging.LogRecord) -> bool:
        """Keep home's record of its pipelines for its place in the log; False: it has come."""
        if self._was_held:
            return False
        self._held, self._was_held = record, True
        return True

    def _show_held(self, time: float) -> None:
        """Log what was kept, as though it were said now."""
        record, self._held = self._held, None
        if record is not None:
            record.created, record.msecs = time, (time % 1) * 1000
            logging.getLogger(record.name).handle(record)

    def name_outside(self, directories: Iterable[Path]) -> None:
        """From now on, also show paths of the bundle's roots beyond the project as they are here."""
        self._roots.update({f"outside-{number}": str(path) for number, path in enumerate(directories)})

    def show(self, line: LogLine) -> None:
        """Show one line of a crawl process."""
        if line.worker:
            self._workers.add(line.worker)
        if self._roots and "/run/" in line.text:
            line = replace(line, text=_COPY.sub(lambda found: self._roots.get(found["root"], found[0]), line.text))
        if (line.logger == _WARNINGS or line.stream == "err") and self._warned.is_repeated(line.text, line.process):
            return
        if line.stream == "log":
            if not line.is_banner:
                self._show_held(line.time)
            if self._is_shown(line):
                self._show_record(line)
            if is_before_pipelines(line):
                self._show_held(line.time)
        else:
            # The real ones: LOG_STDOUT puts a logger in the place of sys.stdout.
            self._show_text(line, sys.__stdout__ if line.stream == "out" else sys.__stderr__)

    def show_cut(self, n_lines: int) -> None:
        """Show that lines are missing."""
        self.tell(f"[... {n_lines} lines are cut: the log keeps only the newest (VSCRAPY_LOG_KEEP) ...]")

    def _is_shown(self, line: LogLine) -> bool:
        if line.logger == _ENGINE and line.level == logging.INFO:
            if line.text.startswith(_CLOSED):
                return not self._is_home
            if line.text.startswith(_CLOSING):
                is_first, self._is_closing_told = not self._is_closing_told, True
                return is_first
        if line.is_banner and line.level < logging.WARNING:
            if self._banner_from is None:
                self._banner_from = line.process
            return line.process == self._banner_from
        if line.is_banner:  # a warning: what one process finds as it starts, the others find, too
            return self._at_start.setdefault(line.text, line.process) == line.process
        return True

    def _mark(self, line: LogLine) -> str:
        return f"[{line.worker}] " if len(self._workers) > 1 and line.worker else ""

    def _show_record(self, line: LogLine) -> None:
        handler = self._handler()
        if handler is None or line.level < handler.level:
            return
        record = logging.LogRecord(line.logger, line.level, "", 0, f"{self._mark(line)}{line.text}", None, None)
        record.created = line.time
        record.msecs = (line.time % 1) * 1000
        record.__dict__.update(line.attributes)
        record.processName = f"{line.worker}:{line.process}"
        with self._lock:
            if self._prefix:
                record.msg = handler.format(record).replace("\n", f"\n{self._prefix}")
                _print(f"{self._prefix}{record.msg}")
            else:
                handler.handle(record)

    def _show_text(self, line: LogLine, stream: TextIO | None) -> None:
        if stream is None:
            return
        mark = self._prefix + self._mark(line)
        text = line.text
        if mark:
            text = "".join(mark + part for part in _LINE.findall(text))
        # The crawl processes speak UTF-8; what this terminal cannot show must not end its following.
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
        with self._lock:
            stream.write(text)
            stream.flush()


def is_before_pipelines(line: LogLine) -> bool:
    """Is it right before where Scrapy names the pipelines?"""
    logger, words = _BEFORE_PIPELINES
    return line.is_banner and line.logger == logger and line.text.startswith(words)


def _print(text: str) -> None:
    """Write a line to stderr, its end with it: between two writes another task's line could come."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def plain_handler() -> logging.Handler:
    """A handler with Scrapy's default format, for a task whose project is not here."""
    from scrapy.settings import default_settings

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(default_settings.LOG_FORMAT, default_settings.LOG_DATEFORMAT))
    return handler
