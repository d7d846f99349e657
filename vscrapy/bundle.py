"""
A user's project as a manifest and files by content, and back to a directory.

Invariants: the same content gives the same manifest, whatever the machine, the times or the order of the
disk; what ``unpack`` would refuse is refused by ``collect`` already, at the user's terminal; nothing is
written before the whole manifest was checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import Any

from vscrapy.errors import BundleError
from vscrapy.ignore import IGNORE_FILE, Rules, never_travels, rules_above
from vscrapy.localmodules import OutsideRoot
from vscrapy.model import BundleFile, BundleRoot, Manifest, canonical_json

#: Bytes that a bundle may have when nothing is configured: the sum of its files' sizes.
LIMIT_BYTES = 64 * 1024 * 1024

#: Files that a bundle may have.
MOST_FILES = 100_000

#: Name of the setting, and on a worker of the environment variable, that gives another limit; for messages.
LIMIT_SETTING = "VSCRAPY_BUNDLE_LIMIT"

#: Largest files that the message about a bundle over its limit names.
_LARGEST_COUNT = 10

#: Longest name of a file or directory in bytes, on the file systems a worker may have.
_NAME_BYTES = 255

#: Longest path below its root in bytes: a quarter of what Linux takes, macOS takes no more.
_PATH_BYTES = 1000

#: Nanoseconds; a file changed this lately is not remembered, for it may change again within one tick of
#: the disk's clock (FAT: 2 s).
_FRESH_NS = 2_000_000_000

#: Entries of the hash cache; beyond it only those of the last project are kept.
_CACHE_ENTRIES = 100_000

_CACHE_FILE = "bundle-hashes.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ROOT_NAME = re.compile(r"[a-z0-9-]+")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest, and where its content lies on this machine."""

    manifest: Manifest
    #: SHA-256 -> a local file that had this content when it was read.
    paths: Mapping[str, Path]


def collect(
    project_dir: Path,
    *,
    working_directory: Path,
    outside_roots: Sequence[OutsideRoot] = (),
    cache_dir: Path | None = None,
    limit_bytes: int = LIMIT_BYTES,
    exclude: Collection[Path] = (),
    stand_in: Callable[[Path], Path] | None = None,
) -> Bundle:
    """
    List and hash the files of a project, without those that its ignore files or vscrapy leave out.

    Links are followed, except into a directory that they lie in; dangling ones are left out.

    Args:
        working_directory: A directory in the project, which the crawl is to run in.
        outside_roots: What ``localmodules.find_outside_roots`` gave; their order is the order on ``sys.path``.
        cache_dir: Where to remember hashes; without it every file is read.
        exclude: Files and directories that this very run writes.
        stand_in: Names the file that travels in the place of the one it is given, under its name: its
            content and mode, as long as the bundle is in use. What needs no other is given back.

    Raises:
        BundleError: A file cannot be read, has a name that cannot travel, or the bundle is over its limit.
    """
    project = _real_directory(project_dir)
    left_out = frozenset(os.path.realpath(path) for path in exclude)
    found = {"project": sorted(_walk(_start(project), left_out), key=_by_name)}
    for number, root in enumerate(outside_roots):
        found[f"outside-{number}"] = sorted(_walk_outside(root, left_out), key=_by_name)
    _require_size([file for files in found.values() for file in files], limit_bytes)
    if stand_in is not None:
        found = {name: [_replaced(file, stand_in) for file in files] for name, files in found.items()}
    with _hash_cache(cache_dir) as hashes:
        roots = {name: [(file, _hashed(file, hashes)) for file in files] for name, files in found.items()}
    manifest = Manifest(
        roots=tuple(BundleRoot(name, True, tuple(file for _, file in pairs)) for name, pairs in roots.items()),
        working_directory=_below(project, working_directory),
    )
    check(manifest, limit_bytes)
    return Bundle(manifest, {file.sha256: at.path for pairs in roots.values() for at, file in pairs})


def unpack(manifest: Manifest, fetch: Callable[[str], bytes], target: Path, *, limit_bytes: int) -> None:
    """
    Write the files of a bundle below *target*, one directory a root.

    Content is verified file by file: after a BundleError about content, *target* holds a part
    of the bundle and is to be removed.

    Args:
        fetch: SHA-256 -> the content; called once a file, so equal files ask twice.
        target: A directory that does not exist, or is empty.

    Raises:
        BundleError: A name, size or sum of the manifest is refused (nothing was written), the
            content is not what the manifest says, or the disk refuses a file.
    """
    check(manifest, limit_bytes)
    _require_empty(target)
    made: set[str] = set()
    for root in manifest.roots:
        for file in root.files:
            # os.path, for a Path takes as long as the file
            write(os.path.join(target, root.name, file.path), file, fetch(file.sha256), made)
    with _disk_errors_named(target):
        for root in manifest.roots:
            (target / root.name).mkdir(exist_ok=True)
        (target / manifest.roots[0].name / manifest.working_directory).mkdir(parents=True, exist_ok=True)


def write(path: str, file: BundleFile, content: bytes, made: set[str]) -> None:
    """
    Write one file of a bundle where nothing is.

    Args:
        made: Directories that are there for sure; that of the file is added.

    Raises:
        BundleError: The content is not what the manifest says, or the disk refuses it.
    """
    if len(content) != file.size_bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        raise BundleError(f"{file.path} is not what the manifest says; send the task again.")
    _make_parent(path, made)
    _write_new(path, content, mode=mode_of(file))


def mode_of(file: BundleFile) -> int:
    """Permissions that a file is unpacked with."""
    return 0o755 if file.is_executable else 0o644


def manifest_to_json(manifest: Manifest) -> str:
    """Write a manifest as canonical JSON."""
    return canonical_json(asdict(manifest))


def manifest_from_json(text: str) -> Manifest:
    """
    Read what ``manifest_to_json`` wrote; names and sums are checked by ``unpack``.

    Raises:
        BundleError: Not JSON, a key too many or too few, a wrong type, an impossible hash or size.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"The manifest is not JSON: {error}") from error
    record = _record(data, "manifest", {"roots": list, "working_directory": str})
    return Manifest(tuple(_root_from(root) for root in record["roots"]), record["working_directory"])


def tree_hash(manifest: Manifest) -> str:
    """SHA-256 of the canonical JSON, in hex: two bundles with the same hash unpack to the same files."""
    return hashlib.sha256(manifest_to_json(manifest).encode()).hexdigest()


# --- The walk


@dataclass(frozen=True, slots=True)
class _Found:
    """One file on this machine that is to travel."""

    #: Path below its root, with ``/``.
    name: str
    path: Path
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class _Directory:
    """One directory of the walk."""

    #: Where the walk came along, through links; rules see this path.
    path: Path
    #: Path below its root, with ``/`` at its end; empty for the root.
    prefix: str
    rules: Rules
    #: Its real path, and those of all that it lies in, links counted: none of them is entered again.
    real: str
    chain: frozenset[str]
    #: The root's real path, for links into its history or secrets.
    root: Path
    is_ignored: bool = False


def _by_name(file: _Found) -> str:
    return file.name


def _start(root: Path) -> _Directory:
    chain = frozenset(str(path) for path in (root, *root.parents))
    return _Directory(root, "", rules_above(root), str(root), chain, root)


def _walk(directory: _Directory, left_out: frozenset[str]) -> Iterator[_Found]:
    """Yield the files below a directory that are to travel."""
    rules = directory.rules if directory.is_ignored else directory.rules.inside(directory.path)
    with _disk_errors_named(directory.path):
        entries = sorted(os.scandir(directory.path), key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        status = _status(path, directory, left_out, is_link=entry.is_symlink())
        if status is None:
            continue
        is_directory = stat.S_ISDIR(status.st_mode)
        is_ignored = rules.is_ignored(path, is_directory=is_directory, is_parent_ignored=directory.is_ignored)
        if is_directory and (not is_ignored or rules.leads_through(path)):
            yield from _descend(directory, path, rules, is_ignored, left_out)
        elif not is_directory and not is_ignored:
            yield _Found(directory.prefix + entry.name, path, status)


def _descend(
    parent: _Directory, path: Path, rules: Rules, is_ignored: bool, left_out: frozenset[str]
) -> Iterator[_Found]:
    """Walk a directory within another, unless the way leads in a circle or into a virtual environment."""
    real = os.path.realpath(path)
    if real in parent.chain or (path / "pyvenv.cfg").exists():
        return
    prefix, chain = f"{parent.prefix}{path.name}/", parent.chain | {real}
    yield from _walk(_Directory(path, prefix, rules, real, chain, parent.root, is_ignored), left_out)


def _walk_outside(root: OutsideRoot, left_out: frozenset[str]) -> Iterator[_Found]:
    """Yield the files of the named packages and modules; they were imported, so no rule drops one whole."""
    start = _start(_real_directory(root.directory))
    rules = start.rules.inside(start.path)
    for name in root.names:
        modules = [start.path / f"{name}{suffix}" for suffix in (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)]
        present = [path for path in modules if path.is_file()]
        if (start.path / name).is_dir():
            present.append(start.path / name)
        if not present:
            raise BundleError(f"The module {name} was imported from {start.path}, but is not there.")
        for path in present:
            status = _status(path, start, left_out, is_link=path.is_symlink())
            if status is not None and stat.S_ISDIR(status.st_mode):
                yield from _descend(start, path, rules, False, left_out)
            elif status is not None:
                yield _Found(path.name, path, status)


def _status(path: Path, parent: _Directory, left_out: frozenset[str], *, is_link: bool) -> os.stat_result | None:
    """Look at a file or directory, through links; None for what never travels, whatever the rules say."""
    real = os.path.realpath(path) if is_link else os.path.join(parent.real, path.name)
    if real in left_out or never_travels(path.name) or (is_link and _is_secret(Path(real), parent.root)):
        return None
    try:
        status = path.stat()
    except OSError as error:
        if is_link:  # Dangling or in a circle: editors lock files with such links.
            return None
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    return status if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) else None


def _is_secret(real: Path, root: Path) -> bool:
    parts = real.relative_to(root).parts if real.is_relative_to(root) else (real.name,)
    return any(never_travels(part) for part in parts)


def _replaced(file: _Found, stand_in: Callable[[Path], Path]) -> _Found:
    """Take the content of another file, if there is one for this."""
    with _disk_errors_named(file.path):
        path = stand_in(file.path)
        return file if path == file.path else replace(file, path=path, status=path.stat())


def _real_directory(path: Path) -> Path:
    real = Path(os.path.realpath(path))
    if not real.is_dir():
        raise BundleError(f"{path} is not a directory.")
    return real


def _below(project: Path, working_directory: Path) -> str:
    real = Path(os.path.realpath(working_directory))
    if not real.is_relative_to(project):
        raise BundleError(f"The working directory {working_directory} is not in the project {project}.")
    return real.relative_to(project).as_posix()


def _require_size(files: list[_Found], limit_bytes: int) -> None:
    """Refuse a bundle over its limit, before its files are read."""
    total = sum(file.status.st_size for file in files)
    if total <= limit_bytes:
        return
    largest = sorted(files, key=lambda file: (-file.status.st_size, file.path))[:_LARGEST_COUNT]
    first, lines = largest[0], [f"{_mebibytes(file.status.st_size):>12}  {file.path}" for file in largest]
    ignore_file = Path(str(first.path).removesuffix(first.name)) / IGNORE_FILE
    raise BundleError(
        f"The project has {_mebibytes(total)} in {len(files)} files, the limit {LIMIT_SETTING} is "
        f"{_mebibytes(limit_bytes)}: put what the spiders do not read into {IGNORE_FILE} (for example the line "
        f"/{first.name} into {ignore_file}), or raise the limit. The largest files:\n" + "\n".join(lines)
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024 / 1024:.1f} MiB" if size_bytes >= 1024 * 1024 else f"{size_bytes} bytes"


# --- Hashes


class _Hashes:
    """Hashes of files that have not changed since; a cache that cannot be used is an empty one."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known
        self.entries: dict[str, list[int | str]] = {}

    def get(self, file: _Found) -> str | None:
        """Return the hash of an unchanged file, and keep it for the next time."""
        entry = self._known.get(str(file.path))
        match entry:
            case [*key, str(sha256)] if key == _cache_key(file.status) and _SHA256.fullmatch(sha256):
                self.entries[str(file.path)] = entry
                return sha256
        return None

    def put(self, file: _Found, sha256: str) -> None:
        """Remember the hash of a file that was just read, unless it is fresh."""
        if time.time_ns() - file.status.st_mtime_ns > _FRESH_NS:
            self.entries[str(file.path)] = [*_cache_key(file.status), sha256]

    def merged(self) -> dict[str, Any] | None:
        """Return all there is to remember, other projects' too; None when that is known already."""
        if all(self._known.get(path) == entry for path, entry in self.entries.items()):
            return None
        merged = {**self._known, **self.entries}
        return merged if len(merged) <= _CACHE_ENTRIES else dict(self.entries)


def _cache_key(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino]


@contextlib.contextmanager
def _hash_cache(cache_dir: Path | None) -> Iterator[_Hashes]:
    """Lend the cache, and write it once all is hashed."""
    hashes = _Hashes({} if cache_dir is None else _read_cache(cache_dir / _CACHE_FILE))
    yield hashes
    merged = hashes.merged()
    if cache_dir is not None and merged is not None:
        with contextlib.suppress(OSError):
            _write_cache(cache_dir / _CACHE_FILE, merged)


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(path: Path, entries: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(handle, "w", encoding="ascii") as stream:
            json.dump(entries, stream)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _hashed(file: _Found, hashes: _Hashes) -> BundleFile:
    """Describe a file by its content; a file that grows meanwhile is described as it was read."""
    sha256, size_bytes = hashes.get(file), file.status.st_size
    if sha256 is None:
        with _disk_errors_named(file.path), open(file.path, "rb", buffering=0) as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size_bytes = stream.tell()
        if size_bytes == file.status.st_size:
            hashes.put(file, sha256)
    return BundleFile(file.name, sha256, size_bytes, bool(file.status.st_mode & stat.S_IXUSR))


# --- What a manifest may say


def check(manifest: Manifest, limit_bytes: int) -> None:
    """
    Refuse a manifest that would write beyond its directory, twice to one place, or over the limit.

    Raises:
        BundleError: Says which name, size or sum it is.
    """
    if not manifest.roots:
        raise BundleError("The manifest has no root.")
    n_files = sum(len(root.files) for root in manifest.roots)
    if n_files > MOST_FILES:
        raise BundleError(f"The bundle has {n_files} files; the most are {MOST_FILES}. Put some into {IGNORE_FILE}.")
    sizes: dict[str, int] = {}
    for index, root in enumerate(manifest.roots):
        if not _ROOT_NAME.fullmatch(root.name):
            raise BundleError(f"The manifest's root {root.name!r} has more than a-z, 0-9 and - in its name.")
        if root.name in (other.name for other in manifest.roots[:index]):
            raise BundleError(f"The manifest has two roots with the name {root.name}.")
        _check_names(root, manifest.working_directory if index == 0 else ".")
        for file in root.files:
            _check_content(file)
            if sizes.setdefault(file.sha256, file.size_bytes) != file.size_bytes:
                raise BundleError(f"The manifest gives {file.path} another size than an equal file.")
    if manifest.size_bytes > limit_bytes:
        raise BundleError(
            f"The bundle has {_mebibytes(manifest.size_bytes)}, the limit {LIMIT_SETTING} is "
            f"{_mebibytes(limit_bytes)}."
        )


def _check_content(file: BundleFile) -> None:
    if not _SHA256.fullmatch(file.sha256):
        raise BundleError(f"The manifest gives {file.path!r} a hash that is none: {file.sha256!r}.")
    if file.size_bytes < 0:
        raise BundleError(f"The manifest gives {file.path!r} a size below zero: {file.size_bytes}.")


def _check_names(root: BundleRoot, working_directory: str) -> None:
    """Refuse names that lead elsewhere, and two that one file system or another takes for the same."""
    spellings: dict[str, tuple[str, bool]] = {}
    names = [(file.path, True) for file in root.files]
    if working_directory != ".":
        names.append((working_directory, False))
    for name, is_file in names:
        _check_name(name)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            place, is_leaf = "/".join(parts[:depth]), is_file and depth == len(parts)
            other, is_other_leaf = spellings.setdefault(_folded(place), (place, is_leaf))
            if other != place:
                raise BundleError(
                    f"{other!r} and {place!r} are the same name on some file systems; rename one, "
                    f"or put it into {IGNORE_FILE}."
                )
            if is_leaf != is_other_leaf:
                raise BundleError(f"The manifest has {place!r} as a file and as a directory.")
    if len({file.path for file in root.files}) != len(root.files):
        raise BundleError(f"The manifest has one file twice in the root {root.name}.")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if len(name.encode("utf-8", "surrogatepass")) > _PATH_BYTES:
        raise BundleError(f"The name {name[:80]!r}… is longer than {_PATH_BYTES} bytes.")
    is_safe = "\\" not in name and "\0" not in name and not {"", ".", ".."}.intersection(parts)
    if not is_safe or any(_DRIVE.match(part) or not _is_writable(part) for part in parts):
        raise BundleError(f"The name {name!r} cannot travel; rename the file, or put it into {IGNORE_FILE}.")


def _is_writable(part: str) -> bool:
    try:
        return len(part.encode("utf-8", "surrogateescape")) <= _NAME_BYTES
    except UnicodeEncodeError:
        return False


def _folded(name: str) -> str:
    """Fold what file systems fold: case, and how an accented letter is composed."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _root_from(data: object) -> BundleRoot:
    record = _record(data, "root", {"name": str, "is_import_root": bool, "files": list})
    files = tuple(_file_from(file) for file in record["files"])
    return BundleRoot(record["name"], record["is_import_root"], files)


def _file_from(data: object) -> BundleFile:
    kinds = {"path": str, "sha256": str, "size_bytes": int, "is_executable": bool}
    file = BundleFile(**_record(data, "file", kinds))
    _check_content(file)
    return file


def _record(data: object, what: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Require an object with exactly these keys and types."""
    if not isinstance(data, dict) or data.keys() != kinds.keys():
        raise BundleError(f"The manifest is malformed: a {what} has exactly the keys {', '.join(kinds)}.")
    for key, kind in kinds.items():
        if type(data[key]) is not kind:  # Not isinstance: True is an int.
            raise BundleError(f"The manifest is malformed: {key} of a {what} is {data[key]!r:.80}.")
    return data


# --- Writing


def _require_empty(target: Path) -> None:
    if target.is_symlink():
        raise BundleError(f"{target} is a link; a bundle is unpacked into a new directory.")
    with _disk_errors_named(target):
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise BundleError(f"{target} is not empty; a bundle is unpacked into a new directory.")


def _make_parent(path: str, made: set[str]) -> None:
    """Make the directory of a file, unless it was made before."""
    parent = os.path.dirname(path)
    if parent not in made:
        with _disk_errors_named(path):
            os.makedirs(parent, exist_ok=True)
        made.add(parent)


def _write_new(path: str, content: bytes, *, mode: int) -> None:
    with _disk_errors_named(path):
        with open(path, "xb") as stream:  # x: never through a link, never over a file.
            os.fchmod(stream.fileno(), mode)
            stream.write(content)


@contextlib.contextmanager
def _disk_errors_named(path: Path | str) -> Iterator[None]:
    """Turn the system's refusal of a file into an error that names it."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} cannot be used: {error.strerror or error}.") from error
