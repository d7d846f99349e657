"""
Words that anybody can have written, made safe for a terminal.

What is not signed (a worker's name, a reason, a server's error) is never printed as it came: an escape sequence can
rewrite what stands above it, or the title, or the clipboard.
"""

from __future__ import annotations


def shown(words: str) -> str:
    """Spell what is not printable, line breaks among it, as Python spells it."""
    if words.isprintable():
        return words
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)
