"""
The local modules that a crawl needs, and the directories that they are imported from.

Local is what is neither Python's own nor installed: it travels, or the worker could not import it.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

#: Names of the directories that installers fill, in any environment.
_INSTALL_NAMES = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class OutsideRoot:
    """A directory beyond the project that local modules were imported from."""

    directory: Path
    #: The top-level packages and modules that were imported; only these travel.
    names: tuple[str, ...]


def find_outside_roots(project_dir: Path, modules: Mapping[str, ModuleType]) -> list[OutsideRoot]:
    """
    Name the directories beyond the project that local modules were imported from.

    Local is what is neither Python's own nor installed: siblings of the project, PYTHONPATH,
    editable installs. A module whose file does not lie where its name says is left out.

    Args:
        modules: ``sys.modules``, once the project is loaded.

    Returns:
        The roots in the order of ``sys.path``, those that are not on it last.
    """
    names: dict[Path, set[str]] = {}
    for name, module in list(modules.items()):
        top = name.partition(".")[0]
        directory = _import_directory(name, module)
        if directory is not None and top not in ("vscrapy", "__main__", "__mp_main__"):
            names.setdefault(directory, set()).add(top)
    local = _local_directories(names, Path(os.path.realpath(project_dir)))
    order = {os.path.realpath(entry): index for index, entry in reversed(list(enumerate(sys.path)))}
    merged: dict[Path, set[str]] = {}
    for directory in sorted(local, key=lambda path: (order.get(os.path.realpath(path), len(order)), path)):
        merged.setdefault(Path(os.path.realpath(directory)), set()).update(names[directory])
    return [OutsideRoot(directory, tuple(sorted(tops))) for directory, tops in merged.items()]


def find_project_paths(project_dir: Path, search_path: Sequence[str], shipped: Collection[str]) -> list[str]:
    """
    Name the directories in the project, except itself, that its modules are imported from (``src`` layouts).

    Args:
        search_path: ``sys.path``, once the project is loaded; relative entries are below the working directory.
        shipped: The paths of the project's files that travel, below it, with ``/``: an entry without any
            (the project's virtual environment) would be no use on a worker.

    Returns:
        Paths below the project, with ``/``, in the order of *search_path*, each once.
    """
    project = Path(os.path.realpath(project_dir))
    found: dict[str, None] = {}
    for entry in search_path:
        # As it is spelled, too: a link in the project to a directory beyond it travels as a directory.
        spellings = [Path(os.path.abspath(entry)), Path(os.path.realpath(entry))]
        inside = [path for path in spellings if path != project and path.is_relative_to(project)]
        name = inside[0].relative_to(project).as_posix() if inside else ""
        # A zip archive may be such an entry, hence the equality.
        if name and any(file == name or file.startswith(f"{name}/") for file in shipped):
            found[name] = None
    return list(found)


def is_local(path: Path) -> bool:
    """Is a module's file neither Python's own nor installed, as it is spelled and as links lead?"""
    around = {*Path(os.path.abspath(path)).parents, *Path(os.path.realpath(path)).parents}
    return not (around & _library_directories() or any(parent.name in _INSTALL_NAMES for parent in around))


def _import_directory(name: str, module: ModuleType) -> Path | None:
    """Return the directory on ``sys.path`` that a module came from, if its file lies where its name says."""
    # From its dictionary: a lazy module's __getattr__ would import.
    origin = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(origin, str):
        return None
    file, parts = Path(os.path.abspath(origin)), name.split(".")
    stem = file.name.partition(".")[0]
    place = file.parent if stem == "__init__" else file.parent / stem
    return place.parents[len(parts) - 1] if place.parts[-len(parts) :] == tuple(parts) else None


@cache
def _library_directories() -> frozenset[Path]:
    """Name the directories of Python itself and of what is installed, as they are spelled and as they are."""
    paths = sysconfig.get_paths()
    names = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    names.update(site.getsitepackages(), [site.getusersitepackages()])
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        names.update(os.path.join(prefix, library) for library in ("lib", "lib64", "Lib"))
    return frozenset(Path(path) for name in names for path in (os.path.abspath(name), os.path.realpath(name)))


def _local_directories(directories: Iterable[Path], project: Path) -> list[Path]:
    """Keep what is neither in the project nor, as it is spelled or as links lead, among the libraries."""
    libraries, local = _library_directories(), []
    for directory in directories:
        real = Path(os.path.realpath(directory))
        around = {directory, *directory.parents, real, *real.parents}
        is_installed = around & libraries or any(path.name in _INSTALL_NAMES for path in around)
        if not is_installed and real.is_dir() and not real.is_relative_to(project):
            local.append(directory)
    return local
