"""The documents, held against the code: the map, the settings, the exit codes, and what they point to."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.unit.test_imports import LAYERS
from vscrapy import errors

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "vscrapy"
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE: Final = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

#: Folders with files of ours; nothing that tools make.
FOLDERS: Final = ("vscrapy", "tests", "docs", "example_project")
#: ``file.py:name``, with or without a folder, as the documents refer to code.
REFERENCE: Final = re.compile(r"`([\w/]+\.(?:py|lua))(?::([\w.]+))?`")
#: Lines of prose that have so many characters at their beginning in common say the same (characters).
ALIKE: Final = 40
VARIABLE: Final = re.compile(r"\bVSCRAPY_[A-Z_]*[A-Z]\b")


def markdown() -> list[Path]:
    """All Markdown files of the repository."""
    folders = [ROOT / name for name in FOLDERS]
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def sources() -> list[Path]:
    """All text files of ours, but for this one, which must spell what it forbids."""
    suffixes = {".py", ".lua", ".md", ".cfg", ".toml", ".sh", ".txt"}
    found = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.suffix in suffixes]
    found += [path for path in ROOT.iterdir() if path.suffix in suffixes or path.name == "Makefile"]
    return sorted(path for path in found if path.is_file() and path != Path(__file__))


def section(text: str, title: str) -> str:
    """The text under one heading, up to the next one of its level."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a text, heads and rules left out."""
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        if line.startswith("|") and not line.startswith("| ---") and not following.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def tables(text: str) -> list[str]:
    """Each table of a text by itself."""
    return re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)


def without_blocks(text: str) -> str:
    """A Markdown text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def without_code(text: str) -> str:
    """A Markdown text without its code, where brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", without_blocks(text))


def anchors(path: Path) -> set[str]:
    """The anchors that the headings of a Markdown file make."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def names_in(path: Path) -> frozenset[str]:
    """The classes, functions, methods and constants of a module, methods with their class's name in front."""

    def visit(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id
            if isinstance(node, ast.Assign):
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    return frozenset(visit(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def test_map_names_each_module_and_script_once() -> None:
    """The map in ARCHITECTURE.md has exactly the Python modules and Lua scripts that there are."""
    named = [cells[0].strip("`") for cells in rows(section(ARCHITECTURE, "The map")) if cells[0].startswith("`")]
    there = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.suffix in (".py", ".lua")]
    assert sorted(named) == sorted(there)


def test_import_rule_is_told_once_and_is_that_of_the_table() -> None:
    """The paragraph in ARCHITECTURE.md names the layers as tests/unit/test_imports.py has them, top to bottom."""
    told = re.findall(r"Imports point down only: (.+?)\. ", ARCHITECTURE, flags=re.DOTALL)
    assert len(told) == 1
    layers = [set(re.findall(r"`(\w+)`", layer)) for layer in re.split(r",\s+then\s+", told[0])]
    assert layers == [layer for layer in LAYERS if layer not in ({"__main__"}, {""})]


@pytest.mark.parametrize("path", markdown(), ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_have_each_row_once(path: Path) -> None:
    """No table explains one word, setting, code or file twice; a merge of two versions of a row leaves both."""
    wrong = []
    for table in tables(path.read_text(encoding="utf-8")):
        first = [cells[0] or cells[1] for cells in rows(table)]
        wrong += [word for word, count in Counter(first).items() if count > 1]
    assert wrong == []


@pytest.mark.parametrize("path", markdown(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_says_nothing_twice(path: Path) -> None:
    """No two lines of text begin alike: so do the pieces of a paragraph of which a merge has left two versions."""
    lines = without_blocks(path.read_text(encoding="utf-8")).splitlines()
    beginnings = Counter(line[:ALIKE] for line in lines if len(line) > ALIKE and not line.startswith("|"))
    assert [beginning for beginning, count in beginnings.items() if count > 1] == []


@pytest.mark.parametrize("path", markdown(), ids=lambda path: str(path.relative_to(ROOT)))
def test_references_to_code_exist(path: Path) -> None:
    """Each file that a document names is there, with the name in it that is given."""
    wrong = []
    for file, name in REFERENCE.findall(path.read_text(encoding="utf-8")):
        found = [
            place / file
            for place in (PACKAGE, PACKAGE / "store/scripts", ROOT, path.parent)
            if (place / file).exists()
        ]
        if not found and "/" not in file and name == "":
            continue  # A name without a folder may be one of the project's, such as settings.py.
        if not found or (name and name not in names_in(found[0])):
            wrong.append(f"{file}:{name}")
    assert wrong == []


@pytest.mark.parametrize("path", markdown(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    """A link to another file, or to a heading, leads somewhere."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_settings_and_variables_are_documented_both_ways() -> None:
    """Every VSCRAPY_... in the code stands in the README, and the README has no other."""
    code = {name for path in PACKAGE.rglob("*.py") for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert set(VARIABLE.findall(README)) == code
    tables = {cells[0].strip("`") for cells in rows(section(README, "Configuration"))}
    assert {name for name in tables if name.startswith("VSCRAPY_")} == code


def test_exit_codes_are_those_of_the_errors() -> None:
    """The table of exit codes names each error once, in the row of its code."""
    documented = {
        name: int(cells[0])
        for cells in rows(section(README, "Exit codes"))
        if cells[0].isdecimal()
        for name in re.findall(r"`(\w+)`", cells[1])
    }
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.VscrapyError)
    }
    assert documented == found


def test_decisions_are_all_in_their_index() -> None:
    """The index has each decision once, in the order of their numbers."""
    folder = ROOT / "docs" / "adr"
    named = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert named == sorted(path.name for path in folder.glob("[0-9]*.md"))


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    """What is published names no home directory, and no place where it was made."""
    private = re.compile(r"(?<![\w.~*$}])/(?:(?:home|Users)/[a-z]\w*|root|work)/")
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in sources()
        for found in private.finditer(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []
