"""Spare checkouts, in real directories: what comes of one is what unpacking gives, whatever happened to it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from vscrapy.bundle import unpack
from vscrapy.errors import BundleError, StoreUnavailable
from vscrapy.model import BundleFile, BundleRoot, Manifest
from vscrapy.store.blobs import Blobs
from vscrapy.worker import spare
from vscrapy.worker.checkout import Checkouts

LIMIT_BYTES = 10**6


@dataclass
class Machine:
    """A home with its checkouts, and a Redis whose blobs can be counted."""

    directory: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    number: int = 0
    is_redis_away: bool = False
    held: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkouts = Checkouts(self.directory / "home", cast("Blobs", self), self.said.append)
        self.checkouts.prepare()

    def get(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """As ``Blobs.get``."""
        if self.is_redis_away:
            raise StoreUnavailable("no reply")
        self.asked.extend(sizes)
        return {sha: self.contents[sha] for sha in sizes}

    def manifest(self, files: Mapping[str, bytes], *executable: str, working_directory: str = ".") -> Manifest:
        """A project of these files; those with ``+`` in front are of a second root."""
        roots: dict[str, list[BundleFile]] = {"project": [], "outside-0": []}
        for path, content in files.items():
            sha = hashlib.sha256(content).hexdigest()
            self.contents[sha] = content
            file = BundleFile(path.lstrip("+"), sha, len(content), path in executable)
            roots["outside-0" if path.startswith("+") else "project"].append(file)
        made = tuple(BundleRoot(name, True, tuple(found)) for name, found in roots.items() if found)
        return Manifest(made, working_directory)

    def check_out(self, manifest: Manifest) -> Path:
        """The directory of a further crawl process."""
        self.number += 1
        return self.checkouts.check_out(7, self.number, manifest)

    def unpacked(self, manifest: Manifest) -> dict[str, Any]:
        """What a directory looks like into which the manifest was unpacked just now."""
        self.number += 1
        target = self.directory / f"unpacked-{self.number}"
        unpack(manifest, self.contents.__getitem__, target, limit_bytes=LIMIT_BYTES)
        return look(target)

    def hold(self, *directories: Path) -> list[dict[str, int]]:
        """The inodes of each directory; no other file gets one of them, until this is called again."""
        self.let_go()
        for directory in directories:
            self.held.extend(os.open(path, os.O_RDONLY) for path in directory.rglob("*"))
        return [inodes(directory) for directory in directories]

    def let_go(self) -> None:
        """Hold nothing any more."""
        while self.held:
            os.close(self.held.pop())

    @property
    def lying(self) -> list[str]:
        """Directories of crawl processes and spares."""
        return sorted(path.name for path in (self.directory / "home" / "run").iterdir())


def look(directory: Path) -> dict[str, Any]:
    """All that can be seen of what is in a directory, but for times."""
    found: dict[str, Any] = {".": directory.lstat().st_mode}
    for path in directory.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        n_names = status.st_nlink if content is not None else 0
        owner = (status.st_uid, status.st_gid)
        found[str(path.relative_to(directory))] = (status.st_mode, n_names, owner, content)
    return found


def inodes(directory: Path) -> dict[str, int]:
    """The files of a directory, each of which is known by its inode while somebody holds it."""
    return {str(path.relative_to(directory)): path.lstat().st_ino for path in directory.rglob("*") if path.is_file()}


def kept(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    """Files that are the same one in two directories."""
    return {path for path, inode in after.items() if before.get(path) == inode}


FILES = {f"pkg/part_{number}.py": b"part = %d\n" % number for number in range(40)} | {
    "scrapy.cfg": b"[settings]\n",
    "empty": b"",
    "pkg/tool.sh": b"#!/bin/sh\n",
    "a/b/c.txt": b"deep\n",
    "+local/module.py": b"local = 1\n",
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose every word is a surprise."""
    machine = Machine(tmp_path)
    yield machine
    machine.let_go()
    assert machine.said == []


def without(*paths: str) -> dict[str, bytes]:
    """The files but for these."""
    return {path: content for path, content in FILES.items() if path not in paths}


def test_next_checkout_takes_the_files_of_the_last(machine: Machine) -> None:
    """Not one is written: they are the same inodes, moved to directories of their own."""
    project = machine.manifest(FILES, "pkg/tool.sh")
    first = machine.check_out(project)
    (files,) = machine.hold(first)
    directories = {path.stat().st_ino for path in first.rglob("*") if path.is_dir()}
    machine.checkouts.check_in(first)
    assert not first.exists()
    second = machine.check_out(project)
    assert inodes(second) == files
    assert directories.isdisjoint(path.stat().st_ino for path in second.rglob("*") if path.is_dir())
    assert look(second) == machine.unpacked(project)
    assert machine.lying == [second.name]
    assert len(machine.asked) == len(set(FILES.values()))


def test_files_that_are_taken_count_as_written_now(machine: Machine) -> None:
    """A spider that asks how old a file is gets the answer that a new one gives."""
    project = machine.manifest(FILES)
    first = machine.check_out(project)
    os.utime(first / "project" / "scrapy.cfg", (1000, 1000))
    machine.checkouts.check_in(first)
    assert time.time() - (machine.check_out(project) / "project" / "scrapy.cfg").stat().st_mtime < 60


@pytest.mark.parametrize(
    ("files", "executable", "working_directory"),
    [
        pytest.param(FILES | {"scrapy.cfg": b"[deploy!!]\n"}, ["pkg/tool.sh"], ".", id="edited"),
        pytest.param(FILES | {"pkg/new/new.py": b"new = 1\n"}, ["pkg/tool.sh"], ".", id="new"),
        pytest.param(without("scrapy.cfg", "a/b/c.txt"), ["pkg/tool.sh"], ".", id="removed with its directory"),
        pytest.param(without("+local/module.py"), ["pkg/tool.sh"], ".", id="removed with its root"),
        pytest.param(without("a/b/c.txt") | {"a": b"a file\n"}, ["pkg/tool.sh"], ".", id="directory to file"),
        pytest.param(without("empty") | {"empty/d/x": b"x\n"}, ["pkg/tool.sh"], ".", id="file to directory"),
        pytest.param(FILES, [], ".", id="not executable"),
        pytest.param(FILES, ["pkg/tool.sh", "scrapy.cfg"], ".", id="executable"),
        pytest.param(FILES, ["pkg/tool.sh"], "run/here", id="working directory"),
        pytest.param(FILES, ["pkg/tool.sh"], "a", id="working directory with files"),
    ],
)
def test_nearly_the_same_project_is_made_of_the_spare(
    machine: Machine, files: dict[str, bytes], executable: list[str], working_directory: str
) -> None:
    """What differs is written, removed and made; nothing else is, and nothing is left over; there and back."""
    projects = [
        machine.manifest(FILES, "pkg/tool.sh"),
        machine.manifest(files, *executable, working_directory=working_directory),
        machine.manifest(FILES, "pkg/tool.sh"),
    ]
    before = machine.check_out(projects[0])
    for project in projects[1:]:
        (had,) = machine.hold(before)
        machine.checkouts.check_in(before)
        before = machine.check_out(project)
        assert look(before) == machine.unpacked(project)
        assert len(kept(had, inodes(before))) >= len(FILES) - 2
    assert machine.lying == [before.name]


def edit(directory: Path) -> None:
    """Another content, of the same size and time."""
    path = directory / "project" / "scrapy.cfg"
    status = path.stat()
    path.write_bytes(b"[SETTINGS]\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(directory: Path) -> None:
    """More content."""
    with (directory / "project" / "scrapy.cfg").open("ab") as file:
        file.write(b"more")


def remove(directory: Path) -> None:
    """A file that is gone."""
    (directory / "project" / "scrapy.cfg").unlink()


def link(directory: Path) -> None:
    """A link to a file that is just as it should be."""
    path = directory / "project" / "scrapy.cfg"
    path.rename(directory.parent.parent / "elsewhere")
    path.symlink_to(directory.parent.parent / "elsewhere")


def second_name(directory: Path) -> None:
    """A file that can be changed by another name."""
    os.link(directory / "project" / "scrapy.cfg", directory.parent.parent / "elsewhere")


def pipe(directory: Path) -> None:
    """A pipe, which nobody writes to."""
    path = directory / "project" / "scrapy.cfg"
    path.unlink()
    os.mkfifo(path)


def mode(directory: Path) -> None:
    """Other permissions."""
    (directory / "project" / "scrapy.cfg").chmod(0o777)


def directory_mode(directory: Path) -> None:
    """Other permissions of a directory."""
    (directory / "project" / "pkg").chmod(0o777)


def more(directory: Path) -> None:
    """Files and directories that are nobody's."""
    (directory / "more").mkdir()
    (directory / "project" / "pkg" / "__pycache__").mkdir()
    (directory / "project" / "pkg" / "__pycache__" / "part_1.pyc").write_bytes(b"code")
    (directory / "project" / "sitecustomize.py").write_text("raise SystemExit")
    (directory / "project" / "pkg" / "away").symlink_to("/")


def file_to_directory(directory: Path) -> None:
    """A directory in the place of a file."""
    remove(directory)
    (directory / "project" / "scrapy.cfg").mkdir()
    (directory / "project" / "scrapy.cfg" / "x").touch()


def directory_to_file(directory: Path) -> None:
    """A file in the place of a directory."""
    (directory / "project" / "a" / "b" / "c.txt").unlink()
    (directory / "project" / "a" / "b").rmdir()
    (directory / "project" / "a" / "b").touch()


def directory_to_link(directory: Path) -> None:
    """A link in the place of a directory, to one that is just like it."""
    elsewhere = directory.parent.parent / "elsewhere"
    (directory / "project" / "a").rename(elsewhere)
    (directory / "project" / "a").symlink_to(elsewhere)


DAMAGES = [
    *(edit, append, remove, link, second_name, pipe, mode, directory_mode, more),
    *(file_to_directory, directory_to_file, directory_to_link),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_waiting", [False, True], ids=["by its crawl process", "as it waits"])
def test_what_was_done_to_a_spare_is_not_seen(
    machine: Machine, damage: Callable[[Path], None], *, is_waiting: bool
) -> None:
    """Whatever is not what the manifest says is written anew or removed, and the rest is taken."""
    project = machine.manifest(FILES, "pkg/tool.sh")
    first = machine.check_out(project)
    (had,) = machine.hold(first)
    if not is_waiting:
        damage(first)
    machine.checkouts.check_in(first)
    if is_waiting:
        (name,) = machine.lying
        damage(first.parent / name)
    second = machine.check_out(project)
    assert look(second) == machine.unpacked(project)
    # 40 of them are in one directory, whose mode was changed.
    assert len(kept(had, inodes(second))) >= (4 if damage is directory_mode and is_waiting else len(FILES) - 1)
    assert machine.lying == [second.name]
    elsewhere = machine.directory / "home" / "elsewhere"
    if damage is directory_to_link:
        assert (elsewhere / "b" / "c.txt").read_bytes() == b"deep\n"
    elif damage in (link, second_name):
        assert elsewhere.read_bytes() == b"[settings]\n"


def test_spare_that_was_replaced_by_a_link_is_not_followed(machine: Machine) -> None:
    """Neither is anything removed where it leads, nor does a crawl process run there."""
    project = machine.manifest(FILES)
    first = machine.check_out(project)
    machine.checkouts.check_in(first)
    (name,) = machine.lying
    waiting, elsewhere = first.parent / name, machine.directory / "elsewhere"
    waiting.rename(elsewhere)
    (elsewhere / "diary").write_text("private")
    waiting.symlink_to(elsewhere)
    second = machine.check_out(project)
    assert look(second) == machine.unpacked(project)
    assert kept(inodes(elsewhere), inodes(second)) == set()
    assert (elsewhere / "diary").read_text() == "private"
    assert [word for word in machine.said if f"{waiting} cannot be removed" not in word] == []
    machine.said.clear()


def test_spare_that_vanished_is_none(machine: Machine) -> None:
    """Somebody has cleaned up."""
    project = machine.manifest(FILES)
    machine.checkouts.check_in(machine.check_out(project))
    (name,) = machine.lying
    (machine.directory / "home" / "run" / name).rename(machine.directory / "gone")
    assert look(machine.check_out(project)) == machine.unpacked(project)


def test_spare_on_a_disk_that_refuses_is_dropped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crawl has its files as if there had been none."""
    project = machine.manifest(FILES)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    machine.checkouts.check_in(machine.check_out(project))
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", refuse)
        patched.setattr(Checkouts, "_is_cached", lambda *_: True)
        second = machine.check_out(project)
    assert look(second) == machine.unpacked(project)
    assert machine.lying == [second.name]
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        machine.checkouts.check_in(second)
    assert machine.lying == []


def test_damaged_blob_is_fetched_when_a_spare_is_taken(machine: Machine) -> None:
    """What is written to a spare comes the same way as what is unpacked."""
    machine.checkouts.check_in(machine.check_out(machine.manifest(FILES)))
    edited = machine.manifest(FILES | {"empty": b"full"})
    sha = hashlib.sha256(b"full").hexdigest()
    (machine.directory / "home" / "cache" / "blobs" / sha).write_bytes(b"evil")
    assert look(machine.check_out(edited)) == machine.unpacked(edited)


def test_wrong_content_is_refused_with_a_spare_as_without(machine: Machine) -> None:
    """Redis's answer is not what the manifest says: the crawl process does not start, and nothing is left."""
    machine.checkouts.check_in(machine.check_out(machine.manifest(FILES)))
    edited = machine.manifest(FILES | {"empty": b"full"})
    machine.contents[hashlib.sha256(b"full").hexdigest()] = b"evil"
    with pytest.raises(BundleError, match="empty is not what the manifest says"):
        machine.check_out(edited)
    assert machine.lying == []


def test_redis_that_is_away_is_said_with_a_spare_as_without(machine: Machine) -> None:
    """A file that was trimmed just now is asked for; without an answer the checkout is tried again."""
    machine.checkouts.check_in(machine.check_out(machine.manifest(FILES)))
    edited = machine.manifest(FILES | {"empty": b"full"})
    sha = hashlib.sha256(b"full").hexdigest()
    (machine.directory / "home" / "cache" / "blobs" / sha).write_bytes(b"evil")
    machine.is_redis_away = True
    with pytest.raises(StoreUnavailable):
        machine.check_out(edited)
    assert machine.lying == []
    machine.is_redis_away = False
    assert look(machine.check_out(edited)) == machine.unpacked(edited)


def test_other_project_leaves_the_spare(machine: Machine) -> None:
    """What has little in common is unpacked; the spare is there for its own project until another one is kept."""
    mine = machine.manifest(FILES)
    other = machine.manifest({f"other_{number}.py": b"%d" % number for number in range(40)})
    few = machine.manifest({"script.py": b"few"})
    first = machine.check_out(mine)
    (had,) = machine.hold(first)
    machine.checkouts.check_in(first)
    for project in (few, other):
        assert look(machine.check_out(project)) == machine.unpacked(project)
    machine.checkouts.check_in(machine.check_out(few))
    again = machine.check_out(mine)
    assert inodes(again) == had
    machine.checkouts.check_in(again)
    (waiting,) = [path for path in (machine.directory / "home" / "run").iterdir() if "-0-" in path.name]
    assert (waiting / "project" / "scrapy.cfg").exists()
    machine.checkouts.check_in(machine.check_out(other))
    (waiting,) = [path for path in (machine.directory / "home" / "run").iterdir() if "-0-" in path.name]
    assert {path.name for path in waiting.rglob("other_*")} == {f"other_{number}.py" for number in range(40)}


def test_one_spare_is_kept_of_one_project(machine: Machine) -> None:
    """Two crawl processes of a task have ended."""
    project = machine.manifest(FILES)
    directories = [machine.check_out(project) for _ in range(2)]
    for directory in directories:
        machine.checkouts.check_in(directory)
    assert len(machine.lying) == 1


@pytest.mark.parametrize("n_files", [spare.FEWEST_FILES - 1, spare.FEWEST_FILES])
def test_small_projects_have_no_spare(machine: Machine, n_files: int) -> None:
    """They are unpacked in no time."""
    project = machine.manifest({f"file_{number}": b"" for number in range(n_files)})
    machine.checkouts.check_in(machine.check_out(project))
    assert len(machine.lying) == (n_files >= spare.FEWEST_FILES)


def test_projects_that_take_much_room_have_no_spare(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is for crawls."""
    project = machine.manifest(FILES)
    for name, most in (("MOST_BYTES", project.size_bytes - 1), ("MOST_FILES", len(FILES) - 1)):
        with monkeypatch.context() as patched:
            patched.setattr(spare, name, most)
            machine.checkouts.check_in(machine.check_out(project))
        assert machine.lying == []
    machine.checkouts.check_in(machine.check_out(project))
    assert len(machine.lying) == 1


def test_what_a_crawl_has_written_is_removed_with_its_directory(machine: Machine) -> None:
    """A spare takes no more room than the project, however much its crawl has stored below it."""
    project = machine.manifest(FILES)
    first = machine.check_out(project)
    (first / "project" / "images").mkdir()
    (first / "project" / "images" / "1.jpg").write_bytes(b"x" * 1000)
    append(first)
    machine.checkouts.check_in(first)
    (waiting,) = (machine.directory / "home" / "run").iterdir()
    found = look(waiting)
    assert "project/images" not in found
    assert "project/scrapy.cfg" not in found


def test_two_checkouts_at_once_share_nothing(machine: Machine) -> None:
    """Whoever comes first has the spare; all have what they should."""
    project = machine.manifest(FILES, "pkg/tool.sh")
    should = machine.unpacked(project)
    for turn in range(5):
        first = machine.check_out(project)
        (had,) = machine.hold(first)
        machine.checkouts.check_in(first)
        with ThreadPoolExecutor(4) as pool:
            barrier = threading.Barrier(4)
            found = list(pool.map(partial(check_out_together, machine, project, barrier, 100 + turn), range(4)))
        assert [look(path) == should for path in found] == [True] * 4
        assert sorted(len(kept(had, inodes(path))) for path in found) == [0, 0, 0, len(FILES)]
        for path in found:
            machine.checkouts.remove(path)
        assert machine.lying == []


def check_out_together(machine: Machine, project: Manifest, barrier: threading.Barrier, taskid: int, n: int) -> Path:
    """A checkout at the same time as others."""
    barrier.wait(60)
    return machine.checkouts.check_out(taskid, n, project)


def test_processes_that_end_at_once_leave_one_spare(machine: Machine) -> None:
    """Whichever of them is kept, it is whole, and nothing else is left."""
    project = machine.manifest(FILES, "pkg/tool.sh")
    for _ in range(5):
        directories = [machine.check_out(project) for _ in range(4)]
        had = machine.hold(*directories)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(machine.checkouts.check_in, directories))
        assert len(machine.lying) == 1
        last = machine.check_out(project)
        assert max(len(kept(before, inodes(last))) for before in had) == len(FILES)
        machine.checkouts.remove(last)


def test_closed_spare_leaves_nothing(machine: Machine) -> None:
    """At the worker's end, and for crawl processes that end after that."""
    project = machine.manifest(FILES)
    last = machine.check_out(project)
    machine.checkouts.check_in(machine.check_out(project))
    machine.checkouts.spare.close()
    assert machine.lying == [last.name]
    machine.checkouts.check_in(last)
    assert machine.lying == []


def test_spare_that_nobody_takes_is_trimmed(tmp_path: Path) -> None:
    """It goes with an upkeep, once it is old."""
    machine = Machine(tmp_path)
    project = machine.manifest(FILES)
    machine.checkouts.check_in(machine.check_out(project))
    machine.checkouts.trim()
    assert len(machine.lying) == 1
    directory = machine.check_out(project)
    target = spare.Spare(lambda number: tmp_path / f"spare-{number}", machine.checkouts.remove, kept_s=0.0)
    target.put(directory, project)
    assert (tmp_path / "spare-1").is_dir()
    target.trim()
    assert not (tmp_path / "spare-1").exists()
    assert not target.take(project, lambda _: b"", tmp_path / "taken")


def test_dead_agents_spare_is_removed_by_the_next(machine: Machine) -> None:
    """Its name is that of a crawl process's directory of no task."""
    machine.checkouts.check_in(machine.check_out(machine.manifest(FILES)))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (waiting,) = (machine.directory / "home" / "run").iterdir()
    waiting.rename(waiting.with_name(waiting.name.replace(f"-{os.getpid()}-0-", f"-{dead.pid}-0-")))
    Machine(machine.directory)
    assert machine.lying == []
