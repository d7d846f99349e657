"""
Which file says what a project needs.

Most projects have none, and what reads one is imported when there is one. What a file names must be in the bundle;
that is seen when the bundle is made.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from vscrapy import config
from vscrapy.errors import ConfigError
from vscrapy.requirements import PythonNeeded, Requirements

#: In the place of a file's name: the project says nothing of what it needs.
NONE: Final = "none"
#: Files of a project that may say what it needs; the first that does counts.
_FILES: Final = ("requirements.txt", "pyproject.toml", "setup.cfg")


def find(
    project: Path | None,
    *,
    given: str | None = None,
    script: Path | None = None,
    tell: Callable[[str], None],
) -> Requirements | None:
    """
    Read what a project needs; None: nothing says so.

    The first of these counts: *given*, ``[vscrapy] requirements`` of its scrapy.cfg, ``requirements.txt``, the
    dependencies of ``pyproject.toml``, those of ``setup.cfg``; and for a file that runs alone, what it says itself.

    Args:
        project: The directory of its scrapy.cfg; None: there is none.
        given: What ``--requirements`` names, relative to the working directory; ``none``: nothing counts.
        script: The file of ``runspider``.
        tell: Gets a line on what does not count.

    Raises:
        ConfigError: A file cannot be read, a line of it is wrong, or names what lies beside the project.
    """
    root = Path(os.path.realpath(project if project is not None else Path.cwd()))
    if given is None and script is not None:
        from vscrapy.sender.requirementsformats import read_script

        if (needed := read_script(script, root, tell)) is not None:
            return needed
    if given is None and project is not None:
        origin = config.requirements_origin(project / "scrapy.cfg")
        given = str(project / origin) if origin and origin != NONE else origin or None
    if given == NONE:
        return None
    if given is not None:
        from vscrapy.sender.requirementsformats import read, shown

        path = Path(given).absolute()
        return read(path, root, tell) or Requirements(shown(path, root))
    if project is None:
        return None
    for path in (root / name for name in _FILES):
        if path.is_file():
            from vscrapy.sender.requirementsformats import read

            if (needed := read(path, root, tell)) is not None:
                return needed
    return None


def find_python(
    project: Path | None,
    *,
    given: str | None = None,
    script: Path | None = None,
    tell: Callable[[str], None],
) -> PythonNeeded | None:
    """
    Read which Python a project asks for, in its pyproject.toml or in the file that runs alone; None: any.

    Args:
        project, given, script, tell: As :func:`find`.

    What cannot be read does not count: ``scrapy crawl`` never looks at it, and :func:`find` tells where it matters.
    """
    if given is None and project is not None:
        given = config.requirements_origin(project / "scrapy.cfg")
    if given == NONE:
        return None
    try:
        source, asked = _python_asked(project, script)
    except ConfigError:
        return None
    if asked is None:
        return None
    try:
        needed = PythonNeeded.checked(source, asked)
    except ValueError:
        tell(f"{source}: requires-python {asked!r} does not count, for it is no set of versions, as in '>=3.11'")
        return None
    here = platform.python_version()
    if not needed.takes(here):
        tell(f"{source}: requires-python {needed.versions} does not count, for this is Python {here} itself")
        return None
    return needed


def _python_asked(project: Path | None, script: Path | None) -> tuple[str, Any]:
    """What stands for requires-python, and where; None: nothing."""
    if script is not None:
        from vscrapy.sender.requirementsformats import has_metadata, requires_python

        if has_metadata(script):
            return script.name, requires_python(script, is_script=True)
    path = project / "pyproject.toml" if project is not None else None
    if path is None or not path.is_file():
        return "", None
    from vscrapy.sender.requirementsformats import requires_python

    return path.name, requires_python(path, is_script=False)


def require_shipped(requirements: Requirements, shipped: set[str]) -> None:
    """
    See that what lies in the project travels.

    Args:
        shipped: Paths of the files that do, below the project.

    Raises:
        ConfigError: Something does not.
    """
    for path in requirements.paths:
        is_there = path in shipped or any(name.startswith(f"{path}/") for name in shipped)
        if not is_there and path != ".":
            raise ConfigError(
                f"{requirements.source} names {path}, which does not travel: it is not there, or an ignore file "
                f"leaves it out (then the line !/{path} in .vscrapyignore brings it back)"
            )
