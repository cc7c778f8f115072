"""The ledger: a line of JSON per schedule that was run, and for which code. Runs add up while the code is the same."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[3]
LEDGER = Path(__file__).resolve().parent / "ledger.jsonl"

#: Where the code begins that a schedule is about; and what it uses and is no part of the protocol.
BEGINNINGS = ("detector.service", "detector.adapters.kafka")
APART = ("detector.engine", "detector.decoding")

EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class Line:
    """A schedule that was run."""

    seed: int
    kind: str
    faults: list[str]
    code: str
    commit: str
    result: str
    """"equal"; "differs: …"; else what went wrong."""
    seconds: float


def code_hash() -> str:
    """Of the service and of what it uses of the detector, its adapters to Kafka included, engine and decoders not."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _sources() -> set[Path]:
    found: set[Path] = set()
    waiting = list(BEGINNINGS)
    while waiting:
        path = ROOT.joinpath(*waiting.pop().split(".")).with_suffix(".py")
        if path.is_file() and path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        if module and module.startswith("detector.") and not module.startswith(APART):
            yield module


def commit() -> str:
    """The commit that is checked out, with "+" where something of the detector is not in it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "detector", "schemas") else "")
    except (OSError, subprocess.CalledProcessError):  # an export without its history
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def read(path: Path = LEDGER) -> list[Line]:
    """All lines; what is not a whole line, after a crash in the middle of writing it, does not count."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(Line(**orjson.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def append(line: Line, path: Path = LEDGER) -> None:
    """A line, whole: written in one piece, after an end of line where the last one lacks it."""
    text = orjson.dumps(asdict(line)) + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            text = b"\n" + text
        os.write(handle, text)
    finally:
        os.close(handle)


def equal_seeds(lines: list[Line], code: str) -> set[int]:
    """Seeds that need not run again."""
    return {line.seed for line in lines if line.code == code and line.result == EQUAL}
