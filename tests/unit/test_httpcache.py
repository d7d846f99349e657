"""Where the HTTP cache of a project is, at the sender and on workers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.utils.request import RequestFingerprinter

from vscrapy import httpcache
from vscrapy.crawl import httpcache as shared

#: An identity.
ID: Final = "1" * 32


def test_identify_keeps_the_identity_of_a_directory(tmp_path: Path) -> None:
    """It is made once, and anew with the directory."""
    directory = tmp_path / "project" / ".scrapy" / "httpcache"
    first = httpcache.identify(directory)
    assert len(first) == 32
    assert httpcache.identify(directory) == first
    assert [path.name for path in directory.iterdir()] == [httpcache.IDENTITY]
    (directory / httpcache.IDENTITY).unlink()
    assert httpcache.identify(directory) != first


@pytest.mark.parametrize("identity", ["", "..", "../../x", "/tmp/x", "a" * 31, "A" * 32, "a" * 32 + "\n"])
def test_identity_that_is_none_is_refused_at_both_ends(tmp_path: Path, identity: str) -> None:
    """It becomes the name of a directory on a worker; whoever has written it, it leads to nowhere else."""
    (tmp_path / httpcache.IDENTITY).write_text(identity)
    with pytest.raises(OSError, match="identity"):
        httpcache.identify(tmp_path)
    with pytest.raises(OSError, match="identity"):
        httpcache.place(tmp_path / "elsewhere", identity, tmp_path / "home")


def test_place_is_the_senders_directory_where_it_is_seen(tmp_path: Path) -> None:
    """A worker on the sender's machine, or on its network disk, uses the very same cache."""
    identity = httpcache.identify(tmp_path / "here")
    assert httpcache.place(tmp_path / "here", identity, tmp_path / "home") == tmp_path / "here"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("there", ["missing", "another"])
def test_place_is_kept_by_the_worker_where_the_senders_is_not_seen(tmp_path: Path, there: str) -> None:
    """A directory with the same path, but of another machine, is not touched."""
    httpcache.identify(tmp_path / "another")
    kept = httpcache.place(tmp_path / there, ID, tmp_path / "home")
    assert kept == tmp_path / "home" / "cache" / "http" / ID
    assert kept.stat().st_mode & 0o777 == 0o700
    assert httpcache.place(tmp_path / there, ID, tmp_path / "home") == kept
    assert httpcache.place(tmp_path / there, "2" * 32, tmp_path / "home") != kept


def test_drop_unused_removes_what_nobody_has_used_for_long(tmp_path: Path) -> None:
    """A use makes a kept cache young again."""
    httpcache.drop_unused(tmp_path / "home")
    names = ("a" * 32, "b" * 32, "c" * 32)
    old, used, young = (httpcache.place(tmp_path / "x", name, tmp_path / "home") for name in names)
    (old / "file").write_text("x")
    long_ago = time.time() - httpcache.KEPT_S - 60
    for path in (old, used):
        os.utime(path, (long_ago, long_ago))
    httpcache.place(tmp_path / "x", used.name, tmp_path / "home")
    httpcache.drop_unused(tmp_path / "home")
    assert sorted(path.name for path in young.parent.iterdir()) == [used.name, young.name]


def _shared(tmp_path: Path, **settings: object) -> Settings:
    changed = Settings({"HTTPCACHE_ENABLED": True, **settings})
    directory = tmp_path / "cache"
    job = {"http_cache": {"directory": str(directory), "identity": httpcache.identify(directory)}}
    shared.share(changed, job, tmp_path / "home", priority=1000)
    return changed


def test_share_leaves_a_projects_own_storage(tmp_path: Path) -> None:
    """It gets the directory; how it is used is its own affair."""
    storage = type("Own", (), {})
    settings = _shared(tmp_path, HTTPCACHE_STORAGE=storage)
    assert settings["HTTPCACHE_STORAGE"] is storage
    assert settings["HTTPCACHE_DIR"] == str(tmp_path / "cache")


def test_share_changes_nothing_without_a_cache(tmp_path: Path) -> None:
    """No cache is wanted, or the sender has none to name."""
    off, nowhere = Settings({"HTTPCACHE_ENABLED": False}), Settings({"HTTPCACHE_ENABLED": True})
    shared.share(off, {"http_cache": {"directory": str(tmp_path), "identity": "x"}}, tmp_path, priority=1000)
    shared.share(nowhere, {"http_cache": None}, tmp_path, priority=1000)
    assert off["HTTPCACHE_DIR"] == nowhere["HTTPCACHE_DIR"] == "httpcache"


@pytest.mark.parametrize(
    "storage",
    ["scrapy.extensions.httpcache.FilesystemCacheStorage", "scrapy.extensions.httpcache.DbmCacheStorage"],
)
def test_storage_gives_whole_responses_while_it_is_written(tmp_path: Path, storage: str) -> None:
    """Many readers and writers of one response at once: each sees it whole, and none fails."""
    settings = _shared(tmp_path, HTTPCACHE_STORAGE=storage)
    spider = Spider("one")
    spider.crawler = SimpleNamespace(request_fingerprinter=RequestFingerprinter())  # type: ignore[assignment]
    stores = [settings["HTTPCACHE_STORAGE"](settings) for _ in range(4)]
    request = Request("http://demo.test/")
    response = Response("http://demo.test/", body=b"x" * 100_000)
    problems: list[object] = []

    def use(store: object) -> None:
        try:
            for _ in range(50):
                store.store_response(spider, request, response)  # type: ignore[attr-defined]
                found = store.retrieve_response(spider, request)  # type: ignore[attr-defined]
                if found is None or found.body != response.body:
                    problems.append(found)
        except Exception as error:  # noqa: BLE001 - seen below
            problems.append(error)

    for store in stores:
        store.open_spider(spider)
    threads = [threading.Thread(target=use, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
