"""Files that crawl processes write: they come home as a local crawl would have left them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import support
from tests.integration.machine import Machine, Site, write_project
from vscrapy.sender.files import FilesHome
from vscrapy.store.base import Store
from vscrapy.store.files import Files
from vscrapy.wire import WrittenFile, encode_file, task_key

pytest_plugins = ["tests.integration.machine"]

SPIDER = """
    from pathlib import Path

    import scrapy


    class Saver(scrapy.Spider):
        name = "saver"

        async def start(self):
            for page in range(1, 4):
                yield scrapy.Request(f"{self.base}/quotes/page/{page}/", cb_kwargs={"page": page})

        def parse(self, response, page):
            Path("pages").mkdir(exist_ok=True)
            Path(f"pages/{page}.html").write_bytes(response.body)
            with open("notes.txt", "a") as notes:
                notes.write(f"{page}\\n")
"""


def test_files_of_a_spider_come_home_new_and_changed(machine: Machine, tmp_path: Path, site: Site) -> None:
    """What the spider writes below its working directory stands in the sender's after the crawl."""
    project = write_project(tmp_path / "project", SPIDER)
    (project / "notes.txt").write_text("0\n")
    finished = machine.run(["vscrapy", "crawl", "saver", "-a", f"base={site.base}", "--workers", "1"], project)
    assert finished.exit_code == 0, finished.stderr
    pages = {path.name: path.read_text() for path in (project / "pages").iterdir()}
    assert sorted(pages) == ["1.html", "2.html", "3.html"]
    assert all("<html" in page for page in pages.values())
    assert sorted((project / "notes.txt").read_text().split()) == ["0", "1", "2", "3"]


def test_files_over_the_limit_stay_and_are_named(machine: Machine, tmp_path: Path, site: Site) -> None:
    """A file that is too large to be sent is named in the log."""
    project = write_project(tmp_path / "project", SPIDER)
    finished = machine.run(
        ["vscrapy", "crawl", "saver", "-a", f"base={site.base}", "-s", "VSCRAPY_FILES_LIMIT=10"], project
    )
    assert "pages/1.html" in finished.stderr
    assert not (project / "pages").exists()


@pytest.fixture
def home(store: Store, tmp_path: Path) -> tuple[FilesHome, support.Process, Path, list[str]]:
    """A home for the files of one running task, the task's process, the directory, and what was told."""
    process = support.running(store, support.submit(store))
    told: list[str] = []
    directory = tmp_path / "here"
    directory.mkdir()
    key = task_key("secret", process.taskid)
    return FilesHome(Files(store), process.taskid, key, directory, tell=told.append), process, directory, told


def put(store: Store, process: support.Process, file: WrittenFile, secret: str = "secret") -> bool:
    """Send one file, as its crawl process does."""
    return Files(store).put(process.taskid, process.name, encode_file(file, task_key(secret, process.taskid)))


def test_files_of_one_name_from_two_processes_are_told_apart(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """The second one gets its process's number into its name; the same content needs no second file."""
    files, process, directory, told = home
    for number, content in ((1, b"one"), (2, b"two"), (3, b"one")):
        assert put(store, process, WrittenFile("a/out.txt", content, number))
    files.take_all()
    found = {path.name: path.read_bytes() for path in (directory / "a").iterdir()}
    assert found == {"out.txt": b"one", "out.process-2.txt": b"two"}
    assert ["out.process-2.txt" in line for line in told] == [True]


@pytest.mark.parametrize("path", ["../escaped.txt", "/tmp/vscrapy-escaped.txt", "a/../../escaped.txt"])
def test_files_outside_the_directory_are_refused(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]], path: str
) -> None:
    """No path leaves the sender's directory."""
    files, process, directory, told = home
    assert put(store, process, WrittenFile(path, b"x", 1))
    assert files.take_all() == 0
    assert len(told) == 1
    assert not (directory.parent / "escaped.txt").exists()
    assert not Path("/tmp/vscrapy-escaped.txt").exists()


def test_files_with_another_signature_are_refused(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """A file that was not signed with the cluster's secret is not written."""
    files, process, directory, told = home
    assert put(store, process, WrittenFile("a.txt", b"x", 1), secret="another")
    assert files.take_all() == 0
    assert list(directory.iterdir()) == []
    assert "not signed" in told[0]


def test_files_of_a_process_that_was_given_up_are_not_taken(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """A crawl process that has left the task sends nothing any more."""
    _, process, _, _ = home
    process.leave()
    assert not put(store, process, WrittenFile("a.txt", b"x", 1))
