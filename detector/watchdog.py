"""The watchdog: some calls of the Kafka client know no time-out, and a process that hangs wakes nobody."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time

from schemas.errors import WatchdogExpired

log = logging.getLogger(__name__)


class Watchdog:
    """Ends the process with exit code 75 when ``beat`` was not called for ``limit_s`` seconds.

    It ends it at once, without unwinding: the main loop is stuck in a call that would not let it. Nothing is lost:
    what is not committed is done again after the restart.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._beat_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    def beat(self) -> None:
        """The main loop went round."""
        self._beat_at = time.monotonic()

    def _watch(self) -> None:
        while not self._stop.wait(min(self._limit_s / 4, 5.0)):
            silent = time.monotonic() - self._beat_at
            if silent > self._limit_s:
                error = WatchdogExpired(
                    f"the main loop stood still for {silent:.0f} s (the broker does not answer?): "
                    "ending, to be started again; nothing committed is lost"
                )
                with contextlib.suppress(OSError):  # no space left where it is written to: that must not keep it alive
                    print(f"detector: {error}", file=sys.stderr, flush=True)
                os._exit(error.exit_code)
