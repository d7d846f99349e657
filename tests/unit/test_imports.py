"""The layers of the package: imports point down only, and the heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import vscrapy

PACKAGE: Final = Path(vscrapy.__file__).parent

#: From top to bottom; what stands in one line does not import each other. The last is ``vscrapy`` itself.
LAYERS: Final = (
    {"__main__"},
    {"cli"},
    {"commands", "testing"},
    {"sender", "worker", "crawl", "preflight"},
    {"home"},
    {"politeness"},
    {"embedded", "internals"},
    {"store"},
    {"bundle"},
    {"config", "stats", "ignore", "localmodules", "valve", "httpcache", "requirements", "labels", "versions"},
    {"wire", "sealed"},
    {"secret"},
    {"keys", "states", "model", "errors", "shown"},
    {""},
)
RANK: Final = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


@dataclass(frozen=True)
class Import:
    """One import, of one name."""

    #: Where: the module's dotted name.
    importer: str
    line: int
    #: What: the dotted name of the module, or of something in it.
    name: str
    #: Is it carried out when the module is imported?
    is_at_import: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.name}"


def modules() -> dict[str, Path]:
    """All modules of the package, by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["vscrapy", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """The imports that a module has, wherever they stand in it."""

    def visit(node: ast.AST, is_at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            is_at_import = False
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            is_at_import = False
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name, is_at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: a relative import"
            yield from (
                Import(module, node.lineno, f"{node.module}.{alias.name}", is_at_import) for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_at_import)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


MODULES: Final = modules()
IMPORTS: Final = [found for module, path in MODULES.items() for found in imports_of(module, path)]


def part_of(name: str) -> str:
    """The part of the package that a module, or a name in it, belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and ".".join(parts[:2]) in MODULES else ""


def own(importer: str = "") -> list[Import]:
    """The imports of our own modules, by one part or by all."""
    return [
        found
        for found in IMPORTS
        if found.name.split(".")[0] == "vscrapy" and (not importer or part_of(found.importer) == importer)
    ]


def of_library(library: str) -> list[Import]:
    """The imports of a library."""
    return [found for found in IMPORTS if found.name.split(".")[0] == library]


def test_every_part_has_a_layer() -> None:
    """A new part is put into the table, and the design."""
    assert {part_of(module) for module in MODULES} == set(RANK)


def test_imports_point_down() -> None:
    """A part imports itself and lower layers, for types as well."""
    wrong = [
        str(found)
        for found in own()
        if part_of(found.name) != part_of(found.importer)
        and RANK[part_of(found.name)] <= RANK[part_of(found.importer)]
    ]
    assert wrong == []


def test_commands_are_imported_by_the_command_line_alone() -> None:
    """A command is a leaf; what helps several, or needs a file of its own, has a name with an underscore."""
    wrong = [
        str(found)
        for found in own()
        if part_of(found.name) == "commands"
        and part_of(found.importer) != "cli"
        and not (part_of(found.importer) == "commands" and found.name.startswith("vscrapy.commands._"))
    ]
    assert wrong == []


def test_redis_is_imported_by_the_store_alone() -> None:
    """Whatever talks to Redis stands in one folder, and its client is imported when somebody asks for something."""
    wrong = [str(found) for found in of_library("redis") if part_of(found.importer) != "store" or found.is_at_import]
    assert wrong == []


def test_scrapy_is_not_imported_by_the_worker() -> None:
    """The agent never imports user code, nor what would; the template does, on purpose, by name."""
    wrong = [
        str(found)
        for found in of_library("scrapy")
        if part_of(found.importer) == "worker" and found.importer != "vscrapy.worker.template"
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "part", ["cli", "__main__", "store", "embedded", "config", "wire", "keys", "states", "model"]
)
def test_scrapy_is_not_imported_with(part: str) -> None:
    """What must be quick, or runs where there is no Scrapy, imports it late or never."""
    wrong = [str(found) for found in of_library("scrapy") if part_of(found.importer) == part and found.is_at_import]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("vscrapy.cli", "scrapy redis twisted"),
        ("vscrapy.sender.headstart", "scrapy redis twisted asyncio tempfile subprocess"),
        ("vscrapy.sender.earlytask", "scrapy redis twisted asyncio tempfile subprocess"),
        ("vscrapy.worker.run", "scrapy"),
        ("vscrapy.worker.agent", "scrapy"),
        ("vscrapy.commands.crawl", "redis packaging.requirements pathspec"),
        ("vscrapy.store.tasks", "scrapy twisted redis"),
        ("vscrapy.crawl.main", "scrapy twisted"),
        ("vscrapy.wire", "scrapy twisted redis"),
    ],
)
def test_import_brings_no(module: str, unwanted: str) -> None:
    """What really is in memory after an import, through all that it imports itself."""
    code = f"import {module}, sys; print(*[name for name in {unwanted.split()} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"vscrapy.__main__"}))
def test_import_installs_no_reactor(module: str) -> None:
    """Each project chooses its own; a module-level import of it would choose for all."""
    wrong = [
        str(found)
        for found in IMPORTS
        if found.importer == module and found.is_at_import and found.name == "twisted.internet.reactor"
    ]
    assert wrong == []
