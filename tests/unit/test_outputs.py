"""Outputs of earlier runs: seen as they are written, remembered, and left out of the next bundle."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from vscrapy.sender.outputs import Outputs

#: Writes in a process of its own, for an audit hook cannot be removed.
RUN = """
import sqlite3
from pathlib import Path
from vscrapy.sender.outputs import Outputs

outputs = Outputs(Path("."))
outputs.watch()
{body}
outputs.keep()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's directory, and a home beside it."""
    monkeypatch.setenv("VSCRAPY_HOME", str(tmp_path / "home"))
    made = tmp_path / "project"
    made.mkdir()
    return made.resolve()


def run(project: Path, body: str) -> None:
    """Run *body* in the project's directory, watched."""
    subprocess.run([sys.executable, "-c", RUN.format(body=body)], cwd=project, check=True, env=dict(os.environ))


def test_outputs_are_what_was_opened_to_write(project: Path) -> None:
    """Written, appended and SQLite files are outputs; files that were read are not."""
    (project / "seeds.csv").write_text("a")
    run(
        project,
        "Path('a.jl').write_text('x'); open('b.jl', 'ab').close(); open('seeds.csv').read(); "
        "sqlite3.connect('c.db').close()",
    )
    sqlite3.connect(project / "c.db").close()
    assert {path.name for path in Outputs(project).earlier(but=[])} == {"a.jl", "b.jl", "c.db"}


def test_outputs_add_up_over_runs_and_go_with_their_files(project: Path) -> None:
    """A later run adds its own; a file that was deleted is forgotten."""
    run(project, "Path('a.jl').write_text('x'); Path('b.jl').write_text('x')")
    (project / "a.jl").unlink()
    run(project, "Path('c.jl').write_text('x')")
    assert [path.name for path in Outputs(project).earlier(but=[])] == ["b.jl", "c.jl"]


def test_outputs_that_the_command_line_names_are_inputs(project: Path) -> None:
    """One spider's output that is given to the next one travels."""
    run(project, "Path('a.jl').write_text('x'); Path('b.jl').write_text('x')")
    assert [path.name for path in Outputs(project).earlier(but=["SEEDS=./a.jl"])] == ["b.jl"]


def test_outputs_outside_the_project_are_nobody_s_business(project: Path) -> None:
    """Files elsewhere are not remembered."""
    run(project, "Path('../elsewhere.jl').write_text('x')")
    assert Outputs(project).earlier(but=[]) == []


def test_outputs_file_that_is_damaged_counts_as_none(project: Path, tmp_path: Path) -> None:
    """A damaged memory costs a larger bundle, not the crawl."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "outputs.json").write_text("{")
    assert Outputs(project).earlier(but=[]) == []
    run(project, "Path('a.jl').write_text('x')")
    assert [path.name for path in Outputs(project).earlier(but=[])] == ["a.jl"]
