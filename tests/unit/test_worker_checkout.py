"""Bundles to directories, with a cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from vscrapy import bundle
from vscrapy.errors import BundleError, TaskGone
from vscrapy.model import BundleFile, BundleRoot, Manifest
from vscrapy.store.blobs import Blobs
from vscrapy.worker.checkout import Checkouts


class FakeBlobs:
    """Blobs in memory, and what was asked for."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {hashlib.sha256(content).hexdigest(): content for content in contents}
        self.asked: list[list[str]] = []

    def get(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """As ``Blobs.get``."""
        self.asked.append(list(sizes))
        try:
            return {sha: self.contents[sha] for sha in sizes}
        except KeyError as error:
            raise TaskGone(f"{error} is not there") from error


def manifest(**files: bytes) -> Manifest:
    """A project of these files."""
    return Manifest(
        (
            BundleRoot(
                "project",
                True,
                tuple(
                    BundleFile(name, hashlib.sha256(content).hexdigest(), len(content))
                    for name, content in files.items()
                ),
            ),
        )
    )


def checkouts(home: Path, blobs: FakeBlobs, said: list[str] | None = None, *, cache_bytes: int = 10**6) -> Checkouts:
    """Checkouts that are prepared."""
    made = Checkouts(home, cast("Blobs", blobs), (said if said is not None else []).append, cache_bytes=cache_bytes)
    made.prepare()
    return made


def test_check_out_fetches_each_file_once(tmp_path: Path) -> None:
    """Equal files travel once, and the next process of the task needs no file at all."""
    blobs = FakeBlobs(b"same", b"")
    made = checkouts(tmp_path, blobs)
    project = manifest(a=b"same", b=b"same", c=b"")
    first, second = made.check_out(7, 1, project), made.check_out(7, 2, project)
    assert first != second
    assert {path.name: path.read_bytes() for path in (second / "project").iterdir()} == {
        "a": b"same",
        "b": b"same",
        "c": b"",
    }
    assert [sha for shas in blobs.asked for sha in shas] == [
        hashlib.sha256(content).hexdigest() for content in (b"same", b"")
    ]


def test_check_out_repairs_a_damaged_cache(tmp_path: Path) -> None:
    """A cached file that is not what its name says is fetched again."""
    blobs = FakeBlobs(b"right")
    made = checkouts(tmp_path, blobs)
    made.check_out(7, 1, manifest(a=b"right"))
    (cached,) = (tmp_path / "cache" / "blobs").iterdir()
    cached.write_bytes(b"wrong")
    assert (made.check_out(7, 2, manifest(a=b"right")) / "project" / "a").read_bytes() == b"right"
    assert cached.read_bytes() == b"right"


def test_check_out_of_an_expired_blob_says_so(tmp_path: Path) -> None:
    """A file that is neither here nor on Redis."""
    with pytest.raises(TaskGone):
        checkouts(tmp_path, FakeBlobs()).check_out(7, 1, manifest(a=b"gone"))


def test_check_out_of_a_wrong_blob_leaves_nothing(tmp_path: Path) -> None:
    """Content that is not what the manifest says is refused, and the directory goes."""
    blobs = FakeBlobs()
    blobs.contents[hashlib.sha256(b"right").hexdigest()] = b"wrong"
    with pytest.raises(BundleError):
        checkouts(tmp_path, blobs).check_out(7, 1, manifest(a=b"right"))
    assert list((tmp_path / "run").iterdir()) == []


def test_check_out_of_too_large_a_bundle_fetches_nothing(tmp_path: Path) -> None:
    """A worker's own limit holds, whoever has signed the manifest."""
    blobs = FakeBlobs(b"x" * 101)
    made = Checkouts(tmp_path, cast("Blobs", blobs), print, limit_bytes=100)
    made.prepare()
    with pytest.raises(BundleError, match=r"has 101 bytes, the limit VSCRAPY_BUNDLE_LIMIT is 100 bytes"):
        made.check_out(7, 1, manifest(a=b"x" * 101))
    assert (blobs.asked, list((tmp_path / "run").iterdir())) == ([], [])


@pytest.mark.parametrize("path", ["../a", "/etc/a", "a/../../b", "a\\b", "", ".", "C:a", "a" * 300, "d/" * 600 + "a"])
def test_check_out_of_a_path_that_leads_elsewhere_fetches_nothing(tmp_path: Path, path: str) -> None:
    """Also when the secret's owner has signed it."""
    blobs = FakeBlobs(b"x")
    with pytest.raises(BundleError):
        checkouts(tmp_path, blobs).check_out(7, 1, manifest(**{path: b"x"}))
    assert (blobs.asked, list((tmp_path / "run").iterdir())) == ([], [])


def test_check_out_of_too_many_files_fetches_nothing(tmp_path: Path) -> None:
    """Empty files take no bytes, and each an inode."""
    blobs = FakeBlobs(b"")
    many = manifest(**{f"f{number}": b"" for number in range(bundle.MOST_FILES + 1)})
    with pytest.raises(BundleError, match="100001 files; the most are 100000"):
        checkouts(tmp_path, blobs).check_out(7, 1, many)
    assert blobs.asked == []


def test_check_out_on_a_disk_that_refuses_is_an_os_error(tmp_path: Path) -> None:
    """A full disk is this machine's fault, not the bundle's: another worker may do it."""
    made = checkouts(tmp_path, FakeBlobs(b"content"))
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(OSError, match="cannot be used"):
        made.check_out(7, 1, manifest(a=b"content"))


def test_cache_is_trimmed_by_last_use(tmp_path: Path) -> None:
    """Beyond its size, the cache loses what was used longest ago."""
    contents = [bytes([number]) * 100 for number in range(3)]
    made = checkouts(tmp_path, FakeBlobs(*contents), cache_bytes=250)
    for number, content in enumerate(contents):
        made.check_out(7, number, manifest(a=content))
        os.utime(tmp_path / "cache" / "blobs" / hashlib.sha256(content).hexdigest(), (number, number))
    made.check_out(8, 1, manifest(a=contents[0]))
    made.trim()
    kept = {path.name for path in (tmp_path / "cache" / "blobs").iterdir()}
    assert kept == {hashlib.sha256(content).hexdigest() for content in (contents[0], contents[2])}


def test_prepare_removes_what_dead_agents_left(tmp_path: Path) -> None:
    """Directories of agents that live stay; so do those of another host, and what is not ours."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    made = checkouts(tmp_path, FakeBlobs(b"x"))
    mine = made.check_out(7, 1, manifest(a=b"x"))
    host = mine.name.removesuffix(f"-{os.getpid()}-7-1")
    names = {
        f"{host}-{os.getppid()}-7-1",
        f"elsewhere-{dead.pid}-7-1",
        "notes",
    }
    for name in (*names, f"{host}-{dead.pid}-7-1"):
        (tmp_path / "run" / name).mkdir()
    made.prepare()
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


def test_remove_of_a_directory_that_is_gone_is_quiet(tmp_path: Path) -> None:
    """A project may remove its own directory."""
    said: list[str] = []
    checkouts(tmp_path, FakeBlobs(), said).remove(tmp_path / "run" / "gone")
    assert said == []
