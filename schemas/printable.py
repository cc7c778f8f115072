"""Text from outside on one line that shows what is in it: no new line, no terminal's escape, no right-to-left trick."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with everything that does not print written as an escape, so that it can forge no line of a log.

    >>> printable("a stream"), printable("a\n\x1b[2K2024-01-01 INFO all well")
    ('a stream', 'a\\n\\x1b[2K2024-01-01 INFO all well')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
