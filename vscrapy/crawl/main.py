"""
The crawl process: a real Scrapy process that works on one task.

Forked from the template with the project's files in a directory of its own; reads the project as
``scrapy crawl`` does, puts vscrapy's scheduler, stats and log handler into the settings, and runs.
"""

from __future__ import annotations

import cProfile
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy.crawl.log import Channel, install_streams
from vscrapy.errors import VscrapyError
from vscrapy.model import Endpoint
from vscrapy.wire import LogLine, WrittenFile, encode_file

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings, Settings

    from vscrapy.crawl.place import Place
    from vscrapy.crawl.written import Written
    from vscrapy.store.base import Store
    from vscrapy.store.files import Files

#: Exit code: the crawl did not come about; trying again would not help.
FAILED: Final = 70
#: Priority of the settings that make a crawl process one of many; above Scrapy's "cmdline" (40).
PRIORITY: Final = 1000
#: Time for the last stats to reach Redis (seconds).
LAST_STATS_S: Final = 20.0


def main(spec: dict[str, Any], channel_fd: int) -> int:
    """
    Run one crawl process to its end.

    Args:
        spec: What the agent says of it: see ``vscrapy.worker``.
        channel_fd: The socket to the agent.

    Returns:
        The exit code: 0, or ``FAILED``; an import error of the project is told with its traceback.
    """
    return run(spec, channel_fd, _crawl)


def run(spec: dict[str, Any], channel_fd: int, work: Callable[[dict[str, Any], dict[str, Any], Channel], int]) -> int:
    """Do some work in the project's directory, with its output on the channel; as :func:`main`."""
    channel = Channel(channel_fd)
    install_streams(channel)
    # Raw, on descriptor 2: what ends the process at once, and what blocks it, cannot go through Python's own.
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=False)
    job: dict[str, Any] = spec["job"]
    _enter(Path(spec["directory"]), job)
    try:
        return work(spec, job, channel)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        print(
            f"vscrapy: worker {spec['worker']} has no module {error.name!r}, which the project needs; name its "
            f"package in {_source(job)}, or, if it is yours, see that it is not left out by .gitignore",
            file=sys.stderr,
        )
        return FAILED
    except VscrapyError as error:
        print(f"vscrapy: {error}", file=sys.stderr)
        return FAILED
    except Exception:  # noqa: BLE001 - a project may raise anything as it is imported; the user gets to see it
        traceback.print_exc()
        return FAILED
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()


def _source(job: dict[str, Any]) -> str:
    """The file that says what the project needs."""
    return str((job.get("requirements") or {}).get("source", "a requirements.txt beside scrapy.cfg"))


def _enter(directory: Path, job: dict[str, Any]) -> None:
    """Go to the project's directory, with the environment and the import path that it has at the sender."""
    os.environ.update(job["env"])
    working = directory / "project" / job["working_directory"]
    os.environ["PWD"] = str(working)
    os.chdir(working)
    sys.argv[:] = job["argv"]
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
    project = [str(directory / "project" / name) for name in job["project_paths"]]
    outside = [str(directory / name) for name in job["import_roots"]]
    sys.path[:0] = project + outside


def _crawl(spec: dict[str, Any], job: dict[str, Any], channel: Channel) -> int:
    from vscrapy import internals
    from vscrapy.crawl import httpcache
    from vscrapy.crawl.opened import Opened
    from vscrapy.crawl.written import Written
    from vscrapy.store.files import Files

    internals.check()
    internals.check_downloads()
    store = connect(spec)
    place = make_place(store, spec, job, channel)
    place.take_signals()
    project = Path(spec["directory"], "project")
    opened = Opened(project, Path(spec["directory"]))
    written = Written(project, opened, _shipped(job))
    opened.watch()
    # What modules print as they are imported, and what spiders say as they are made, is said once.
    is_said_elsewhere = job["is_attached"] or place.number > 1
    with channel.held(_is_print) if is_said_elsewhere else nullcontext():
        settings = project_settings(job)
        log_to(place, settings)
        _leave_to_home(settings, place, job)
        process: Any = internals.crawler_process(settings)
        crawler: Crawler = process.create_crawler(spider_class(process.spider_loader, job, Path(spec["directory"])))
    if is_said_elsewhere:
        internals.around_spider(crawler, channel.held)

    def take_over(changed: BaseSettings) -> None:
        _leave_to_home(changed, place, job)
        take_part(changed, place)
        httpcache.share(changed, job, Path(spec["home"]), priority=PRIORITY)

    internals.after_addons(crawler, take_over)
    log_to(place, crawler.settings)
    place.handler.hide_pipelines = job["pipelines"] == "home"
    process.crawl(crawler, **job["spider_args"])
    if job["is_attached"]:
        _send_files(written, place, Files(store), crawler.settings, job)
    _start(process, project / job["profile"] if job["profile"] else None)
    if place.scheduler is not None:
        place.scheduler.finish(timeout_s=LAST_STATS_S)
    written.finish()
    if place.scheduler is None:  # Scrapy 2.13 does not count it as a failure when a middleware cannot be made, say
        gc.collect()  # Twisted tells of an error that nobody took when its Deferred goes
        return FAILED
    return FAILED if process.bootstrap_failed else 0


def _is_print(line: LogLine) -> bool:
    return line.stream == "out"


def connect(spec: dict[str, Any]) -> Store:
    """A store for this process."""
    from vscrapy.store.base import Store

    endpoint = Endpoint(spec["url"], spec["source"], "", is_insecure_allowed=True)
    return Store(endpoint, name=f"vscrapy-crawl-{spec['taskid']}-{spec['number']}")


def make_place(store: Store, spec: dict[str, Any], job: dict[str, Any], channel: Channel) -> Place:
    """This process's place, which listens to its agent."""
    from vscrapy.crawl.place import Place

    place = Place(
        store,
        channel,
        taskid=spec["taskid"],
        process=spec["process"],
        number=spec["number"],
        worker=spec["worker"],
        key=bytes.fromhex(spec["key"]),
        is_alone=job["max_processes"] == 1,
        has_job_dir=job["has_job_dir"],
        project=Path(spec["directory"], "project"),
    )
    place.listen()
    return place


def _shipped(job: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of the project's files, by path."""
    from vscrapy.bundle import manifest_from_json

    roots = manifest_from_json(job["manifest"]).roots
    return {file.path: file.sha256 for root in roots if root.name == "project" for file in root.files}


def _start(process: Any, profile: Path | None) -> None:
    """Run to the end, under Python's profiler if its file is named."""
    if profile is None:
        process.start(install_signal_handlers=False)
        return
    profiler = cProfile.Profile()
    profiler.runcall(process.start, install_signal_handlers=False)
    profile.parent.mkdir(parents=True, exist_ok=True)
    profiler.dump_stats(profile)


def _send_files(written: Written, place: Place, files: Files, settings: BaseSettings, job: dict[str, Any]) -> None:
    """Begin to send home what the project writes into its directory."""
    from vscrapy.crawl.written import FILES_LIMIT_BYTES

    def put(file: WrittenFile) -> bool:
        return files.put(place.taskid, place.process, encode_file(file, place.key))

    written.begin(
        put,
        number=place.number,
        worker=place.worker,
        is_same_host=job["host"] == socket.gethostname(),
        limit_bytes=settings.getint("VSCRAPY_FILES_LIMIT", FILES_LIMIT_BYTES),
    )


def project_settings(job: dict[str, Any]) -> Settings:
    """The project's settings, with what stood on the command line."""
    from scrapy.utils.conf import init_env
    from scrapy.utils.project import get_project_settings

    init_env(os.environ.get("SCRAPY_PROJECT", "default"))  # puts the project on the import path
    settings = get_project_settings()
    if job["kind"] == "runspider":
        from scrapy.commands.runspider import Command

        settings.setdict(Command.default_settings, priority="command")
    settings.setdict(job["settings"], priority="cmdline")
    return settings


def _leave_to_home(settings: BaseSettings, place: Place, job: dict[str, Any]) -> None:
    """Switch off what home does, and what would be of no use on a worker."""
    theirs: dict[str, Any] = {
        "STATS_DUMP": False,
        "FEEDS": {},
        "JOBDIR": None,
        "LOG_FILE": None,
        "LOG_ENABLED": False,
    }
    if job["pipelines"] == "home":
        theirs["ITEM_PIPELINES"] = {}
    if job["counts_items_at_home"]:
        theirs["CLOSESPIDER_ITEMCOUNT"] = 0
    if "REMOTE_CONTROL_ENABLED" in settings:  # since Scrapy 2.19; nobody could reach it on a worker
        theirs["REMOTE_CONTROL_ENABLED"] = False
    if place.number > 1:
        theirs["TELNETCONSOLE_ENABLED"] = False
    settings.setdict(theirs, priority=PRIORITY)


def take_part(settings: BaseSettings, place: Place) -> None:
    """
    Put in what makes a crawler one of many.

    Args:
        settings: As the project, the spider and add-ons have made them.

    Raises:
        ConfigError: They have a scheduler of their own.
    """
    from scrapy.utils.misc import load_object

    from vscrapy import internals
    from vscrapy.crawl.scheduler import bound
    from vscrapy.crawl.stats import shared

    internals.check_scheduler(settings)
    ours = {"SCHEDULER": bound(place), "STATS_CLASS": shared(load_object(settings["STATS_CLASS"]))}
    settings.setdict(ours, priority=PRIORITY)


def log_to(place: Place, settings: Settings) -> None:
    """Send log records from the project's LOG_LEVEL on."""
    place.handler.setLevel(settings.get("LOG_LEVEL") or logging.DEBUG)
    place.handler.use_format(settings.get("LOG_FORMAT"))
    if place.handler not in logging.root.handlers:
        logging.root.setLevel(logging.NOTSET)
        logging.root.addHandler(place.handler)


def spider_class(loader: Any, job: dict[str, Any], directory: Path) -> type[Spider]:
    """
    The task's spider.

    Raises:
        KeyError: The project's spider loader does not find it.
    """
    if job["kind"] == "crawl":
        spider: type[Spider] = loader.load(job["spider"])
        return spider
    from scrapy.utils.spider import iter_spider_classes

    from vscrapy.internals import import_file

    return list(iter_spider_classes(import_file(directory / job["file"]))).pop()
