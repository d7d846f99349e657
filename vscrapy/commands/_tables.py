"""Tables for people: how the commands that look show what they have found."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

#: Width of the tables where there is no terminal (columns).
WIDTH: Final = 120


def console() -> Console:
    """Stdout, as wide as the terminal; what stands on Redis is never taken for markup."""
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def table(title: str, left: str, right: str, order: str) -> Table:
    """A table without lines; text columns fold where the terminal is narrow, numbers never do."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    made.collapse_padding = True
    for name in order.split():
        is_text = name in left.split()
        made.add_column(name, justify="left" if is_text else "right", no_wrap=name in right.split(), overflow="fold")
    return made
