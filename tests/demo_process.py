"""The demo as a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainer.demo", "--fast", *arguments]


def started(*arguments: str) -> subprocess.Popen[str]:
    """The demo in a session of its own, by which its processes are known."""
    return subprocess.Popen(
        demo(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def burning(session: int) -> list[int]:
    """Processes of faults that are alive."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(ProcessLookupError):
            ours = os.getsid(process.pid) == session
            if ours and any(part.endswith("burn.py") for part in process.info["cmdline"] or ()):
                found.append(process.pid)
    return found


def run(*arguments: str, tries: int = 3) -> tuple[int, str]:
    """Exit code and all that was said; further tries after a missed fault, of which nothing is left behind either.

    Twenty seconds of normal on a machine that does other work at the same time may hold what hides a fault.
    """
    for _ in range(tries):
        process = started(*arguments)
        said, _ = process.communicate(timeout=140)
        assert not burning(process.pid)
        if process.returncode != 1 or "MISSED" not in said:
            break
    return process.returncode, said
