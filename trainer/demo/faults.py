"""Real faults on this machine: bounded in time and size, in processes of their own that never outlive the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingsError

SCRIPT = Path(__file__).with_name("burn.py")

MEGABYTE = 1024 * 1024

#: At most this share of all memory, and of the memory and of the disk space that are free.
MEMORY_SHARE, FREE_SHARE = 0.15, 0.33
DISK_SHARE = 0.1

MEMORY_MOST, MEMORY_LEAST = 8192 * MEGABYTE, 128 * MEGABYTE
DISK_MOST, DISK_LEAST = 1024 * MEGABYTE, 128 * MEGABYTE

#: Bytes per second: much for any machine at rest, little for the life of a solid-state disk.
DISK_RATE = 200 * MEGABYTE

#: Processes that compute, for each core: with one alone a machine that is busy anyway would hardly notice. On a large
#: machine fewer, but one for each core at least.
PER_CORE, ENOUGH = 4, 64

#: Seconds that a process has to end when asked, before it is made to.
END_S = 3.0


@dataclass(frozen=True)
class Fault:
    """``name`` for people, ``commands``: arguments of ``burn.py`` after kind and seconds, one process each."""

    name: str
    what: str
    commands: tuple[tuple[str, ...], ...]


def faults(folder: Path) -> tuple[Fault, Fault]:
    """What will be provoked here. Raises SettingsError where memory or disk space is too short for it."""
    busy, size, file = burners(usable_cores()), _memory_size(), _file_size(folder)
    return (
        Fault("every core busy", f"{busy} processes that compute without pause", (("cpu",),) * busy),
        Fault(
            "memory and disk burst",
            f"{size / 1e9:.1f} GB of memory filled, a file of {file / 1e9:.1f} GB written over and over at up to "
            f"{DISK_RATE / 1e6:.0f} MB/s",
            (("memory", str(size)), ("disk", str(file), str(DISK_RATE), str(folder))),
        ),
    )


def burners(cores: int) -> int:
    """How many processes keep so many cores busy."""
    return max(cores, min(PER_CORE * cores, ENOUGH))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_size() -> int:
    import psutil

    memory = psutil.virtual_memory()
    free = min(memory.available, _container_free())
    size = int(min(MEMORY_SHARE * memory.total, FREE_SHARE * free, MEMORY_MOST))
    if size < MEMORY_LEAST:
        raise SettingsError(
            f"{free / MEGABYTE:,.0f} MB of memory are free: the demo fills a third of that for some seconds and "
            f"needs at least {MEMORY_LEAST / FREE_SHARE / MEGABYTE:,.0f} MB: close something and run it again"
        )
    return size


def _container_free() -> float:
    """What a container's limit leaves (control groups, version 2 and 1); infinite where there is none."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            folder = Path("/sys/fs/cgroup")
            return max(int((folder / limit).read_text()) - int((folder / used).read_text()), 0)
    return float("inf")


def _file_size(folder: Path) -> int:
    import psutil

    free = psutil.disk_usage(str(folder)).free
    size = int(min(DISK_SHARE * free, DISK_MOST))
    if size < DISK_LEAST:
        raise SettingsError(
            f"{free / MEGABYTE:,.0f} MB are free on the disk of {folder}: the demo writes a file of a tenth of that "
            f"and needs at least {DISK_LEAST / DISK_SHARE / MEGABYTE:,.0f} MB: make room, or name another "
            "folder with --out"
        )
    return size


@contextmanager
def provoked(fault: Fault, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The fault's processes; they have ended when this is left, however it is left."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for kind, *rest in fault.commands:
            command = [sys.executable, "-I", "-S", str(SCRIPT), kind, str(seconds), *rest]
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def failed(running: list[subprocess.Popen[bytes]]) -> bool:
    """A process ended with an error: the fault was not what it should have been."""
    return any(process.poll() not in (None, 0) for process in running)
