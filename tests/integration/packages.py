"""Packages for tests, made on the spot: wheels, and sources whose build says what it sees."""

from __future__ import annotations

import base64
import hashlib
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final


def write_wheel(
    directory: Path, name: str, version: str = "1.0", *, needs: Sequence[str] = (), code: str = ""
) -> Path:
    """
    Write a wheel with one module of the package's name, which knows its ``VERSION``.

    Args:
        needs: What it requires, as PEP 508 has it.
        code: More of the module.
    """
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n{code}",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},sha256={_sum(text)},{len(text)}\n" for file, text in files.items())
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return path


def _sum(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def write_source(directory: Path, name: str, *, at_build: str) -> None:
    """
    Write a package as sources, which needs nothing to be built.

    Args:
        at_build: What its build does first: Python, as the body of a function that returns the module's text.
    """
    directory.mkdir(parents=True)
    (directory / "pyproject.toml").write_text(
        textwrap.dedent(f"""
            [build-system]
            requires = []
            build-backend = "backend"
            backend-path = ["."]
            [project]
            name = "{name}"
            version = "1.0"
        """)
    )
    body = textwrap.indent(textwrap.dedent(at_build).strip(), "    ")
    (directory / "backend.py").write_text(
        f"import zipfile\n\n\ndef module():\n{body}\n\n\n" + _BACKEND.replace("NAME", name)
    )


#: Builds the wheel of the package NAME.
_BACKEND: Final = """
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name, info = "NAME-1.0-py3-none-any.whl", "NAME-1.0.dist-info"
    with zipfile.ZipFile(directory + "/" + name, "w") as archive:
        archive.writestr("NAME.py", module())
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return name
"""
