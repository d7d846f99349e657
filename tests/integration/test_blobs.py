"""Blobs: each content once, for a while, and never other than its name says."""

from __future__ import annotations

import hashlib
import random
import zlib
from pathlib import Path

import pytest

from vscrapy import keys
from vscrapy.errors import BundleError, TaskGone
from vscrapy.store.base import Store
from vscrapy.store.blobs import Blobs

LIMIT_BYTES = 1000


@pytest.fixture
def blobs(store: Store) -> Blobs:
    """Give the blobs of a server."""
    return Blobs(store)


def write(directory: Path, *contents: bytes) -> dict[str, Path]:
    """Files with these contents, by their hashes."""
    found = {}
    for content in contents:
        sha = hashlib.sha256(content).hexdigest()
        found[sha] = directory / sha
        found[sha].write_bytes(content)
    return found


def put_raw(store: Store, packed: bytes) -> str:
    """A blob that holds just these bytes."""
    store.client.set(keys.blob("f" * 64), packed, ex=100)
    return "f" * 64


def test_put_sends_each_content_once(blobs: Blobs, tmp_path: Path) -> None:
    """What is there already is not sent again."""
    files = write(tmp_path, b"a" * 10, b"b" * 20)
    more = files | write(tmp_path, b"c" * 30)
    assert [blobs.put(files), blobs.put(files), blobs.put(more)] == [30, 0, 30]


@pytest.mark.parametrize("content", [b"", b"a", b"a" * LIMIT_BYTES, random.Random(1).randbytes(LIMIT_BYTES)])
def test_get_gives_what_was_put_up_to_the_limit(blobs: Blobs, tmp_path: Path, content: bytes) -> None:
    """A file that is exactly as large as allowed is allowed."""
    (sha,) = files = write(tmp_path, content)
    blobs.put(files)
    assert blobs.get({sha: len(content)}) == {sha: content}


def test_put_sends_more_than_fits_into_one_pipeline(blobs: Blobs, tmp_path: Path) -> None:
    """Large projects go in several portions."""
    files = write(tmp_path, *(bytes([n]) * 3_000_000 for n in range(5)))
    blobs.put(files)
    found = blobs.get(dict.fromkeys(files, 3_000_000))
    assert {sha: len(content) for sha, content in found.items()} == dict.fromkeys(files, 3_000_000)


def test_put_and_get_of_nothing_ask_nothing(blobs: Blobs) -> None:
    """An empty project is no error."""
    blobs.refresh([])
    assert (blobs.put({}), blobs.get({})) == (0, {})


def test_put_of_a_file_that_is_gone_is_told(blobs: Blobs, tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(BundleError, match=r"gone\.py cannot be read"):
        blobs.put({"0" * 64: tmp_path / "gone.py"})


def test_put_of_a_file_that_has_changed_is_refused(store: Store, blobs: Blobs, tmp_path: Path) -> None:
    """A wrong content under a name would fail every project with the right one, for a week."""
    files = write(tmp_path, b"before")
    for path in files.values():
        path.write_bytes(b"after")
    with pytest.raises(BundleError, match="has changed"):
        blobs.put(files)
    assert store.client.keys("*") == []


@pytest.mark.parametrize("call", ["put", "get", "refresh"])
def test_blob_gets_a_new_life_by_each_use(store: Store, blobs: Blobs, tmp_path: Path, call: str) -> None:
    """Blobs of a project that is in use do not expire."""
    (sha,) = files = write(tmp_path, b"a")
    blobs.put(files)
    store.client.expire(keys.blob(sha), 10)
    if call == "put":
        blobs.put(files)
    elif call == "get":
        blobs.get({sha: 1})
    else:
        blobs.refresh([sha])
    assert store.client.ttl(keys.blob(sha)) > 10


def test_get_of_a_blob_that_is_gone_is_told(blobs: Blobs) -> None:
    """The message says what to do."""
    with pytest.raises(TaskGone, match=r"eeeeeeeeeeee.*submit again"):
        blobs.get({"e" * 64: 1})


@pytest.mark.parametrize("size_bytes", [0, LIMIT_BYTES - 1, LIMIT_BYTES + 1, 10 * LIMIT_BYTES, 50_000_000])
def test_get_of_a_blob_of_another_size_is_refused(store: Store, blobs: Blobs, size_bytes: int) -> None:
    """A zip bomb is not unpacked."""
    sha = put_raw(store, zlib.compress(b"\0" * size_bytes))
    with pytest.raises(BundleError, match="does not have its 1000 bytes"):
        blobs.get({sha: LIMIT_BYTES})


@pytest.mark.parametrize("packed", [b"", b"x", b"no zlib at all", zlib.compress(b"abc" * 50)[:-3]])
def test_get_of_a_damaged_blob_is_refused(store: Store, blobs: Blobs, packed: bytes) -> None:
    """Whatever stands there, it is an error of ours."""
    sha = put_raw(store, packed)
    with pytest.raises(BundleError, match="ffffffffffff"):
        blobs.get({sha: LIMIT_BYTES})


def test_get_of_a_blob_of_another_content_is_refused(store: Store, blobs: Blobs) -> None:
    """Its size is right, and its name is another content's."""
    sha = put_raw(store, zlib.compress(b"a" * LIMIT_BYTES))
    with pytest.raises(BundleError, match="another content"):
        blobs.get({sha: LIMIT_BYTES})
    assert store.client.keys("*") == []  # whoever has the right content sends it again


def test_get_fetches_no_more_than_a_blob_of_that_size_can_have(store: Store, blobs: Blobs) -> None:
    """Whoever writes half a gigabyte under a blob's name does not fill a worker's memory with it."""
    sha = put_raw(store, random.Random(1).randbytes(20_000_000))
    before = int(store.client.info("stats")["total_net_output_bytes"])
    with pytest.raises(BundleError, match="ffffffffffff"):
        blobs.get({sha: LIMIT_BYTES})
    assert int(store.client.info("stats")["total_net_output_bytes"]) - before < 1_000_000
