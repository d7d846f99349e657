"""
The sources of the project's classes, each file read and parsed once.

Files of installed packages, of Python and of vscrapy are not looked at; a source that is missing, or is not
what was imported, counts as not there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

from vscrapy.localmodules import is_local

#: The comment that keeps a line from being named.
_SUPPRESSED: Final = re.compile(r"#\s*vscrapy:\s*ok\b", re.IGNORECASE)
#: Packages that are not the user's, even if they are installed editable.
_NOT_THEIRS: Final = frozenset({"scrapy", "vscrapy", "twisted"})
#: What makes a list, a set, a dictionary or the like.
_CONTAINERS: Final = frozenset({"list", "set", "dict", "defaultdict", "Counter", "OrderedDict", "deque", "bytearray"})


@dataclass(frozen=True)
class Module:
    """A file of the project."""

    path: Path
    tree: ast.Module
    lines: tuple[str, ...]

    def is_suppressed(self, line: int) -> bool:
        """Does the line say ``# vscrapy: ok``?"""
        return 0 < line <= len(self.lines) and bool(_SUPPRESSED.search(self.lines[line - 1]))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that assignments at the top of the module make."""
        return frozenset(name for node in self.tree.body for name, _ in assigned(node))

    @cached_property
    def containers(self) -> frozenset[str]:
        """Those of them that are lists, sets, dictionaries or the like."""
        return frozenset(
            name for node in self.tree.body for name, value in assigned(node) if value and is_container(value)
        )

    @cached_property
    def functions(self) -> frozenset[str]:
        """The functions at the top of the module."""
        return frozenset(
            node.name for node in self.tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )


@dataclass(frozen=True)
class Part:
    """A class of the project, as it is written."""

    module: Module
    node: ast.ClassDef


class Sources:
    """Finds classes in files; remembers the files for as long as it lives."""

    def __init__(self) -> None:
        self._modules: dict[str, Module | None] = {}

    def parts(self, cls: type) -> list[Part]:
        """The class and its bases, as far as they are the project's, in the order of their methods."""
        found = [self._part(base.__module__, base.__qualname__) for base in cls.__mro__]
        return [part for part in found if part is not None]

    def parts_of(self, path: str) -> list[Part]:
        """
        The same for a class that a setting names.

        It is not imported: that may take long, and installs a reactor where the module imports one. So its bases
        are those that are written in its file, or imported there by name.
        """
        module, _, name = path.rpartition(".")
        loaded = getattr(sys.modules.get(module), "__dict__", {}).get(name)
        if isinstance(loaded, type):
            return self.parts(loaded)
        found: dict[str, Part] = {}
        left = [(module, name)]
        while left:
            module, name = left.pop(0)
            part = self._part(module, name)
            if part is not None and f"{module}.{name}" not in found:
                found[f"{module}.{name}"] = part
                left.extend(_bases(part, module))
        return list(found.values())

    def module(self, name: str) -> Module | None:
        """The file of a module; None: it is not the project's, or has no source."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> Module | None:
        if not name or name.partition(".")[0] in _NOT_THEIRS:
            return None
        path = _file(name)
        if path is None or path.suffix != ".py" or not is_local(path):
            return None
        try:
            content = path.read_bytes()
            tree = ast.parse(content, path)
        except (OSError, SyntaxError, ValueError, RecursionError):
            return None
        # As ast counts lines, not as str.splitlines does.
        lines = re.split(r"\r\n|\r|\n", content.decode("utf-8", "replace"))
        return Module(path, tree, tuple(lines))

    def _part(self, module_name: str, qualname: str) -> Part | None:
        module = self.module(module_name)
        if module is None or "<locals>" in qualname:
            return None
        body: list[ast.stmt] = module.tree.body
        node: ast.ClassDef | None = None
        for name in qualname.split("."):
            # The last one of a name is the one that is bound to it.
            node = next((child for child in reversed(_classes(body)) if child.name == name), None)
            if node is None:
                return None
            body = node.body
        return Part(module, node) if node is not None else None


def _file(name: str) -> Path | None:
    """The file of a module, which need not have been imported, nor is."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if isinstance(file, str) else None
    search: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for index in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: index + 1]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _bases(part: Part, module: str) -> list[tuple[str, str]]:
    """The modules and names of a class's bases."""
    imported: dict[str, tuple[str, str]] = {}
    for node in part.module.tree.body:
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                # A package's own name is that of its __init__.py.
                is_package = part.module.path.stem == "__init__"
                package = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                source = ".".join([*package, *([source] if source else [])])
            imported.update({alias.asname or alias.name: (source, alias.name) for alias in node.names})
    names = [base.id for base in part.node.bases if isinstance(base, ast.Name)]
    return [imported.get(name, (module, name)) for name in names]


def _classes(body: list[ast.stmt]) -> list[ast.ClassDef]:
    """The classes in a block; those below an ``if`` or ``try``, too."""
    found: list[ast.ClassDef] = []
    for node in body:
        if isinstance(node, ast.ClassDef):
            found.append(node)
        elif isinstance(node, ast.If | ast.Try):
            found.extend(_classes([*node.body, *node.orelse]))
    return found


def assigned(node: ast.stmt) -> list[tuple[str, ast.expr | None]]:
    """The plain names that a statement assigns to, each with its value where it is alone."""
    if isinstance(node, ast.Assign):
        found: list[tuple[str, ast.expr | None]] = []
        for target in node.targets:
            if isinstance(target, ast.Name):
                found.append((target.id, node.value))
            elif isinstance(target, ast.Tuple | ast.List):
                found.extend((item.id, None) for item in target.elts if isinstance(item, ast.Name))
        return found
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [(node.target.id, node.value)]
    return []


def is_container(value: ast.expr) -> bool:
    """Is it surely a list, a set, a dictionary or the like?"""
    if isinstance(value, ast.List | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp):
        return True
    if isinstance(value, ast.BoolOp):
        return any(is_container(operand) for operand in value.values)
    if isinstance(value, ast.IfExp):
        return is_container(value.body) or is_container(value.orelse)
    return isinstance(value, ast.Call) and tail(value.func) in _CONTAINERS


def tail(node: ast.expr) -> str:
    """The last name of a dotted one."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.expr) -> str:
    """A dotted name; "" for what is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return ""
