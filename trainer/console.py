"""What a command says while it works."""

from __future__ import annotations

import sys

from schemas.printable import printable


def say(line: str) -> None:
    """A line on standard error, at once."""
    print(f"trainer: {printable(line)}", file=sys.stderr, flush=True)
