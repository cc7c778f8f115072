"""Readings to learn from: correlated sines with noise, whose faults are known because they are put there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from schemas.moment import SECOND_NS, format_time

START = 1_700_000_000 * SECOND_NS


def normal(rows: int, channels: int = 4, seed: int = 0, *, phase: float = 0.0) -> NDArray[np.float32]:
    """Normal values ``[rows, channels]``: two common rhythms, mixed, plus noise; level and spread differ by channel."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows) + phase
    rhythms = np.stack([np.sin(2 * np.pi * t / 40), np.sin(2 * np.pi * t / 17)], axis=1)
    mix = np.random.default_rng(7).normal(size=(2, channels))
    values = rhythms @ mix + 0.1 * rng.normal(size=(rows, channels))
    return (10.0 ** (np.arange(channels) % 4) + 3 * np.arange(1, channels + 1) * values).astype(np.float32)


def table(*values: NDArray[np.float32], interval_s: float = 1.0, names: tuple[str, ...] | None = None) -> Table:
    """One log of streams that report together, each ``values`` ``[n, C]``."""
    names = names or tuple(f"s{number}" for number in range(len(values)))
    step = round(interval_s * SECOND_NS)
    rows = [
        (START + index * step, name, own[index])
        for index in range(max(map(len, values)))
        for name, own in zip(names, values, strict=True)
        if index < len(own)
    ]
    times = np.array([time for time, _, _ in rows], np.int64)
    return Table(
        [name for _, name, _ in rows],
        times,
        np.array([row for _, _, row in rows], np.float32),
        [format_time(int(time)) for time in times],
        tuple(f"c{c}" for c in range(values[0].shape[1])),
    )


def write_csv(path: Path, readings: Table) -> Path:
    """The table as a CSV file with a column ``stream``."""
    lines = [",".join(["timestamp", "stream", *readings.channels])]
    for text, stream, row in zip(readings.timestamps, readings.streams, readings.values, strict=True):
        lines.append(",".join([text, stream, *("" if np.isnan(v) else repr(float(v)) for v in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path
