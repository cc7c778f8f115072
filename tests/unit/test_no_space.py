"""Where what is said finds no space any more, a process ends as it would otherwise: its exit code is all there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def ended(*arguments: str) -> int:
    """The exit code of a Python whose errors go where there is no space."""
    with FULL.open("wb", buffering=0) as full:
        return subprocess.run(
            [sys.executable, *arguments], stderr=full, stdout=full, timeout=60, check=False
        ).returncode


def test_the_watchdog_ends_the_process() -> None:
    hangs = "import time; from detector.watchdog import Watchdog\nwith Watchdog(0.2): time.sleep(50)"
    assert ended("-c", hangs) == 75


def test_a_command_that_fails_says_so_by_its_exit_code() -> None:
    nobody = ("--bootstrap-servers", "127.0.0.1:1", "--startup-timeout", "1s")
    assert ended("-m", "detector.cli", "tell", "accept", "a", *nobody) == 75
