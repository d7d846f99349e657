"""The environments of a home on disk: which are removed, and what wheels are made for them."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

import vscrapy
from vscrapy.worker.build import BUILD_S
from vscrapy.worker.environments import UNUSED_S, Environments
from vscrapy.worker.wheels import NOT_IN_CRAWLS, installed_wheels, own_requirements, own_wheel

MEGABYTE: Final = 1024 * 1024


class Home:
    """A home with environments; nothing of an agent is needed to trim them."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "cache" / "environments"
        self.said: list[str] = []
        unused: Any = None
        self.environments = Environments(unused, unused, directory, unused, may_build=True, say=self.said.append)
        self.environments.prepare()

    def put(self, name: str, *, size_bytes: int = MEGABYTE, used_s: float = 0.0) -> Path:
        """Put an environment there that was last used some time ago."""
        path = self.root / name
        path.mkdir()
        mark = path / "vscrapy.json"
        mark.write_text(json.dumps({"bytes": size_bytes}))
        os.utime(mark, (time.time() - used_s,) * 2)
        return path

    @contextmanager
    def used_elsewhere(self, name: str) -> Iterator[None]:
        """Another process uses an environment."""
        code = (
            "import fcntl, sys\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_SH)\n"
            "print('held', flush=True)\nsys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(self.root / "locks" / f"use-{name}")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield
            holder.communicate()

    def left(self) -> set[str]:
        """The environments that are there."""
        return {mark.parent.name for mark in self.root.glob("*/vscrapy.json")}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home of its own."""
    return Home(tmp_path)


def test_environments_that_were_not_used_for_long_are_removed(home: Home) -> None:
    """Thirty days after the last use; a line says so."""
    home.put("old", used_s=UNUSED_S + 60)
    home.put("young", used_s=UNUSED_S - 60)
    home.environments.trim()
    assert home.left() == {"young"}
    assert home.said == ["environment old is removed"]


def test_environments_beyond_the_size_are_removed_the_least_used_first(home: Home) -> None:
    """As many as are too much."""
    for number in range(4):
        home.put(f"e{number}", used_s=100.0 * number)
    home.environments.trim(most_bytes=2 * MEGABYTE)
    assert home.left() == {"e0", "e1"}


def test_environment_in_use_is_not_removed(home: Home) -> None:
    """Whoever uses it: this agent, or another one of the home."""
    home.put("used", used_s=UNUSED_S + 60)
    home.put("free", used_s=UNUSED_S + 60)
    with home.used_elsewhere("used"):
        home.environments.trim(most_bytes=0)
        assert home.left() == {"used"}
    home.environments.trim(most_bytes=0)
    assert home.left() == set()


def test_what_killed_builds_left_is_removed_when_it_is_old(home: Home) -> None:
    """Not what is being built just now."""
    for name, age_s in ((".new-old", 3 * BUILD_S), (".new-young", 0.0)):
        (home.root / name).mkdir()
        os.utime(home.root / name, (time.time() - age_s,) * 2)
    home.environments.trim()
    assert [path.name for path in home.root.glob(".new-*")] == [".new-young"]


def test_lock_that_a_builder_has_is_not_given_twice(home: Home) -> None:
    """It goes with its process, however that ends."""
    held = home.environments._lock("build-x", fcntl.LOCK_EX)
    assert held is not None
    assert home.environments._lock("build-x", fcntl.LOCK_EX) is None
    os.close(held)
    again = home.environments._lock("build-x", fcntl.LOCK_EX)
    assert again is not None
    os.close(again)


def test_wheel_of_vscrapy_is_this_very_version(tmp_path: Path) -> None:
    """With all its files, and with what crawl processes need; the same files are the same wheel."""
    path = own_wheel(tmp_path)
    content = path.read_bytes()
    path.unlink()
    assert own_wheel(tmp_path).read_bytes() == content
    package = Path(vscrapy.__file__).parent
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"vscrapy-{vscrapy.__version__}.dist-info/METADATA").decode()
    expected = {f"vscrapy/{file.relative_to(package).as_posix()}" for file in package.rglob("*.lua")}
    assert expected <= names
    assert "vscrapy/crawl/main.py" in names
    assert "Requires-Dist: scrapy>=2.13\n" in metadata
    assert not any(f"Requires-Dist: {name}" in metadata for name in NOT_IN_CRAWLS)


def test_wheels_of_what_is_installed_hold_all_that_crawls_need(tmp_path: Path) -> None:
    """Each with its files, under a name that says what it is for."""
    installed_wheels(tmp_path)
    made = {path.name.partition("-")[0].lower(): path for path in tmp_path.glob("*.whl")}
    needed = {text.partition(">")[0].partition("[")[0] for text in own_requirements()}
    assert needed <= made.keys()
    assert {"hiredis", "lxml", "parsel"} <= made.keys()
    with zipfile.ZipFile(made["scrapy"]) as archive:
        assert archive.testzip() is None
        assert f"scrapy-{importlib.metadata.version('scrapy')}.dist-info/METADATA" in archive.namelist()
        assert not any("__pycache__" in name for name in archive.namelist())
