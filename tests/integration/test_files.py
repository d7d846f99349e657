"""Files that crawl processes write: they come home as a local crawl would have left them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration import support
from tests.integration.machine import Machine, Site, wait_for, write_project
from vscrapy.secret import task_key
from vscrapy.sender.files import FilesHome
from vscrapy.store.base import Store
from vscrapy.store.files import Files
from vscrapy.wire import WrittenFile, encode_file

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
    files.finish()
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


def test_files_that_are_equal_in_the_end_are_one_file(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """A second version that was told apart goes when it has become equal to the first."""
    files, process, directory, told = home
    for number, content in ((1, b"1"), (2, b"2"), (1, b"3"), (2, b"3")):
        assert put(store, process, WrittenFile("n.txt", content, number))
        files.take_all()
    assert files.finish() == 1
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {"n.txt": b"3"}
    assert told == []


def added(content: bytes, process: int, position: int = 0, *, path: str = "out.jl", new: bool = False) -> WrittenFile:
    """What a process has added to a file."""
    return WrittenFile(path, content, process, position=position, is_added=True, is_renewed=new)


@pytest.mark.parametrize(
    ("before", "sent", "expected"),
    [
        (None, [added(b"1\n", 1), added(b"2\n", 2), added(b"3\n", 1, 2)], b"1\n2\n3\n"),
        (b"0\n", [added(b"1\n", 1, 2), added(b"2\n", 2, 2)], b"0\n1\n2\n"),
        (b"0\n", [added(b"1\n", 1), added(b"2\n", 2)], b"0\n1\n2\n"),
        (b"0\n", [added(b"1\n", 1, new=True), added(b"2\n", 2, new=True)], b"1\n2\n"),
        (None, [added(b"1\n", 1), added(b"1\n", 1), added(b"1\n2\n", 1)], b"1\n2\n"),
        (None, [WrittenFile("out.jl", b"# \n", 1), added(b"1\n", 1, 3), added(b"2\n", 2)], b"# \n1\n2\n"),
        (None, [WrittenFile("out.jl", b"# \n", 1), added(b"# \n2\n", 2), added(b"1\n", 1, 3)], b"# \n2\n1\n"),
        (None, [*(WrittenFile("out.jl", b"# \n", n) for n in (1, 2)), added(b"2\n", 2, 3)], b"# \n2\n"),
        (None, [added(b"# \n1\n", 1), WrittenFile("out.jl", b"# \n", 2), added(b"2\n", 2, 3)], b"# \n1\n2\n"),
    ],
    ids=[
        *("new", "shipped", "not shipped", "truncated first", "sent again"),
        *("whole and then added", "begun equally", "same and then added", "begun equally later"),
    ],
)
def test_files_that_processes_add_to_are_one_file(
    store: Store,
    home: tuple[FilesHome, support.Process, Path, list[str]],
    before: bytes | None,
    sent: list[WrittenFile],
    expected: bytes,
) -> None:
    """What each has added is there once, in the order of arrival, behind what was there before."""
    files, process, directory, _ = home
    if before is not None:
        (directory / "out.jl").write_bytes(before)
    for file in sent:
        assert put(store, process, file)
    assert files.finish() == 1
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {"out.jl": expected}


def test_files_that_one_process_adds_to_and_another_writes_anew_are_told_apart(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """Neither loses what it has written."""
    files, process, directory, _ = home
    sent = [added(b"1\n", 1), WrittenFile("out.jl", b"2\n", 2), WrittenFile("b", b"1", 1), added(b"2", 2, path="b")]
    for file in sent:
        assert put(store, process, file)
    files.finish()
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert found == {"out.jl": b"1\n", "out.process-2.jl": b"2\n", "b": b"1", "b.process-2": b"2"}


def test_files_heading_of_a_table_stands_once(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """Each process has begun a table of its own; a first line with a number in it is no heading."""
    files, process, directory, _ = home
    for path in ("a.csv", "a.txt"):
        for number, row in ((1, b"x,1\n"), (2, b"y,2\n")):
            assert put(store, process, added(b"name,price\n" + row, number, path=path))
    for number in (1, 2):
        assert put(store, process, added(b"x,1\n", number, path="b.csv"))
    files.finish()
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert found == {
        "a.csv": b"name,price\nx,1\ny,2\n",
        "a.txt": b"name,price\nx,1\nname,price\ny,2\n",
        "b.csv": b"x,1\nx,1\n",
    }


@pytest.mark.parametrize("path", [".git/hooks/post-commit", ".env", "a/.env.local", ".scrapy/x", "__pycache__/a.pyc"])
def test_files_that_never_travel_do_not_come_home(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]], path: str
) -> None:
    """History, secrets and caches are refused; other hidden files are not."""
    files, process, directory, told = home
    assert put(store, process, WrittenFile(path, b"x", 1))
    assert put(store, process, WrittenFile(".state.json", b"{}", 1))
    assert files.take_all() == 1
    assert len(told) == 1
    assert [path.name for path in directory.iterdir()] == [".state.json"]


def test_files_executable_ones_stay_so(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]]
) -> None:
    """Who may read a script may run it, too."""
    files, process, directory, _ = home
    assert put(store, process, WrittenFile("run.sh", b"x", 1, is_executable=True))
    files.take_all()
    assert (directory / "run.sh").stat().st_mode & 0o111


def test_files_follow_a_link_of_the_user_s(
    store: Store, home: tuple[FilesHome, support.Process, Path, list[str]], tmp_path: Path
) -> None:
    """A directory that the user has linked into the project is written to, as by a local crawl."""
    files, process, directory, _ = home
    (tmp_path / "disk").mkdir()
    (directory / "data").symlink_to(tmp_path / "disk")
    assert put(store, process, WrittenFile("data/a.txt", b"x", 1))
    assert files.take_all() == 1
    assert (tmp_path / "disk" / "a.txt").read_bytes() == b"x"


ADDER = """
    import csv
    import json

    import scrapy


    class Adder(scrapy.Spider):
        name = "adder"
        custom_settings = {"CONCURRENT_REQUESTS": 2, "CONCURRENT_REQUESTS_PER_DOMAIN": 100}

        async def start(self):
            for number in range(60):
                yield scrapy.Request(f"{self.base}/quotes/page/1/?n={number}", cb_kwargs={"number": number})

        def parse(self, response, number):
            with open("out.jl", "a") as out:
                out.write(json.dumps({"number": number}) + "\\n")
            with open("out.csv", "a", newline="") as table:
                writer = csv.writer(table)
                if table.tell() == 0:
                    writer.writerow(["number", "page"])
                writer.writerow([number, "x"])
            with open("whole.txt", "w") as whole:
                whole.write("the same in all processes")
"""


def test_files_that_three_processes_add_to_are_whole_at_home(
    machine: Machine, tmp_path: Path, slow_site: Site
) -> None:
    """Each line is there once, whichever process has written it, and the second run adds to what is there."""
    machine.start_worker(slots=3)
    project = write_project(tmp_path / "project", ADDER)
    command = ["vscrapy", "crawl", "adder", "-a", f"base={slow_site.base}"]
    finished = machine.run(command, project)
    assert finished.exit_code == 0, finished.stderr
    assert "out.jl has what several crawl processes have added" in finished.stderr
    assert "3 files that the crawl wrote" in finished.stderr
    numbers = [json.loads(line)["number"] for line in (project / "out.jl").read_text().splitlines()]
    assert sorted(numbers) == list(range(60))
    heading, *rows = (project / "out.csv").read_text().splitlines()
    assert heading == "number,page"
    assert sorted(int(row.split(",")[0]) for row in rows) == list(range(60))
    assert (project / "whole.txt").read_text() == "the same in all processes"
    found = sorted(path.name for path in project.iterdir() if path.suffix in (".jl", ".csv", ".txt"))
    assert found == ["out.csv", "out.jl", "whole.txt"]
    assert machine.run(command, project).exit_code == 0
    assert len((project / "out.jl").read_text().splitlines()) == 120


def test_files_come_home_during_the_crawl_and_stay_when_the_process_is_killed(
    machine: Machine, tmp_path: Path, site: Site
) -> None:
    """A file is there while the crawl goes on; a killed process takes nothing back."""
    project = write_project(
        tmp_path / "project",
        """
        import asyncio
        import os
        from pathlib import Path

        import scrapy


        class Slow(scrapy.Spider):
            name = "slow"

            async def start(self):
                yield scrapy.Request(f"{self.base}/quotes/page/1/")

            async def parse(self, response):
                Path("pid.txt").write_text(str(os.getpid()))
                await asyncio.sleep(1000)
        """,
    )
    crawl = machine.start(["vscrapy", "crawl", "slow", "-a", f"base={site.base}"], project)
    pid_file = project / "pid.txt"
    wait_for(lambda: pid_file.exists() and pid_file.read_text())
    first = int(pid_file.read_text())
    os.kill(first, signal.SIGKILL)
    wait_for((project / "pid.process-2.txt").exists)
    assert int(pid_file.read_text()) == first
    crawl.signal(signal.SIGINT)
    crawl.wait_for_output("again to force")
    crawl.signal(signal.SIGINT)
    crawl.wait()
