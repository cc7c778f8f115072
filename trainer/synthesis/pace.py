"""A stated rate, kept and measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

#: Seconds between lines in a log.
LINE_S = 10.0

#: Seconds below which nothing is waited for: the system's own clock is not finer.
LEAST_WAIT_S = 0.002


class Pace:
    """Readings per second, and what came of it. ``rate`` None: as fast as can be; ``total`` None: without an end."""

    def __init__(self, rate: float | None, total: int | None, say: Callable[[str], None]) -> None:
        self.rate, self.count = rate, 0
        self._say, self._began = say, time.monotonic()
        self._told = self._began
        self._bar = tqdm(total=total, unit=" readings", unit_scale=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def elapsed_s(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def sent(self, readings: int) -> None:
        """So many more; waits where that is too soon for the next."""
        self.count += readings
        if self._bar is not None:
            self._bar.update(readings)
        elif (now := time.monotonic()) - self._told >= LINE_S:
            self._told = now
            self._say(self.said)
        if self.rate is not None and (early := self.count / self.rate - self.elapsed_s) > LEAST_WAIT_S:
            time.sleep(early)

    @property
    def said(self) -> str:
        """How many there were in how long, and how many a second that is beside what was asked for."""
        asked = "" if self.rate is None else f" of {self.rate:,.4g} asked for"
        per_s = self.count / max(self.elapsed_s, 1e-9)
        return f"{self.count:,} readings in {self.elapsed_s:,.1f} s, {per_s:,.4g} a second{asked}"
