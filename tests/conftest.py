"""
The order of the tests, and servers for them: one for all, emptied before each test, and one of its own for a test
that breaks it.

``VSCRAPY_TEST_REDIS_URL`` names another server to hold the store against, such as the oldest one that is
supported; everything on it is deleted.
"""

from __future__ import annotations

import compileall
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import vscrapy
from tests.integration import support
from vscrapy import embedded
from vscrapy.model import Endpoint
from vscrapy.store.base import Store

# No test asserts a time: a busy machine takes longer.
settings.register_profile("vscrapy", deadline=None)
settings.load_profile("vscrapy")


def pytest_sessionstart() -> None:
    """
    Compile vscrapy, as pip does when it installs: many tests start many processes.

    With PYTHONDONTWRITEBYTECODE, which containers often set, each of them would compile it anew.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(Path(vscrapy.__file__).parent, quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Spread the tests well over processes (``--dist loadgroup --no-loadscope-reorder``).

    A test with a machine of its own goes to whichever process is free; those of other files stay together, for they
    may share one. Long chains come first, and what is short comes last.
    """
    ranks = {}
    for item in items:
        is_alone = "machine" in getattr(item, "fixturenames", ())
        if not is_alone:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}.{item.path.stem}"))
        ranks[item] = 2 if item.path.parent.name == "unit" else int(is_alone)
    items.sort(key=ranks.__getitem__)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Give the server that the tests share."""
    url = os.environ.get("VSCRAPY_TEST_REDIS_URL")
    if url:
        yield Endpoint(url, "VSCRAPY_TEST_REDIS_URL", "secret", is_insecure_allowed=True)
        return
    home = tmp_path_factory.mktemp("server")
    try:
        yield embedded.ensure(home)
    finally:
        embedded.shutdown(home)


@pytest.fixture
def bare_store(server: Endpoint) -> Iterator[Store]:
    """Give a store on the shared server, which is empty."""
    store = Store(server, name="vscrapy-test")
    store.client.flushall()
    yield store
    store.close()


@pytest.fixture
def store(bare_store: Store) -> Iterator[Store]:
    """As ``bare_store``; the test fails if a counter is wrong after it, or a key has no owner and no lifetime."""
    yield bare_store
    assert support.faults(bare_store) == []


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """Give a home whose server, if one is started, ends with the test."""
    home = tmp_path / "own"
    yield home
    embedded.shutdown(home)


@pytest.fixture
def own_server(own_home: Path) -> Endpoint:
    """Give a server that no other test uses."""
    return embedded.ensure(own_home)
