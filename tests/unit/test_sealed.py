"""Environment variables that travel: which ones, and who can open them."""

from __future__ import annotations

import pytest

from vscrapy.errors import ConfigError, NotVerified
from vscrapy.sealed import choose, seal, unseal
from vscrapy.secret import new_nonce, task_key

ENVIRON = {"API_KEY": "k3y", "SHOP": "https://shop", "VSCRAPY_SECRET": "s", "EMPTY": ""}
KEY = task_key("secret", 7)
NONCE = new_nonce()


def test_named_variables_travel_and_no_others() -> None:
    """Those of the command line and of the file; an empty one is one, and one of the file may be missing."""
    chosen = choose(["API_KEY"], ["SHOP", "EMPTY", "MISSING"], "scrapy.cfg", ENVIRON)
    assert chosen == {"API_KEY": "k3y", "SHOP": "https://shop", "EMPTY": ""}


@pytest.mark.parametrize(
    ("named", "listed", "said"),
    [
        (["MISSING"], [], "--env has MISSING, which is not set here"),
        (["VSCRAPY_SECRET"], [], "--env has VSCRAPY_SECRET, which is vscrapy's own"),
        ([], ["VSCRAPY_REDIS_URL"], "scrapy.cfg has VSCRAPY_REDIS_URL, which is vscrapy's own"),
        (["API_KEY=k3y"], [], "--env takes names of environment variables only"),
    ],
)
def test_word_that_cannot_travel_is_refused(named: list[str], listed: list[str], said: str) -> None:
    """In a line that shows no value."""
    with pytest.raises(ConfigError, match=said) as raised:
        choose(named, listed, "scrapy.cfg", ENVIRON)
    assert "k3y" not in str(raised.value)


def test_sealed_variables_open_with_their_key_in_their_task_and_submission_only() -> None:
    """Whoever moves them elsewhere, changes them, or has another secret, gets nothing."""
    sealed = seal({"API_KEY": "k3y", "Ü": "ö\n"}, KEY, 7, NONCE)
    assert unseal(sealed, KEY, 7, NONCE) == {"API_KEY": "k3y", "Ü": "ö\n"}
    changed = ("B" if sealed[0] == "A" else "A") + sealed[1:]
    for attempt in (
        (sealed, task_key("another", 7), 7, NONCE),
        (sealed, KEY, 8, NONCE),
        (sealed, task_key("secret", 8), 8, NONCE),
        (sealed, KEY, 7, new_nonce()),
        (changed, KEY, 7, NONCE),
        (sealed[:8], KEY, 7, NONCE),
        ("no base64!", KEY, 7, NONCE),
    ):
        with pytest.raises(NotVerified, match=f"variables of task {attempt[2]} cannot be opened with this secret"):
            unseal(*attempt)


def test_same_variables_are_sealed_otherwise_each_time() -> None:
    """What is equal does not show."""
    assert seal({"A": "1"}, KEY, 7, NONCE) != seal({"A": "1"}, KEY, 7, NONCE)
    assert (seal({}, KEY, 7, NONCE), unseal("", KEY, 7, NONCE)) == ("", {})
