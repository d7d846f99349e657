"""What travels with a project, what does not, and what ``unpack`` refuses to write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vscrapy import bundle
from vscrapy.errors import BundleError
from vscrapy.localmodules import OutsideRoot, find_outside_roots, find_project_paths
from vscrapy.model import BundleFile, BundleRoot, Manifest

MIB = 1024 * 1024

#: Seconds since 1970, long past: such a file's hash is remembered.
OLD = 1_000_000_000


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def collect(project: Path, **options: Any) -> bundle.Bundle:
    return bundle.collect(project, **{"working_directory": project, **options})


def shipped(project: Path, **options: Any) -> list[str]:
    """Names in the project's root, without the ignore files themselves."""
    files = collect(project, **options).manifest.roots[0].files
    return [file.path for file in files if Path(file.path).name not in (".gitignore", ".vscrapyignore")]


def manifest_of(*names: str, **fields: Any) -> Manifest:
    files = tuple(BundleFile(name, hashlib.sha256(b"x").hexdigest(), 1) for name in names)
    return Manifest((BundleRoot("project", True, files),), **fields)


def unpack(manifest: Manifest, target: Path, *, content: bytes = b"x", limit_bytes: int = MIB) -> Path:
    bundle.unpack(manifest, lambda sha256: content, target, limit_bytes=limit_bytes)
    return target


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "project", {"scrapy.cfg": "[settings]", "books/spiders/one.py": "ONE = 1"})


class TestCollect:
    def test_collect_lists_files_sorted_by_name(self, project: Path) -> None:
        """The files of the project are listed by their path, in order."""
        write(project, {"books.txt": "", "books/a.py": ""})
        assert shipped(project) == ["books.txt", "books/a.py", "books/spiders/one.py", "scrapy.cfg"]

    def test_collect_gives_the_same_manifest_at_another_time_and_place(self, project: Path, tmp_path: Path) -> None:
        """Neither times nor the place of the project show in the manifest."""
        other = shutil.copytree(project, tmp_path / "elsewhere" / "copy")
        for path in other.rglob("*.py"):
            os.utime(path, (OLD, OLD))
        assert bundle.tree_hash(collect(other).manifest) == bundle.tree_hash(collect(project).manifest)

    def test_collect_gives_another_hash_after_a_change_of_content(self, project: Path) -> None:
        """One changed byte makes another tree hash."""
        before = bundle.tree_hash(collect(project).manifest)
        write(project, {"scrapy.cfg": "[settingz]"})
        assert bundle.tree_hash(collect(project).manifest) != before

    def test_collect_points_to_a_file_with_the_content_of_each_hash(self, project: Path) -> None:
        """Each hash in the manifest leads to a file with that content."""
        made = collect(project)
        hashes = {file.sha256 for file in made.manifest.roots[0].files}
        assert {sha: hashlib.sha256(path.read_bytes()).hexdigest() for sha, path in made.paths.items()} == {
            sha: sha for sha in hashes
        }

    def test_collect_records_the_working_directory_below_the_project(self, project: Path) -> None:
        """A crawl started in a subdirectory runs in that subdirectory."""
        made = collect(project, working_directory=project / "books")
        assert made.manifest.working_directory == "books"

    def test_collect_refuses_a_working_directory_beyond_the_project(self, project: Path) -> None:
        """A working directory that does not travel is an error."""
        with pytest.raises(BundleError, match="is not in the project"):
            collect(project, working_directory=project.parent)

    def test_collect_refuses_a_project_that_is_no_directory(self, project: Path) -> None:
        """A project directory that is not there is an error that names it."""
        with pytest.raises(BundleError, match="nowhere is not a directory"):
            collect(project / "nowhere")

    def test_collect_keeps_the_executable_bit(self, project: Path) -> None:
        """A script stays executable, a module does not become it."""
        (project / "scrapy.cfg").chmod(0o755)
        files = {file.path: file.is_executable for file in collect(project).manifest.roots[0].files}
        assert files == {"books/spiders/one.py": False, "scrapy.cfg": True}

    def test_collect_ships_a_stand_in_under_the_name_of_the_file(self, project: Path, tmp_path: Path) -> None:
        """Content, hash, size and mode are the stand-in's; the name is the file's; all else is itself."""
        other = write(tmp_path, {"other": "ONE = 2 # new"}) / "other"
        other.chmod(0o755)
        made = collect(project, stand_in=lambda path: other if path.name == "one.py" else path)
        sha256 = hashlib.sha256(b"ONE = 2 # new").hexdigest()
        assert made.manifest.roots[0].files[0] == BundleFile("books/spiders/one.py", sha256, 13, True)
        assert made.manifest.roots[0].files[1] == collect(project).manifest.roots[0].files[1]
        assert made.paths[sha256] == other

    def test_collect_names_the_file_whose_stand_in_is_gone(self, project: Path, tmp_path: Path) -> None:
        """A stand-in that cannot be read is an error with the path of the file it stands for."""
        with pytest.raises(BundleError, match=r"one\.py cannot be used"):
            collect(project, stand_in=lambda path: tmp_path / "gone" if path.name == "one.py" else path)

    def test_collect_names_a_file_that_cannot_be_read(self, project: Path) -> None:
        """An unreadable file is an error with its path in it."""
        secret = project / "secret.bin"
        if os.geteuid():
            write(project, {"secret.bin": "x"})
            secret.chmod(0)
        else:  # Root reads everything but this.
            secret.symlink_to("/proc/self/mem")
        with pytest.raises(BundleError, match=r"secret\.bin cannot be used"):
            collect(project)

    @pytest.mark.parametrize("names", [("a/README", "a/readme"), ("A/x", "a/y"), ("é", "e\u0301")])
    def test_collect_refuses_names_that_a_file_system_confuses(self, project: Path, names: tuple[str, str]) -> None:
        """What a worker's disk may take for one file is refused at the sender already."""
        write(project, dict.fromkeys(names, ""))
        if len(list(project.rglob("*"))) < 5 + len({Path(name).parent for name in names} - {Path(".")}):
            pytest.skip("this disk takes the two names for one")
        with pytest.raises(BundleError, match="same name on some file systems"):
            collect(project)


class TestNeverShipped:
    @pytest.mark.parametrize(
        "name",
        [
            ".git/config",
            ".hg/store",
            ".svn/entries",
            "venv/pyvenv.cfg",
            "books/__pycache__/one.cpython-311.pyc",
            "one.pyc",
            ".mypy_cache/x",
            ".ruff_cache/x",
            ".pytest_cache/x",
            ".tox/x",
            ".nox/x",
            "web/node_modules/x.js",
            ".scrapy/httpcache/x",
            "books.egg-info/PKG-INFO",
            ".env",
            "books/.env.production",
            ".DS_Store",
        ],
    )
    def test_collect_leaves_out_by_name(self, project: Path, name: str) -> None:
        """History, environments, caches and secrets stay at home, and git's rules cannot bring them back."""
        before = shipped(project)
        write(project, {name: "x", ".gitignore": f"!/{name}\n!{Path(name).parts[0]}"})
        assert shipped(project) == before

    @pytest.mark.parametrize("name", [".git/config", "venv/pyvenv.cfg", ".env", ".env.local", ".env/x"])
    def test_collect_leaves_out_secrets_whatever_vscrapyignore_says(self, project: Path, name: str) -> None:
        """No rule ships history, virtual environments or secrets."""
        before = shipped(project)
        write(project, {name: "x", ".vscrapyignore": f"!/{name}\n!{Path(name).parts[0]}\n!*"})
        assert shipped(project) == before

    @pytest.mark.parametrize("name", [".scrapy/httpcache/x", "books.egg-info/PKG-INFO", "one.pyc"])
    def test_collect_ships_outputs_that_vscrapyignore_brings_back(self, project: Path, name: str) -> None:
        """A cache or an output travels when the project asks for it."""
        write(project, {name: "x", ".vscrapyignore": f"!/{name}"})
        assert name in shipped(project)

    def test_collect_leaves_out_what_this_run_writes(self, project: Path, tmp_path: Path) -> None:
        """Feeds and logs of the run are left out, by any spelling, as files and as directories."""
        before = shipped(project)
        write(project, {"books.json": "[]", "logs/run.log": "", "feeds/a.json": ""})
        (tmp_path / "link").symlink_to(project)
        exclude = [tmp_path / "link" / "books.json", project / "books/../logs/run.log", project / "feeds"]
        assert shipped(project, exclude=exclude) == before

    def test_collect_leaves_out_what_is_not_a_file(self, project: Path) -> None:
        """A fifo is left out, and does not make the bundling wait."""
        before = shipped(project)
        os.mkfifo(project / "pipe")
        assert shipped(project) == before


class TestLinks:
    def test_collect_ships_the_content_of_a_linked_file(self, project: Path, tmp_path: Path) -> None:
        """A link to a file travels as a file, wherever it leads."""
        write(tmp_path, {"shared.txt": "shared"})
        (project / "out.txt").symlink_to("../shared.txt")
        (project / "in.cfg").symlink_to("scrapy.cfg")
        contents = {file.path: file.size_bytes for file in collect(project).manifest.roots[0].files}
        assert (contents["out.txt"], contents["in.cfg"]) == (6, 10)

    def test_collect_follows_a_linked_directory_at_each_place(self, project: Path, tmp_path: Path) -> None:
        """Two links to one directory make two directories, in the project and beyond."""
        write(tmp_path / "shared", {"x.txt": ""})
        (project / "a").symlink_to(tmp_path / "shared")
        (project / "b").symlink_to("books")
        assert {"a/x.txt", "b/spiders/one.py"} <= set(shipped(project))

    @pytest.mark.parametrize("target", [".", "..", "/", "books", "books/again"])
    def test_collect_ends_where_links_lead_in_a_circle(self, project: Path, target: str) -> None:
        """A link into a directory that it lies in is left out."""
        before = shipped(project)
        (project / "books" / "again").symlink_to((project / target).resolve(), target_is_directory=True)
        assert shipped(project) == before

    def test_collect_ends_where_two_links_lead_to_each_other(self, project: Path, tmp_path: Path) -> None:
        """A circle through a directory beyond the project ends too."""
        write(tmp_path / "one", {"x": ""})
        write(tmp_path / "two", {"y": ""})
        (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
        (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
        (project / "one").symlink_to(tmp_path / "one")
        assert [name for name in shipped(project) if name.startswith("one/")] == ["one/two/y", "one/x"]

    def test_collect_leaves_out_a_dangling_link(self, project: Path) -> None:
        """An editor's lock, a link to nothing, is no error."""
        before = shipped(project)
        (project / ".#one.py").symlink_to("user@host.1234")
        assert shipped(project) == before

    @pytest.mark.parametrize("target", [".env", ".git/config", ".git"])
    def test_collect_leaves_out_a_link_to_a_secret(self, project: Path, target: str) -> None:
        """A secret does not travel under another name."""
        write(project, {".env": "KEY=1", ".git/config": ""})
        before = shipped(project)
        (project / "innocent").symlink_to(target)
        assert shipped(project) == before


class TestIgnoreFiles:
    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            ({".gitignore": "*.csv"}, ["a/b/c.txt", "d.txt"]),
            ({".gitignore": "/a/"}, ["d.txt", "x.csv"]),
            ({".gitignore": "*\n!*/\n!*.txt"}, ["a/b/c.txt", "d.txt"]),
            ({".gitignore": "*.csv\n", "a/.gitignore": "!x.csv"}, ["a/b/c.txt", "a/x.csv", "d.txt"]),
            ({".gitignore": "/a/\n!/a/x.csv"}, ["d.txt", "x.csv"]),
            ({".gitignore": "*.csv", "a/.gitignore": "!b/"}, ["a/b/c.txt", "d.txt"]),
            ({".gitignore": "*.csv", ".vscrapyignore": "!/x.csv"}, ["a/b/c.txt", "d.txt", "x.csv"]),
            ({".gitignore": "a/", ".vscrapyignore": "!a/"}, ["a/b/c.txt", "a/x.csv", "d.txt", "x.csv"]),
            ({".gitignore": "a/", ".vscrapyignore": "!/a/b/c.txt"}, ["a/b/c.txt", "d.txt", "x.csv"]),
            ({".gitignore": "a/", ".vscrapyignore": "!a/b/"}, ["a/b/c.txt", "d.txt", "x.csv"]),
            ({".gitignore": "a/", ".vscrapyignore": "!a/**/*.txt"}, ["a/b/c.txt", "d.txt", "x.csv"]),
            ({".gitignore": "a/", ".vscrapyignore": "!c.txt"}, ["d.txt", "x.csv"]),
            ({".gitignore": "!d.txt", ".vscrapyignore": "d.txt"}, ["a/b/c.txt", "a/x.csv", "x.csv"]),
            ({"a/.vscrapyignore": "/x.csv"}, ["a/b/c.txt", "d.txt", "x.csv"]),
            ({".gitignore": "[z-a]\n\\\n!\n\ufeff"}, ["a/b/c.txt", "a/x.csv", "d.txt", "x.csv"]),
        ],
    )
    def test_collect_obeys_the_ignore_files(self, tmp_path: Path, rules: dict[str, str], expected: list[str]) -> None:
        """Git's rules hold as in git, and vscrapy's come after them."""
        write(tmp_path, dict.fromkeys(("a/b/c.txt", "a/x.csv", "d.txt", "x.csv"), "") | rules)
        assert shipped(tmp_path) == expected

    def test_collect_obeys_rules_between_the_project_and_gits_top_level(self, tmp_path: Path) -> None:
        """A repository's rules hold in a project below its top level, those beyond it do not."""
        rules = {"repo/.gitignore": "*.csv\n/mid/project/b", ".gitignore": "*.txt", "repo/mid/.gitignore": "d"}
        write(tmp_path, dict.fromkeys(("repo/.git/HEAD", *(f"repo/mid/project/{x}" for x in "abcd")), "") | rules)
        write(tmp_path, {"repo/mid/project/x.csv": "", "repo/mid/project/x.txt": ""})
        assert shipped(tmp_path / "repo" / "mid" / "project") == ["a", "c", "x.txt"]

    def test_collect_ignores_rules_above_that_leave_out_the_whole_project(self, tmp_path: Path) -> None:
        """A project in a directory that git ignores, a scratch directory, still travels."""
        write(tmp_path, {".git/HEAD": "", ".gitignore": "*", "scratch/a.py": ""})
        assert shipped(tmp_path / "scratch") == ["a.py"]

    @settings(max_examples=40)
    @given(
        rules=st.dictionaries(
            st.sampled_from([".gitignore", "a/.gitignore", "a/b/.gitignore"]),
            st.lists(
                st.builds(
                    "".join,
                    st.tuples(
                        st.sampled_from(["", "", "!"]),
                        st.sampled_from(["", "", "/", "**/"]),
                        st.lists(
                            st.sampled_from(["a", "b", "*", "?", "**", "[ab]", "a*"]), min_size=1, max_size=3
                        ).map("/".join),
                        st.sampled_from(["", "", "/"]),
                    ),
                ),
                min_size=1,
                max_size=4,
            ),
        )
    )
    def test_collect_ships_what_git_does_not_ignore(self, rules: dict[str, list[str]]) -> None:
        """For any rules, what travels is what git itself would list."""
        if shutil.which("git") is None and "CI" not in os.environ:
            pytest.skip("git is not here; on CI that is an error")
        names = [
            f"{x}{y}{z}" for x in ("", "a/", "b/", "a/b/", "ab/") for y in ("", "b/", "a/") for z in ("a.x", "c")
        ]
        with tempfile.TemporaryDirectory() as directory:
            root = write(Path(directory), dict.fromkeys(names, ""))
            write(root, {name: "\n".join(lines) for name, lines in rules.items()})
            assert shipped(root) == sorted(git_listing(root))


def git_listing(root: Path) -> list[str]:
    """What git would add in a new repository, by its own reading of the ignore files."""
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (["init", "-q"], ["ls-files", "-o", "--exclude-standard", "-z"]):
        output = subprocess.run(
            ["git", *command], cwd=root, env=environment, capture_output=True, text=True, check=True
        ).stdout
    return [name for name in output.split("\0") if name and Path(name).name != ".gitignore"]


class TestLimit:
    def test_collect_names_the_largest_files_and_the_remedy_over_the_limit(self, project: Path) -> None:
        """The message has the ten largest files, largest first, the file to edit and the setting."""
        write(project, {f"data/{number:02}.bin": b"x" * (100 + number) for number in range(12)})
        with pytest.raises(BundleError) as caught:
            collect(project, limit_bytes=1000)
        first, *listing = str(caught.value).splitlines()
        largest = [f"data/{number:02}.bin" for number in range(11, 1, -1)]
        assert [line.split()[-1] for line in listing] == [str(project.resolve() / name) for name in largest]
        hint = f"the line /data/11.bin into {project.resolve()}/.vscrapyignore"
        assert all(part in first for part in ("1000 bytes", "VSCRAPY_BUNDLE_LIMIT", hint, "14 files"))

    def test_collect_takes_less_once_the_hint_is_followed(self, project: Path) -> None:
        """The line that the message gives does what it says."""
        write(project, {"data/big.bin": b"x" * 2000, ".vscrapyignore": "/data/big.bin"})
        assert "data/big.bin" not in shipped(project, limit_bytes=1000)

    def test_collect_accepts_a_bundle_of_exactly_the_limit(self, project: Path) -> None:
        """The limit itself is allowed."""
        size = collect(project).manifest.size_bytes
        assert collect(project, limit_bytes=size).manifest.size_bytes == size


class TestHashCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "deep"

    def changed_in_secret(self, project: Path, *, at: float) -> Path:
        """Set a file's time; the caller changes its content under the same size, time and inode."""
        os.utime(project / "scrapy.cfg", (at, at))
        return project / "scrapy.cfg"

    def test_collect_does_not_read_an_unchanged_file(self, project: Path, cache: Path) -> None:
        """Same size, time and inode: the hash comes from the cache."""
        file = self.changed_in_secret(project, at=OLD)
        before = collect(project, cache_dir=cache)
        file.write_text("[SETTINGS]")
        os.utime(file, (OLD, OLD))
        assert collect(project, cache_dir=cache).manifest == before.manifest

    def test_collect_reads_a_file_with_another_time(self, project: Path, cache: Path) -> None:
        """A touched file is read again."""
        file = self.changed_in_secret(project, at=OLD)
        before = collect(project, cache_dir=cache)
        file.write_text("[SETTINGS]")
        os.utime(file, (OLD, OLD + 1))
        assert collect(project, cache_dir=cache).manifest != before.manifest

    def test_collect_does_not_remember_a_fresh_file(self, project: Path, cache: Path) -> None:
        """A file changed a moment ago may change within the same tick, so it is read again."""
        file = project / "scrapy.cfg"
        status = file.stat()
        before = collect(project, cache_dir=cache)
        file.write_text("[SETTINGS]")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert collect(project, cache_dir=cache).manifest != before.manifest

    @pytest.mark.parametrize(
        "text", [b"", b"\xff", b"[]", b"{", b"[" * 100_000, b'{"%s": 1}', b'{"%s": [10, 1, 1, "zz"]}']
    )
    def test_collect_rewrites_a_corrupt_cache(self, project: Path, cache: Path, text: bytes) -> None:
        """A cache that makes no sense changes nothing, and is replaced."""
        file = self.changed_in_secret(project, at=OLD)
        write(cache, {"bundle-hashes.json": text.replace(b"%s", str(file.resolve()).encode())})
        assert collect(project, cache_dir=cache).manifest == collect(project).manifest
        assert str(file.resolve()) in json.loads((cache / "bundle-hashes.json").read_text())

    def test_collect_ignores_a_hash_that_is_none(self, project: Path, cache: Path) -> None:
        """An entry with the right key and a damaged hash is not believed."""
        file = self.changed_in_secret(project, at=OLD)
        status = file.stat()
        entry = [status.st_size, status.st_mtime_ns, status.st_ino, "damaged"]
        write(cache, {"bundle-hashes.json": json.dumps({str(file.resolve()): entry})})
        assert collect(project, cache_dir=cache).manifest == collect(project).manifest

    def test_collect_does_without_a_cache_that_cannot_be_written(self, project: Path, tmp_path: Path) -> None:
        """A cache directory that cannot be made is no error."""
        write(tmp_path, {"file": ""})
        self.changed_in_secret(project, at=OLD)
        assert collect(project, cache_dir=tmp_path / "file" / "cache").manifest == collect(project).manifest

    def test_collect_leaves_nothing_but_the_cache_in_its_directory(self, project: Path, cache: Path) -> None:
        """The cache is written aside and moved; nothing stays behind, and others' entries stay."""
        write(cache, {"bundle-hashes.json": '{"/other": [1, 2, 3, "x"]}'})
        self.changed_in_secret(project, at=OLD)
        collect(project, cache_dir=cache)
        assert [path.name for path in cache.iterdir()] == ["bundle-hashes.json"]
        assert "/other" in json.loads((cache / "bundle-hashes.json").read_text())


class TestOutsideRoots:
    @pytest.fixture
    def load(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, ModuleType]]:
        """Import modules for real, from directories put on sys.path; forget them afterwards."""

        def load(*names: str, path: list[Path]) -> dict[str, ModuleType]:
            monkeypatch.setattr(sys, "path", [*map(str, path), *sys.path])
            before = set(sys.modules)
            try:
                for name in names:
                    __import__(name)
                return {name: module for name, module in sys.modules.items() if name not in before}
            finally:
                # Only our own: an extension module that is forgotten cannot always be loaded again.
                for name in set(sys.modules) - before:
                    if name.startswith(("vx_", "project")):
                        del sys.modules[name]

        return load

    def test_find_outside_roots_finds_packages_modules_and_namespaces(
        self, project: Path, tmp_path: Path, load: Callable[..., dict[str, ModuleType]]
    ) -> None:
        """The directory on sys.path is named with the top-level names that were imported from it."""
        names = ("vx_pkg/__init__.py", "vx_pkg/sub/__init__.py", "vx_pkg/sub/deep.py", "vx_mod.py", "vx_not.py")
        write(tmp_path / "lib", dict.fromkeys((*names, "vx_ns/part/mod.py"), ""))
        modules = load("vx_pkg.sub.deep", "vx_mod", "vx_ns.part.mod", path=[tmp_path / "lib"])
        assert find_outside_roots(project, modules) == [OutsideRoot(tmp_path / "lib", ("vx_mod", "vx_ns", "vx_pkg"))]

    def test_find_outside_roots_leaves_out_the_project_and_what_is_installed(
        self, project: Path, tmp_path: Path, load: Callable[..., dict[str, ModuleType]]
    ) -> None:
        """The project's own modules, the standard library and installed packages are not outside roots."""
        site = tmp_path / "other" / "site-packages"
        write(tmp_path, {"other/site-packages/vx_inst.py": "", "project/vx_own.py": "", "project/src/vx_src.py": ""})
        modules = load(
            "vx_own", "vx_src", "vx_inst", "json.tool", "scrapy", "vscrapy", path=[project, project / "src", site]
        )
        roots = find_outside_roots(project, sys.modules | modules)
        tops = {top for root in roots for top in root.names}
        assert not tops & {"vx_own", "vx_src", "vx_inst", "json", "scrapy", "vscrapy", "twisted", "__main__"}

    def test_find_outside_roots_keeps_the_order_of_the_path(
        self, project: Path, tmp_path: Path, load: Callable[..., dict[str, ModuleType]]
    ) -> None:
        """The first directory on sys.path comes first, so the same module wins on the worker."""
        write(tmp_path, {"z/vx_z.py": "", "a/vx_a.py": ""})
        modules = load("vx_a", "vx_z", path=[tmp_path / "z", tmp_path / "a"])
        roots = find_outside_roots(project, modules)
        assert [root.directory.name for root in roots] == ["z", "a"]

    def test_find_outside_roots_finds_the_project_imported_as_a_package(
        self, project: Path, tmp_path: Path, load: Callable[..., dict[str, ModuleType]]
    ) -> None:
        """A project that is a package of its parent directory is needed under that name as well."""
        write(project, {"vx_inner.py": ""})
        modules = load("project.vx_inner", path=[tmp_path])
        assert find_outside_roots(project, modules) == [OutsideRoot(tmp_path, ("project",))]

    def test_find_outside_roots_survives_strange_modules(self, project: Path, tmp_path: Path) -> None:
        """Modules without a file, with a file elsewhere, or from an archive are left out."""
        modules = {name: ModuleType(name) for name in ("vx_none", "vx_number", "vx_alias", "vx_zip")}
        modules["vx_number"].__dict__["__file__"] = 3
        modules["vx_alias"].__file__ = str(tmp_path / "other.py")
        modules["vx_zip"].__file__ = str(write(tmp_path, {"x.zip": ""}) / "x.zip" / "vx_zip.py")
        assert find_outside_roots(project, modules) == []

    def test_collect_ships_only_the_named_modules_of_an_outside_root(self, project: Path, tmp_path: Path) -> None:
        """A package travels with its data, a module alone, and their neighbours stay."""
        suffix = "abi3.so"
        names = ("pkg/__init__.py", "pkg/data/x.csv", "mod.py", f"fast.{suffix}", "private.txt", "pkg2/x.py", "mod")
        write(tmp_path / "lib", dict.fromkeys((*names, "pkg/__pycache__/x.pyc"), ""))
        write(tmp_path / "lib", {".gitignore": "fast*\n/pkg/data/y.csv", "pkg/data/y.csv": ""})
        made = collect(project, outside_roots=[OutsideRoot(tmp_path / "lib", ("pkg", "mod", "fast"))])
        root = made.manifest.roots[1]
        assert (root.name, root.is_import_root) == ("outside-0", True)
        assert [file.path for file in root.files] == [f"fast.{suffix}", "mod.py", "pkg/__init__.py", "pkg/data/x.csv"]

    def test_collect_refuses_a_module_that_is_gone(self, project: Path, tmp_path: Path) -> None:
        """A named module without a file is an error that names it."""
        with pytest.raises(BundleError, match="vx_gone"):
            collect(project, outside_roots=[OutsideRoot(tmp_path, ("vx_gone",))])


class TestProjectPaths:
    SHIPPED = ("scrapy.cfg", "src/books/items.py", "lib/extra.zip", "lib/one.py")

    def test_find_project_paths_keeps_the_order_of_the_path(self, project: Path) -> None:
        """Each directory or archive in the project is named once, and neither the project nor what is beyond it."""
        path = [str(project / name) for name in ("lib/extra.zip", "src", ".", "lib", "src/", "..")]
        assert find_project_paths(project, [*path, "/usr/lib"], self.SHIPPED) == ["lib/extra.zip", "src", "lib"]

    def test_find_project_paths_leaves_out_what_does_not_travel(self, project: Path) -> None:
        """The project's own virtual environment is no use on a worker, nor is a directory by half a name."""
        path = [str(project / ".venv/lib/python3.11/site-packages"), str(project / "sr")]
        assert find_project_paths(project, path, self.SHIPPED) == []

    def test_find_project_paths_reads_relative_entries_from_the_working_directory(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An empty entry is the working directory, as it is for Python."""
        (project / "src").mkdir()
        monkeypatch.chdir(project / "src")
        assert find_project_paths(project, ["", "../lib"], self.SHIPPED) == ["src", "lib"]

    def test_find_project_paths_sees_through_links(self, project: Path, tmp_path: Path) -> None:
        """A project reached by a link is the same; a directory linked into it travels, so its entry counts."""
        write(tmp_path, {"shared/books/items.py": "", "project/lib/one.py": ""})
        (project / "src").symlink_to(tmp_path / "shared")
        (tmp_path / "link").symlink_to(project)
        path = [str(tmp_path / "link" / "lib"), str(project / "src")]
        assert find_project_paths(tmp_path / "link", path, self.SHIPPED) == ["lib", "src"]


def is_plain(segment: str) -> bool:
    return segment not in (".", "..") and not segment.startswith((".git", ".env", ".vscrapyignore"))


SEGMENTS = st.text("abAß é0._-[!#* \n\udc80", min_size=1, max_size=4).filter(is_plain)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


class TestRoundTrip:
    @given(files=st.dictionaries(PATHS, st.tuples(st.binary(max_size=20), st.booleans()), max_size=8))
    def test_unpack_gives_back_what_collect_found(self, files: dict[str, tuple[bytes, bool]]) -> None:
        """Any tree comes out of collect, JSON and unpack as it went in, modes included."""
        with tempfile.TemporaryDirectory() as directory:
            source, target = Path(directory, "source"), Path(directory, "target")
            source.mkdir()
            try:
                write(source, {name: content for name, (content, _) in files.items()})
            except OSError:
                assume(False)  # One name is a file and a directory.
            for name, (_, is_executable) in files.items():
                (source / name).chmod(0o700 if is_executable else 0o600)
            try:
                made = collect(source)
            except BundleError as error:
                if "same name" not in str(error):
                    raise
                assume(False)
            manifest = bundle.manifest_from_json(bundle.manifest_to_json(made.manifest))
            bundle.unpack(manifest, lambda sha256: made.paths[sha256].read_bytes(), target, limit_bytes=MIB)
            assert manifest == made.manifest
            assert tree(target / "project") == {name: content for name, (content, _) in files.items()}
            modes = {name: (target / "project" / name).stat().st_mode & 0o777 for name in files}
            assert modes == {name: 0o755 if files[name][1] else 0o644 for name in files}


class TestUnpack:
    def test_unpack_makes_the_working_directory_without_files(self, tmp_path: Path) -> None:
        """The crawl can start in a directory that has no file to travel."""
        unpack(manifest_of("a", working_directory="some/where"), tmp_path / "t")
        assert (tmp_path / "t" / "project" / "some" / "where").is_dir()

    def test_unpack_writes_each_root_below_its_name(self, tmp_path: Path) -> None:
        """Each root has a directory of its own, empty ones too."""
        one = manifest_of("a.py")
        manifest = replace(one, roots=(*one.roots, BundleRoot("outside-0", True, ())))
        unpack(manifest, tmp_path / "t")
        assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["outside-0", "project"]

    @pytest.mark.parametrize("content", [b"y", b"xx", b""])
    def test_unpack_refuses_content_that_does_not_match(self, tmp_path: Path, content: bytes) -> None:
        """Content with another hash or size is not written."""
        with pytest.raises(BundleError, match="not what the manifest says"):
            unpack(manifest_of("a"), tmp_path / "t", content=content)
        assert tree(tmp_path / "t") == {}

    def test_unpack_refuses_a_directory_that_is_not_empty(self, tmp_path: Path) -> None:
        """Nothing is mixed with what is there."""
        write(tmp_path, {"t/x": ""})
        with pytest.raises(BundleError, match="not empty"):
            unpack(manifest_of("a"), tmp_path / "t")

    def test_unpack_refuses_a_target_that_is_a_link(self, tmp_path: Path) -> None:
        """A link in the place of the target is not followed."""
        (tmp_path / "real").mkdir()
        (tmp_path / "t").symlink_to("real")
        with pytest.raises(BundleError, match="is a link"):
            unpack(manifest_of("a"), tmp_path / "t")

    def test_unpack_never_writes_through_a_link(self, tmp_path: Path) -> None:
        """A link that appears in the target meanwhile is not written through."""

        def plant(sha256: str) -> bytes:
            (tmp_path / "t" / "project").mkdir()
            (tmp_path / "t" / "project" / "a").symlink_to(tmp_path / "victim")
            return b"x"

        with pytest.raises(BundleError, match="cannot be used"):
            bundle.unpack(manifest_of("a"), plant, tmp_path / "t", limit_bytes=MIB)
        assert not (tmp_path / "victim").exists()

    @pytest.mark.parametrize(
        ("manifest", "reason"),
        [
            (Manifest(()), "no root"),
            (manifest_of("a", "a"), "twice"),
            (manifest_of("a", "a/b"), "file and as a directory"),
            (manifest_of("a/b", "a"), "file and as a directory"),
            (manifest_of("a", "A"), "same name"),
            (manifest_of("x/a", "X/b"), "same name"),
            (manifest_of("é", "e\u0301"), "same name"),
            (manifest_of("straße", "STRASSE"), "same name"),
            (manifest_of("a" * 256), "cannot travel"),
            (manifest_of("a", working_directory="../x"), "cannot travel"),
            (manifest_of("a", working_directory="/x"), "cannot travel"),
            (manifest_of("a", working_directory=""), "cannot travel"),
            (manifest_of("a", working_directory="a"), "file and as a directory"),
            (Manifest((BundleRoot("Project", True, ()),)), "in its name"),
            (Manifest((BundleRoot("..", True, ()),)), "in its name"),
            (Manifest((BundleRoot("", True, ()),)), "in its name"),
            (Manifest((BundleRoot("project\n", True, ()),)), "in its name"),
            (Manifest((BundleRoot("a", True, ()), BundleRoot("a", True, ()))), "two roots"),
            (Manifest((BundleRoot("a", True, (BundleFile("x", "0", 1),)),)), "hash"),
            (Manifest((BundleRoot("a", True, (BundleFile("x", "0" * 64, -1),)),)), "below zero"),
            (Manifest((BundleRoot("a", True, (BundleFile("x", "0" * 64, MIB + 1),)),)), "limit"),
            (
                Manifest((BundleRoot("a", True, (BundleFile("x", "0" * 64, 1), BundleFile("y", "0" * 64, 2))),)),
                "another size",
            ),
        ],
    )
    def test_unpack_refuses_a_manifest_before_it_writes(
        self, tmp_path: Path, manifest: Manifest, reason: str
    ) -> None:
        """One bad entry, and nothing at all is written or fetched."""
        with pytest.raises(BundleError, match=reason):
            bundle.unpack(manifest, pytest.fail, tmp_path / "t", limit_bytes=MIB)
        assert not (tmp_path / "t").exists()

    @given(
        parts=st.lists(st.sampled_from(["a", "b.py", "ü"]), max_size=3),
        bad=st.sampled_from(["", ".", "..", "a\\b", "\\", "a\0", "C:", "c:x", "\ud800", "é" * 128]),
        place=st.integers(0, 3),
    )
    def test_unpack_refuses_any_path_with_a_bad_part(self, parts: list[str], bad: str, place: int) -> None:
        """A part that leads elsewhere, on any system, is refused wherever it stands."""
        parts.insert(place, bad)
        with tempfile.TemporaryDirectory() as directory:
            with pytest.raises(BundleError, match="cannot travel"):
                unpack(manifest_of("good", "/".join(parts)), Path(directory, "t"))
            assert not Path(directory, "t").exists()

    @given(path=st.text("aA./\\:\0é ", max_size=8) | st.text(max_size=8))
    def test_unpack_writes_in_its_root_or_not_at_all(self, path: str) -> None:
        """Any text as a path ends as a file with this very path, or as an error and no file."""
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "t")
            try:
                unpack(manifest_of(path), target)
            except BundleError:
                assert tree(Path(directory)) == {}
            else:
                assert tree(Path(directory)) == {f"t/project/{path}": b"x"}


class TestManifestJson:
    def test_manifest_to_json_is_canonical(self) -> None:
        """Sorted keys, no spaces, ASCII: one manifest, one text."""
        assert bundle.manifest_to_json(Manifest((BundleRoot("project", True, (BundleFile("é", "0", 1),)),))) == (
            '{"roots":[{"files":[{"is_executable":false,"path":"\\u00e9","sha256":"0","size_bytes":1}],'
            '"is_import_root":true,"name":"project"}],"working_directory":"."}'
        )

    def test_tree_hash_is_the_hash_of_the_json(self) -> None:
        """The tree hash can be computed from the JSON alone."""
        manifest = manifest_of("a")
        text = bundle.manifest_to_json(manifest)
        assert bundle.tree_hash(manifest) == hashlib.sha256(text.encode()).hexdigest()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[" * 100_000,
            "null",
            "[]",
            "{}",
            '{"roots":[]}',
            '{"roots":{},"working_directory":"."}',
            '{"roots":[],"working_directory":1}',
            '{"roots":[],"working_directory":".","more":1}',
            '{"roots":[1],"working_directory":"."}',
            '{"roots":[{"name":"a","is_import_root":1,"files":[]}],"working_directory":"."}',
        ],
    )
    def test_manifest_from_json_refuses_a_malformed_manifest(self, text: str) -> None:
        """What is not a manifest is refused, never half read."""
        with pytest.raises(BundleError):
            bundle.manifest_from_json(text)

    @pytest.mark.parametrize(
        "change",
        [{"size_bytes": True}, {"size_bytes": 1.0}, {"size_bytes": -1}, {"sha256": "0"}, {"path": None}, {"x": 1}],
    )
    def test_manifest_from_json_refuses_a_malformed_file(self, change: dict[str, object]) -> None:
        """A file with a wrong type, an impossible size or a key too many is refused."""
        data = json.loads(bundle.manifest_to_json(manifest_of("a")))
        data["roots"][0]["files"][0].update(change)
        with pytest.raises(BundleError):
            bundle.manifest_from_json(json.dumps(data))
