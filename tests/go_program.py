"""Programs that tests need and that come as Go modules: built once, into a folder that git ignores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from broker import Missing

#: git ignores it
BUILD = Path(__file__).resolve().parent.parent / "build"

#: Where Go's own installer puts it, which many a PATH lacks.
USUAL_GO = "/usr/local/go/bin/go"

BUILD_SECONDS = 600.0  # 25 to 60 s on two cores, the fetching of modules included


def built(name: str, module: str, version: str) -> Path:
    """The program of a module (the last part of its path), built where it is not there yet. Raises Missing.

    Built aside and renamed: a build that was interrupted does not count, and two at a time do no harm.
    """
    folder = BUILD / name.lower()
    program = folder / version / name.lower()
    if program.is_file():
        return program
    go = shutil.which("go") or shutil.which(USUAL_GO)
    if go is None:
        raise Missing(f"{name} is built with Go, and there is no go in PATH: install Go 1.23 or newer")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as aside:
        print(f"Building {name} {version} with Go (once) …", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(
                [go, "install", f"{module}@v{version}"],
                env={**os.environ, "GOBIN": aside, "GOFLAGS": "-buildvcs=false"},
                capture_output=True, text=True, check=False, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL, cwd=aside,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Missing(f"Go could not build {name} within {BUILD_SECONDS:.0f} s: try again") from None
        if done.returncode:
            raise Missing(f"Go could not build {name}: {(done.stderr.splitlines() or ['no message'])[-1]}")
        os.replace(f"{aside}/{module.rpartition('/')[2]}", program)
    return program
