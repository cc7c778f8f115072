"""Places where a store can lie: a folder. (``detector.adapters.s3`` is the other one.)"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.errors import ModelError, UserError

#: What is on its way, or on its way out, begins so: no reader looks at it.
HIDDEN = "."

#: Seconds after which what a killed process left behind is swept away: no writing takes so long.
LEFT_BEHIND_S = 86_400.0


class Tagged(NamedTuple):
    """A file's bytes, and what tells them from others in ``Place.swap``."""

    data: bytes
    tag: str


class Place(Protocol):
    """Files in folders, by paths with ``/``. Methods raise errors of ``ResidualError`` where it cannot be had."""

    def names(self, path: str) -> list[str]:
        """What lies directly in a folder, in order; nothing where there is none."""

    def read(self, path: str) -> Tagged | None:
        """A small file; None where there is none."""

    def add(self, path: str, files: Mapping[str, Path], last: str) -> None:
        """A folder with these files, which appears whole: without ``last`` it counts as absent.

        Where one is there already, it stays.
        """

    def swap(self, path: str, data: bytes, tag: str | None) -> bool:
        """Replace a file where it still has this tag (None: where there is none); False where it has not."""

    def remove(self, path: str, last: str) -> None:
        """Remove a folder, ``last`` first."""

    def sweep(self, path: str) -> None:
        """Remove from a folder what killed processes left behind."""

    def local(self, path: str) -> AbstractContextManager[Path]:
        """A folder of this machine with the files of that one, for as long as the block lasts."""


class Folder:
    """A folder of this machine, or of one that is mounted: it has to know locks (``flock``) and renames."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def __str__(self) -> str:
        return str(self._root)

    def names(self, path: str) -> list[str]:
        """See ``Place``."""
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir() if not entry.name.startswith(HIDDEN))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _failed(self._root / path, "read", error) from error

    def read(self, path: str) -> Tagged | None:
        """See ``Place``."""
        try:
            data = (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failed(self._root / path, "read", error) from error
        return Tagged(data, _tag(data))

    def add(self, path: str, files: Mapping[str, Path], last: str) -> None:  # noqa: ARG002 — a rename shows all at once
        """See ``Place``."""
        target = self._root / path
        aside = target.with_name(f"{HIDDEN}{target.name}-{secrets.token_hex(4)}")
        try:
            aside.mkdir(parents=True)
            for name, source in files.items():
                with source.open("rb") as read, (aside / name).open("wb") as written:
                    shutil.copyfileobj(read, written)
                    written.flush()
                    os.fsync(written.fileno())
            _sync(aside)
            try:
                aside.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
            _sync(target.parent)
        except OSError as error:
            raise _failed(target, "written", error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def swap(self, path: str, data: bytes, tag: str | None) -> bool:
        """See ``Place``."""
        target = self._root / path
        aside = target.with_name(f"{HIDDEN}{target.name}-{secrets.token_hex(4)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f"{HIDDEN}{target.name}.lock")):
                found = self.read(path)
                if (None if found is None else found.tag) != tag:
                    return False
                with aside.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(target)
                _sync(target.parent)
                return True
        except OSError as error:
            raise _failed(target, "written", error) from error
        finally:
            aside.unlink(missing_ok=True)

    def remove(self, path: str, last: str) -> None:  # noqa: ARG002 — a rename hides all at once
        """See ``Place``."""
        target = self._root / path
        gone = target.with_name(f"{HIDDEN}{target.name}-{secrets.token_hex(4)}")
        try:
            target.rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(target, "removed", error) from error
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self, path: str) -> None:
        """See ``Place``."""
        folder = self._root / path
        if not folder.is_dir():
            return
        before = time.time() - LEFT_BEHIND_S
        for entry in folder.iterdir():
            if entry.name.startswith(HIDDEN) and entry.is_dir() and entry.stat().st_mtime < before:
                shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """See ``Place``."""
        yield self._root / path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone, among all processes that go by this file's lock; it ends with the process, however that ends."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    """What was renamed in a folder is on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _failed(path: Path, what: str, error: OSError) -> UserError:
    return ModelError(f"{path} cannot be {what}: {error.strerror or error}: look after the store's rights and space")
