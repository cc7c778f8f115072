"""A file that appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from schemas.errors import UserError


@contextmanager
def aside(path: str | Path) -> Iterator[TextIO]:
    """A text file (UTF-8, line ends as written) that takes ``path``'s place when the block ends without an error.

    What stood there before stays untouched until then. A link is followed; what is no ordinary file (a pipe,
    ``/dev/stdout``) is written to directly. Raises UserError where the place cannot be written to.
    """
    with aside_bytes(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        try:
            yield file
            file.flush()
        finally:
            file.detach()  # which leaves the bytes' file open: it is not ours


@contextmanager
def aside_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """The same for bytes."""
    target = Path(path)
    try:
        if target.is_dir():
            raise UserError(f"{target} is a folder: name a file")
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        target = target.resolve()  # so that the rename replaces what a link points to, not the link
        if not target.parent.is_dir():
            raise UserError(f"{target.parent} does not exist: make it, or name another file than {path}")
        with _beside(target) as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _beside(target: Path) -> Iterator[BinaryIO]:
    # a random name, because in a container a killed predecessor had the same process id; "x" instead of tempfile,
    # whose files nobody else may read
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    with temporary.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
