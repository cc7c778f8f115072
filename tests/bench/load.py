"""The load: 38-channel JSON readings of 1,000 streams in turn, and models that were fitted on the same process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.folder import write_model
from trainer.pipeline import learn
from trainer.settings import FitSettings

STREAMS = 1000
CHANNELS = 38
PARTITIONS = 3
FIT_STEPS = 120  # readings of each stream that the models are fitted on; the topic goes on from there
START_MS = 1_700_000_000_000

NAMES = [f"machine-{n:04d}" for n in range(STREAMS)]
CHANNEL_NAMES = tuple(f"c{n:02d}" for n in range(CHANNELS))


def steps(first: int, count: int) -> Iterator[NDArray[np.float64]]:
    """One reading of every stream, ``[STREAMS, CHANNELS]``, for each second: six oscillations, mixed, and noise."""
    shared = np.random.default_rng(0)
    mix = shared.normal(size=(6, CHANNELS))
    phase = shared.uniform(0, 2 * np.pi, (STREAMS, 6))
    speed = 2 * np.pi / np.linspace(8, 30, 6)
    for step in range(first, first + count):
        noise = np.random.default_rng((1, step)).normal(size=(STREAMS, CHANNELS))
        yield np.round(np.sin(speed * step + phase) @ mix + 0.2 * noise, 6)


def table(first: int, count: int) -> Table:
    """These seconds as a table."""
    values = np.concatenate(list(steps(first, count))).astype(np.float32)
    times = (START_MS + 1000 * np.repeat(np.arange(first, first + count), STREAMS)) * 1_000_000
    return Table(NAMES * count, times, values, [""] * len(times), CHANNEL_NAMES)


def records(readings: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of this many readings after those that the models know."""
    left = readings
    for number, row in enumerate(steps(FIT_STEPS, -(-readings // STREAMS))):
        stamp = START_MS + 1000 * (FIT_STEPS + number)
        for name, values in list(zip(NAMES, row.tolist(), strict=True))[:left]:
            reading = {"stream": name, "timestamp": stamp, "values": dict(zip(CHANNEL_NAMES, values, strict=True))}
            yield name.encode(), orjson.dumps(reading)
        left -= STREAMS


def fit(architecture: str, folder: Path) -> Path:
    """Fit a model and write its folder."""
    settings = FitSettings.load({"model": architecture, "epochs": 3})  # how good it is does not matter here
    write_model(learn(table(0, FIT_STEPS), settings).model, folder)
    return folder
