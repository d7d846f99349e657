"""
What is remembered of a command from one run to the next: the task it made, and where that task's files lie.

One file a command, in ``VSCRAPY_HOME``. It only saves time: whatever is wrong with it, or with what stands in it, the
command goes the ordinary way, which makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from vscrapy import __version__, config
from vscrapy.model import PROTOCOL, canonical_json
from vscrapy.store.submission import TaskOptions

#: Commands that are remembered; beyond, those that were given the longest ago are forgotten.
MOST: Final = 200
#: An edited file that is larger than this is left to the ordinary way (bytes).
EDITED_MOST_BYTES: Final = 4 * 1024 * 1024
#: Environment variables that lead to the project.
_ENV: Final = ("SCRAPY_SETTINGS_MODULE", "SCRAPY_PROJECT")


@dataclass(frozen=True, slots=True)
class Display:
    """How Scrapy's log handler shows a record on stderr."""

    format: str
    date_format: str | None
    level: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """A command's last task."""

    #: The job, without what each submission makes anew.
    job: dict[str, Any]
    options: TaskOptions
    #: For each file of the manifest in the job, in its order: where it lies here, and its size, time and inode then.
    files: list[tuple[str, int, int, int]]
    #: None: records go elsewhere than to stderr.
    display: Display | None
    project: str
    #: Where the bundle's roots beyond the project come from.
    outside: list[str]
    #: Times in a row that the task, made early, was not what the command then made of the project.
    n_missed: int = 0

    def write(self, path: Path) -> None:
        """
        Keep it.

        Raises:
            OSError: It cannot be written.
        """
        config.ensure_home()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = {**asdict(self), "options": self.options.to_data()}
        data = json.dumps({"version": __version__, "protocol": PROTOCOL, **known})
        try:
            if path.read_text(encoding="utf-8") == data:
                os.utime(path)
                return
        except (OSError, ValueError):
            pass  # not there, or damaged: it is written anew
        config.write_private(path, data)
        commands = sorted(path.parent.glob("*.json"), key=lambda found: found.stat().st_mtime_ns)
        for old in commands[:-MOST]:
            old.unlink(missing_ok=True)


def place(args: Sequence[str]) -> Path:
    """Where a command of this working directory is remembered."""
    what = [list(args), os.getcwd(), sys.executable, [os.environ.get(name) for name in _ENV]]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    return config.home() / "cache" / "commands" / f"{digest}.json"


def read(path: Path) -> Remembered:
    """
    Read what was kept by this very version.

    Raises:
        OSError, LookupError, TypeError, ValueError: There is nothing, or nothing that can be read.
    """
    data = json.loads(path.read_bytes())
    if (data.pop("version"), data.pop("protocol")) != (__version__, PROTOCOL):
        raise ValueError("another version has written it")
    display, options = data.pop("display"), TaskOptions.from_data(data.pop("options"))
    return Remembered(display=None if display is None else Display(**display), options=options, **data)


def remember(
    job: Mapping[str, Any],
    options: TaskOptions,
    directories: Sequence[Path],
    display: Display | None,
    project: Path,
    n_missed: int,
) -> Remembered:
    """
    Note a task.

    Args:
        directories: Where the roots of the manifest lie here, in their order; the first is the project's.

    Raises:
        OSError: A file is gone already.
    """
    files = []
    for root, directory in zip(json.loads(job["manifest"])["roots"], directories, strict=True):
        for file in root["files"]:
            path = os.path.join(directory, file["path"])
            files.append((path, *_stamp(path)))
    outside = [str(directory) for directory in directories[1:]]
    return Remembered(dict(job), options, files, display, str(project), outside, n_missed)


def paths(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the files of a job's manifest: roots, and paths below them."""
    roots = json.loads(job["manifest"])["roots"]
    return [(root["name"], file["path"]) for root in roots for file in root["files"]]


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def manifest_now(remembered: Remembered) -> tuple[str, dict[str, str]]:
    """
    Describe the same files as they are now.

    Returns:
        The manifest as JSON; and SHA-256 -> file.

    Raises:
        OSError, LookupError, TypeError, ValueError: One is gone or has grown large, or the manifest is none.
    """
    manifest = json.loads(remembered.job["manifest"])
    paths: dict[str, str] = {}
    described = iter(remembered.files)
    for root in manifest["roots"]:
        for file in root["files"]:
            path, *stamp = next(described)
            now = _stamp(path)
            if list(now) != stamp:
                if now[0] > EDITED_MOST_BYTES:
                    raise ValueError(f"{path} has grown")
                with open(path, "rb", buffering=0) as stream:
                    content = stream.read()
                file |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            paths[file["sha256"]] = path
    return canonical_json(manifest), paths
