"""A fault, as a process of its own: keeps a core busy, holds memory, or writes to a disk, and ends by itself.

Run as a script by ``trainer.demo.faults`` with the standard library alone, so that it starts within milliseconds. It
ends when its time is up or when its parent is gone, whichever comes first; its file has no name from the moment that
it is made, so nothing is left on the disk however it ends.

    burn.py cpu SECONDS · burn.py memory SECONDS BYTES · burn.py disk SECONDS BYTES BYTES_PER_SECOND FOLDER
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable

STEP = 32 * 1024 * 1024  # bytes of one step of memory or disk: small beside any limit


def watcher(seconds: float) -> Callable[[], bool]:
    """Says whether to go on."""
    end, parent = time.monotonic() + seconds, os.getppid()
    return lambda: time.monotonic() < end and os.getppid() == parent


def cpu(going: Callable[[], bool]) -> None:
    """Compute nothing."""
    while going():
        for _ in range(200_000):
            pass


def memory(going: Callable[[], bool], size: int) -> None:
    """Fill memory step by step, then hold it."""
    held: list[bytearray] = []
    while going():
        if len(held) * STEP < size:
            held.append(bytearray(b"\x01") * STEP)  # written to, or the kernel would only promise it
            time.sleep(0.01)
        else:
            time.sleep(0.1)


def disk(going: Callable[[], bool], size: int, rate: float, folder: str) -> None:
    """Write and flush, over and over in one file of at most ``size`` bytes, at most ``rate`` bytes per second."""
    block, written, began = os.urandom(STEP), 0, time.monotonic()
    with tempfile.TemporaryFile(dir=folder) as file:
        while going():
            if written + STEP > rate * (time.monotonic() - began + 1):
                time.sleep(0.02)
                continue
            file.seek(written % max(size - STEP, 1) // STEP * STEP)
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += STEP


def main(kind: str, seconds: str, *rest: str) -> None:
    """Do what the command line says."""
    going = watcher(float(seconds))
    match kind, rest:
        case "cpu", ():
            cpu(going)
        case "memory", (size,):
            memory(going, int(size))
        case "disk", (size, rate, folder):
            disk(going, int(size), float(rate), folder)
        case _:
            raise SystemExit(f"no such fault: {kind} {' '.join(rest)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
