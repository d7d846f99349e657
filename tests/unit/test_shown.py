"""What anybody can have written, on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscrapy.ignore import never_travels
from vscrapy.shown import shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ""),
        ("a worker", "a worker"),
        ("é … 本", "é … 本"),
        ("a\x1b[2J\x07\r\nb", "a\\x1b[2J\\x07\\r\\nb"),
        ("\x9b31m\u202eabc\udcff", "\\x9b31m\\u202eabc\\udcff"),
    ],
)
def test_shown_spells_what_controls_a_terminal(words: str, expected: str) -> None:
    """Escapes of seven and of eight bits, line breaks, signs that turn the direction; all else stays."""
    assert shown(words) == expected


@given(words=st.text(st.characters()))
def test_shown_is_printable_and_can_be_encoded(words: str) -> None:
    """Whatever it was."""
    assert shown(words).isprintable()
    assert shown(words).encode() or not words


@pytest.mark.parametrize(
    "name",
    [
        ".git",
        ".GIT",
        ".Git",
        ".g\u200cit",
        ".git ",
        ".git.",
        ".\uff47it",
        ".HG",
        ".svn",
        ".ENV",
        ".env.local",
        ".Env.",
    ],
)
def test_names_that_a_file_system_takes_for_history_or_secrets_never_travel(name: str) -> None:
    """Neither to workers nor home: on some disks .GIT/hooks is .git/hooks."""
    assert never_travels(name)


@pytest.mark.parametrize("name", [".gitignore", ".github", "git", "env", ".envrc", ".environment", "a.git", "…"])
def test_names_that_only_look_like_it_travel(name: str) -> None:
    """They are files like any other."""
    assert not never_travels(name)
