"""Faults to order: planted into made or measured readings, at a stated rate, and told exactly."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.moment import format_time
from trainer.faults import KINDS, Fault, Kind, draw, plant

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Readings that lie between two faults, and between a fault and either end.
MARGIN = 24

#: Columns of the truth.
COLUMNS = ("stream", "kind", "start", "end", "channels", "size")


@dataclass(frozen=True)
class Told:
    """A fault of a stream, as whoever looks for it is told."""

    stream: str
    kind: str
    start_ns: int
    """Of its first reading."""
    end_ns: int
    """Of its last reading."""
    channels: tuple[str, ...] = ()
    size: float | None = None
    """None, as no channels: of an image."""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of COLUMNS."""
        times = format_time(self.start_ns), format_time(self.end_ns)
        size = "" if self.size is None else f"{self.size:.4g}"
        return (self.stream, str(self.kind), *times, ";".join(self.channels), size)

    def to_bytes(self) -> bytes:
        """As a JSON object."""
        stream, kind, start, end, _, size = self.cells
        told: dict[str, object] = {"stream": stream, "kind": kind, "start": start, "end": end}
        if self.size is not None:
            told |= {"channels": self.channels, "size": float(size)}
        return json.dumps(told, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Faults:
    """What is ordered."""

    rate: float
    """Faults per reading of a stream."""
    kinds: Sequence[str] = KINDS
    """Of readings, or of images."""
    seed: int = 0

    def within(self, first: int, count: int, stream: int) -> int:
        """How many of a stream (its number) begin among ``count`` readings from the ``first`` on.

        However a stream is cut, over its length they come to the rate.
        """
        begun = np.random.default_rng([self.seed, stream]).uniform()
        return math.floor(begun + (first + count) * self.rate) - math.floor(begun + first * self.rate)


def spoil(
    times: Ints,
    values: Floats,
    stream: str,
    channels: Sequence[str],
    wanted: int,
    seed: Sequence[int],
    kinds: Sequence[str] = KINDS,
    scale: Floats | None = None,
) -> tuple[Floats, list[Told]]:
    """Readings ``[n, C]`` of one stream with ``wanted`` faults in them, and what they are.

    Those for which there is no room, or that nobody could see, are left out. ``scale`` ``[C]``: deviation of each
    channel; None: of these readings.
    """
    if not wanted:
        return values, []
    scale = scale_of(values) if scale is None else scale
    rng = np.random.default_rng([*seed, 1])
    faults = draw(
        values, scale, seed=seed, kinds=[Kind(kind) for kind in kinds], per_kind=-(-wanted // len(kinds)), margin=MARGIN
    )
    if len(faults) > wanted:
        faults = [faults[n] for n in sorted(rng.choice(len(faults), wanted, replace=False).tolist())]
    visible = [fault for fault, seen in zip(faults, plant(values, faults, scale, seed).changed, strict=True) if seen]
    return plant(values, visible, scale, seed).values, [_told(fault, times, stream, channels) for fault in visible]


def scale_of(values: Floats) -> Floats:
    """Deviation of each channel; of one that is constant a hundredth of its value, so that it can be spoilt, too."""
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(np.nanstd(values.astype(np.float64), axis=0))
        usual = np.nan_to_num(np.abs(np.nanmean(values.astype(np.float64), axis=0)))
    scale: Floats = np.where(spread > 0, spread, np.maximum(0.01 * usual, 0.01)).astype(np.float32)
    return scale


def _told(fault: Fault, times: Ints, stream: str, channels: Sequence[str]) -> Told:
    last = fault.start + fault.length - 1
    named = tuple(channels[c] for c in fault.channels)
    return Told(stream, fault.kind, int(times[fault.start]), int(times[last]), named, fault.size)


def text_of(told: Iterable[Told]) -> str:
    """The truth as CSV, a fault a line, in the order of time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(one.cells for one in sorted(told, key=lambda one: (one.start_ns, one.stream)))
    return text.getvalue()


def asked_and_told(asked: int, told: int) -> str:
    """How many faults there are, and where it was asked for more, that."""
    fewer = f" of {asked} asked for: the others had no room, or could not be seen" if told < asked else ""
    return f", {told} fault{'s' * (told != 1)}{fewer}"
