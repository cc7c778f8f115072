"""The recorder: reads the host at a steady pace, keeps what it read and puts it on the readings topic."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.aside import aside
from detector.adapters.files import Table
from detector.adapters.telemetry import Telemetry
from schemas.manifest import Channel
from schemas.moment import MILLISECOND_NS, format_time

#: Hands a record on: (key, value, timestamp in ms).
Produce = Callable[[bytes, bytes, int], None]


class Recorder:
    """A thread that reads every ``interval_s``; a reading whose time has passed is left out, not made up.

    Event time is this clock's start plus what has passed since: a correction of the system's clock meanwhile would
    otherwise be a gap, or make readings late.
    """

    def __init__(self, telemetry: Telemetry, channels: Sequence[Channel], produce: Produce, interval_s: float) -> None:
        self._telemetry, self._produce, self._interval_s = telemetry, produce, interval_s
        self._names = [channel.name for channel in channels]
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._times: list[int] = []
        self._rows: list[list[float]] = []
        self._wall, self._zero = time.time_ns(), time.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def stream(self) -> str:
        """The host's name."""
        return self._telemetry.stream

    def now(self) -> int:
        """Event time of this moment, ns."""
        return self._wall + time.monotonic_ns() - self._zero

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Times ``[N]`` ns and values ``[N, C]``, NaN where missing."""
        with self._lock:
            values = np.array(self._rows, dtype=np.float32).reshape(len(self._rows), len(self._names))
            return np.array(self._times, dtype=np.int64), values

    def table(self, start: int, end: int) -> Table:
        """The readings of [start, end) as the trainer takes them."""
        times, values = self.rows()
        chosen = np.flatnonzero((times >= start) & (times < end))
        stamps = [format_time(int(time)) for time in times[chosen]]
        return Table([self.stream] * len(chosen), times[chosen], values[chosen], stamps, tuple(self._names))

    def _run(self) -> None:
        try:
            start, tick = time.monotonic(), 0
            while not self._stop.is_set():
                self._read()
                tick = max(tick + 1, math.ceil((time.monotonic() - start) / self._interval_s))
                self._stop.wait(start + tick * self._interval_s - time.monotonic())
        except Exception as error:  # noqa: BLE001 — the main thread raises it
            self.error = error

    def _read(self) -> None:
        values = self._telemetry.values()
        row = [values[name] for name in self._names]
        stamp = self.now() // MILLISECOND_NS
        reading = {
            "stream": self._telemetry.stream,
            "timestamp": stamp,
            "values": dict(zip(self._names, row, strict=True)),
        }
        with self._lock:
            self._times.append(stamp * MILLISECOND_NS)
            self._rows.append([math.nan if value is None else value for value in row])
        self._produce(self._telemetry.stream.encode(), orjson.dumps(reading), stamp)


def write_csv(table: Table, path: Path) -> None:
    """Write a table as a file that ``trainer fit`` and ``detector score`` read."""
    with aside(path) as file:
        rows = csv.writer(file)
        rows.writerow(["stream", "timestamp", *table.channels])
        for stream, stamp, values in zip(table.streams, table.timestamps, table.values.tolist(), strict=True):
            rows.writerow([stream, stamp, *("" if math.isnan(value) else repr(value) for value in values)])
