"""From one made stretch to another, step by step: between two seeds, or between two measured windows.

Noise of two seeds is mixed as sin and cos of an angle: so every mixture is as much noise as either (White, "Sampling
generative networks", 2016). Of measured windows the means of the variational autoencoder's codes are mixed evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from detector.adapters.files import Table
from schemas.errors import DataError
from schemas.moment import format_time
from trainer.data import rows_by_stream
from trainer.synthesis.generator import AFTER, BEFORE, STRIDES
from trainer.synthesis.recipe import INPUTS, Recipe
from trainer.synthesis.sampler import BLOCK, LEAD, TAIL, Sampler
from trainer.synthesis.variational import LENGTH

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Readings that are shown between two measured windows: those that see nothing from beyond.
SHOWN = slice(BEFORE, LENGTH - AFTER)

#: Readings that are shown between two seeds.
SEEDED = 288


@dataclass(frozen=True)
class End:
    """One end: noise of each rate for LEAD + BLOCK + TAIL readings, and the context there."""

    name: str
    noise: Sequence[Floats]
    context: Floats
    """``[K, n]``."""
    measured: Floats | None = None
    """``[n, C]``: what it stands for, in engineering units; None: a seed."""


@dataclass(frozen=True)
class Path:
    """What lies between."""

    names: tuple[str, str]
    channels: tuple[str, ...]
    interval_ns: int
    steps: Floats
    """``[steps, n, C]``, engineering units."""
    measured: tuple[Floats | None, Floats | None]
    """``[n, C]``: what the ends stand for."""


def of_seed(recipe: Recipe, seed: int, group: int) -> End:
    """The stretch that ``synth sample`` begins with for this seed."""
    manifest = recipe.manifest
    moments = manifest.start_ns + manifest.interval_ns * np.arange(-LEAD, BLOCK + TAIL)
    return End(f"seed {seed}", Sampler(recipe, seed).noise(group, 0), recipe.clock.context(moments, group).T)


def of_window(recipe: Recipe, table: Table, moment_ns: int, group: int) -> End:
    """The window of measured readings from a moment on. Raises DataError where there is none."""
    by_stream = rows_by_stream(table)
    if len(by_stream) != 1:
        raise DataError(f"the data hold {len(by_stream)} streams: name a file of one")
    (rows,) = by_stream.values()
    first = int(np.searchsorted(table.times[rows], moment_ns))
    rows = rows[first : first + LENGTH]
    step = recipe.manifest.interval_ns
    if len(rows) < LENGTH or (np.abs(np.diff(table.times[rows]) - step) > step / 2).any():
        raise DataError(
            f"from {format_time(moment_ns)} on there are no {LENGTH} readings in a row: name another moment"
        )
    values = table.values[rows]
    own = recipe.marginals[group]
    scores = np.stack([own[c].scores(_filled(values[:, c])) for c in recipe.manifest.varying])  # [V, LENGTH]
    moments = int(table.times[rows[0]]) + step * np.arange(-LEAD, BLOCK + TAIL)
    context = recipe.clock.context(moments, group).T  # [K, n]
    fed = {"x": scores[None], "context": context[None, :, LEAD : LEAD + LENGTH]}
    session = ort.InferenceSession(recipe.encoder, providers=["CPUExecutionProvider"])
    means = session.run(list(INPUTS[:3]), {name: fed[name] for name in (i.name for i in session.get_inputs())})
    noise = [_placed(mean[0], stride) for mean, stride in zip(means, STRIDES, strict=True)]
    noise.append(np.zeros((len(scores), LEAD + BLOCK + TAIL), np.float32))
    return End(format_time(int(table.times[rows[0]])), noise, context, values)


def _filled(column: Floats) -> Floats:
    """A value that is missing is what was last read, before the first the first."""
    known = np.flatnonzero(~np.isnan(column))
    if not len(known):
        raise DataError("a channel has no values there: name another moment")
    place = np.maximum(np.searchsorted(known, np.arange(len(column)), side="right") - 1, 0)
    return column[known[place]]


def _placed(mean: Floats, stride: int) -> Floats:
    """Draws of a window among those of a block, and none elsewhere."""
    whole = np.zeros((len(mean), (LEAD + BLOCK + TAIL) // stride), np.float32)
    whole[:, LEAD // stride : LEAD // stride + mean.shape[1]] = mean
    return whole


def between(recipe: Recipe, one: End, other: End, steps: int, group: int) -> Path:
    """``steps`` stretches, the ends included. Raises DataError where nothing varies."""
    if not recipe.graph:
        raise DataError("no channel of this generator varies: there is nothing between")
    shares = np.linspace(0, 1, steps)
    measured = one.measured is not None and other.measured is not None
    weights = [(1 - t, t) if measured else (np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)) for t in shares]
    noise = [
        np.stack([a * first + b * second for a, b in weights]).astype(np.float32)
        for first, second in zip(one.noise, other.noise, strict=True)
    ]
    context = np.stack([(1 - t) * one.context + t * other.context for t in shares]).astype(np.float32)
    made = Sampler(recipe, 0).made(noise, context)
    shown = SHOWN if measured else slice(0, SEEDED)
    ends = tuple(None if end.measured is None else end.measured[SHOWN] for end in (one, other))
    return Path(
        (one.name, other.name), recipe.manifest.channels, recipe.manifest.interval_ns,
        recipe.values(made, group)[:, LEAD:][:, shown], (ends[0], ends[1]),
    )  # fmt: skip
