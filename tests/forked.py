"""The command lines as processes that start at once: forked from one that has imported everything already.

A refused login takes half a second, Python and ONNX Runtime take two: for dozens of such runs that matters.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import importlib, json, os, sys, traceback
for name in ("detector.cli", "detector.run", "detector.tell"):
    importlib.import_module(name)
from detector.cli import main
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            place = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(place, 1)
            os.dup2(place, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ.clear()
            os.environ.update(job["environment"])
            code = main(job["arguments"])
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (negative: a signal), what it printed on both outputs, and how long it took."""

    code: int
    said: str
    seconds: float


class Commands:
    """Runs ``detector …``. One run at a time."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)},
            start_new_session=True,
        )  # fmt: skip

    def run(self, arguments: list[str], environment: Mapping[str, str], seconds: float = 60) -> Ended:
        """Run to the end. Raises AssertionError where it takes longer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RESIDUAL_")}
        job = {"arguments": arguments, "environment": plain | environment, "output": str(self._output)}
        began = time.monotonic()
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._server.stdout, selectors.EVENT_READ)
            if not waiting.select(seconds):
                raise AssertionError(f"no end within {seconds:g} s; so far:\n{self._output.read_text()}")
        code = int(self._server.stdout.readline())
        return Ended(code, self._output.read_text(), time.monotonic() - began)

    def close(self) -> None:
        """End the server and whatever it still runs."""
        os.killpg(self._server.pid, 9)
        self._server.wait()
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                pipe.close()


ROOT = Path(__file__).resolve().parent.parent
