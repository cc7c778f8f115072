"""Planted faults: what breaks in real sensors, put into normal readings with exact truth.

Used wherever a fault must be known beforehand: to choose between models, in gates and tests, in generated data. Pure
NumPy and deterministic: the same arguments give the same bytes.

A fault's size is in units of the channel's own scale (about its standard deviation), unless its kind says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Seed = int | Sequence[int]


class Kind(StrEnum):
    """What breaks."""

    SPIKE = "spike"
    """Single readings far off: every third of the stretch, by ``size``."""
    SHIFT = "shift"
    """The level moves by ``size`` at once."""
    DRIFT = "drift"
    """The level moves steadily, by ``size`` at the end."""
    STUCK = "stuck"
    """The last value before the stretch stays; ``size`` has no meaning."""
    DROPOUT = "dropout"
    """Values are missing; ``size`` has no meaning."""
    NOISE = "noise"
    """Noise of standard deviation ``size`` is added."""
    FREQUENCY = "frequency"
    """The course of the stretch, played ``size`` times as fast, over and over."""
    CORRELATION = "correlation"
    """The channel's own course of another time: right by itself, but it no longer fits the others; no ``size``."""
    DELAY = "delay"
    """The channel's values come ``size`` readings late."""


KINDS = tuple(Kind)

#: A cell counts as changed when it moved by this share of the channel's scale, or went missing.
VISIBLE = 0.5


@dataclass(frozen=True)
class Fault:
    """One fault: ``length`` readings from row ``start`` on, in these channels (indices)."""

    kind: Kind
    start: int
    length: int
    channels: tuple[int, ...]
    size: float


class Planted(NamedTuple):
    """Readings with faults in them."""

    values: Floats
    """``[N, C]``, NaN where missing."""
    truth: NDArray[np.bool_]
    """``[N, C]``: the cells that a fault covers, whether it changed them or not."""
    changed: tuple[bool, ...]
    """Of each fault: some cell moved by at least ``VISIBLE`` of its scale, so that it can be seen at all."""


class _Stretch(NamedTuple):
    """What a kind of fault works on."""

    values: Floats
    """``[N]``: the channel, without faults."""
    start: int
    end: int
    size: float
    scale: float
    rng: np.random.Generator

    @property
    def own(self) -> Floats:
        """The channel's values in the stretch."""
        return self.values[self.start : self.end]


def plant(values: Floats, faults: Sequence[Fault], scale: Floats, seed: Seed = 0) -> Planted:
    """A copy of readings ``[N, C]`` with these faults in it; ``scale`` ``[C]``, engineering units.

    A missing value stays missing. Where faults overlap, each is made from the normal values and the last one stays.
    Raises ValueError where a fault lies outside.
    """
    N, C = values.shape
    spoilt, truth = values.astype(np.float32, copy=True), np.zeros((N, C), bool)
    changed = []
    for number, fault in enumerate(faults):
        end = fault.start + fault.length
        if fault.start < 0 or fault.length < 1 or end > N or not all(0 <= c < C for c in fault.channels):
            raise ValueError(f"{fault} lies outside of {N} readings of {C} channels")
        visible = False
        for c in fault.channels:
            rng = np.random.default_rng([*_seeds(seed), number, c])
            stretch = _Stretch(values[:, c], fault.start, end, fault.size, float(scale[c]), rng)
            made = _MAKERS[fault.kind](stretch).astype(np.float32)
            if fault.kind is not Kind.DROPOUT:  # what is taken from elsewhere may be missing there
                made = np.where(np.isnan(made), stretch.own, made)
            made[np.isnan(stretch.own)] = np.nan
            spoilt[fault.start : end, c], truth[fault.start : end, c] = made, True
            visible |= _visible(stretch.own, made, stretch.scale)
        changed.append(visible)
    return Planted(spoilt, truth, tuple(changed))


def _seeds(seed: Seed) -> list[int]:
    return [seed] if isinstance(seed, int) else list(seed)


def _visible(before: Floats, after: Floats, scale: float) -> bool:
    gone = ~np.isnan(before) & np.isnan(after)
    moved = np.abs(np.nan_to_num(after) - np.nan_to_num(before)) >= max(VISIBLE * scale, 1e-12)
    return bool((gone | (moved & ~np.isnan(after))).any())


def _spike(at: _Stretch) -> Floats:
    spiked = at.own.copy()
    spiked[::3] += at.size * at.scale
    return spiked


def _shift(at: _Stretch) -> Floats:
    return at.own + np.float32(at.size * at.scale)


def _drift(at: _Stretch) -> Floats:
    way = np.arange(1, len(at.own) + 1, dtype=np.float32) / len(at.own)
    return (at.own + way * (at.size * at.scale)).astype(np.float32)


def _stuck(at: _Stretch) -> Floats:
    before = at.values[: at.start]
    known = before[~np.isnan(before)]
    return np.full(len(at.own), known[-1], np.float32) if len(known) else at.own.copy()


def _dropout(at: _Stretch) -> Floats:
    return np.full(len(at.own), np.nan, np.float32)


def _noise(at: _Stretch) -> Floats:
    return at.own + (at.size * at.scale * at.rng.standard_normal(len(at.own))).astype(np.float32)


def _frequency(at: _Stretch) -> Floats:
    place = (np.arange(len(at.own)) * at.size) % len(at.own)
    played: Floats = at.own[place.astype(np.int64)]
    return played


def _correlation(at: _Stretch) -> Floats:
    """Taken from as far away as can be, with some chance in it, so that a daily rhythm does not simply repeat."""
    N, length = len(at.values), len(at.own)
    away = N // 2 + int(at.rng.integers(-N // 8, N // 8 + 1))
    return at.values[(np.arange(at.start, at.start + length) + away) % N]


def _delay(at: _Stretch) -> Floats:
    late = round(at.size)
    return at.values[np.maximum(np.arange(at.start, at.end) - late, 0)]


_MAKERS: dict[Kind, Callable[[_Stretch], Floats]] = {
    Kind.SPIKE: _spike,
    Kind.SHIFT: _shift,
    Kind.DRIFT: _drift,
    Kind.STUCK: _stuck,
    Kind.DROPOUT: _dropout,
    Kind.NOISE: _noise,
    Kind.FREQUENCY: _frequency,
    Kind.CORRELATION: _correlation,
    Kind.DELAY: _delay,
}

#: Kinds that show only in a channel that moves.
NEED_MOVEMENT = (Kind.STUCK, Kind.FREQUENCY, Kind.CORRELATION, Kind.DELAY)

#: Sizes that ``draw`` takes, from and to, evenly on a logarithmic scale: from barely to plainly visible.
SIZES: dict[Kind, tuple[float, float]] = {
    Kind.SPIKE: (3, 8),
    Kind.SHIFT: (1, 5),
    Kind.DRIFT: (2, 6),
    Kind.STUCK: (1, 1),
    Kind.DROPOUT: (1, 1),
    Kind.NOISE: (1, 4),
    Kind.FREQUENCY: (2, 4),
    Kind.CORRELATION: (1, 1),
    Kind.DELAY: (4, 32),
}


def draw(
    values: Floats,
    scale: Floats,
    *,
    seed: Seed = 0,
    kinds: Sequence[Kind] = KINDS,
    per_kind: int = 3,
    lengths: tuple[int, int] = (4, 60),
    margin: int = 24,
) -> list[Fault]:
    """Faults at random for readings ``[N, C]``, in the order of time, none within ``margin`` readings of another or of
    either end; fewer where there is no room for all, whichever kinds chance leaves out.

    Lengths, sizes and the number of channels are even on a logarithmic scale; for the kinds that need movement those
    channels that move.
    """
    rng = np.random.default_rng(_seeds(seed))
    N, C = values.shape
    movers = moving(values, scale)
    fit, free = [], N - margin
    turns = [kind for _ in range(per_kind) for kind in rng.permutation(np.array(kinds, dtype=object)).tolist()]
    for kind in turns:
        length = _between(rng, *lengths)
        if (kind not in NEED_MOVEMENT or len(movers)) and length + margin <= free:
            fit.append((kind, length))
            free -= length + margin
    places = np.sort(rng.integers(0, max(free, 0) + 1, len(fit)))
    faults, at = [], margin
    for place, which in zip(places.tolist(), rng.permutation(len(fit)).tolist(), strict=True):
        kind, length = fit[which]
        choice = movers if kind in NEED_MOVEMENT else np.arange(C)
        channels = rng.choice(choice, _between(rng, 1, len(choice)), replace=False)
        sign = rng.choice([-1, 1]) if kind in (Kind.SPIKE, Kind.SHIFT, Kind.DRIFT) else 1
        low, high = SIZES[kind]
        size = float(sign * np.exp(rng.uniform(np.log(low), np.log(high))))
        faults.append(Fault(kind, at + place, length, tuple(sorted(channels.tolist())), size))
        at += length + margin
    return faults


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def moving(values: Floats, scale: Floats) -> NDArray[np.int64]:
    """Channels that change in at least a tenth of their steps, by something visible in their scale."""
    steps = np.abs(np.diff(values, axis=0)) > 0.01 * scale
    return np.flatnonzero(steps.mean(axis=0) >= 0.1) if len(steps) else np.empty(0, np.int64)
