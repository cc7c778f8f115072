"""What a command says while it works."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tqdm import tqdm

from schemas.printable import printable


def say(line: str) -> None:
    """A line on standard error, at once; above a bar where there is one."""
    tqdm.write(f"trainer: {printable(line)}", file=sys.stderr)


def steps(count: int, what: str, first: int = 0) -> Iterator[int]:
    """``count`` numbers from ``first`` on, with a bar on a terminal; in a log ``say`` has to tell how far it is."""
    yield from tqdm(range(first, first + count), what, unit="step", leave=False, disable=not sys.stderr.isatty())
