"""A small generator, and the readings that it learned from: made once, for all tests that need one."""

from __future__ import annotations

from functools import cache

import numpy as np

from detector.adapters.files import Table
from trainer.synthesis.pipeline import Fitted, fit_generator
from trainer.synthesis.settings import SynthSettings

STEP_NS = 600 * 10**9
START_NS = 1_790_000_000 // 86_400 * 86_400 * 10**9


def table(count: int = 2400, streams: tuple[str, ...] = ("default",)) -> Table:
    """A daily rhythm and noise, whole numbers, a constant, a copy of the first."""
    steps, parts = np.arange(count), []
    for number in range(len(streams)):
        rng = np.random.default_rng([5, number])
        noise = rng.normal(size=(count, 2))
        rhythm = 3 * np.sin(2 * np.pi * steps / 144)
        first = 20 + 10 * number + rhythm + noise[:, 0]
        parts.append(np.stack([first, np.round(5 + rhythm + noise[:, 1]), np.full(count, 7.5), first], axis=1))
    values = np.stack(parts, axis=1).reshape(-1, 4).astype(np.float32)
    names = list(streams) * count
    times = START_NS + np.repeat(steps, len(streams)) * STEP_NS
    return Table(names, times, values, [""] * len(names), ("level", "count", "limit", "again"))


@cache
def made() -> Fitted:
    """Learned in a moment: it knows the rhythm and the ranges, and is told from real readings easily."""
    settings = SynthSettings.load({"steps": 200, "game_steps": 40, "hidden": 24, "model": "gan", "window": 12})
    return fit_generator(table(), settings)
