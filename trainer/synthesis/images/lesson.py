"""What a generator of images learns from: images from 0 to 1 with their context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.adapters.files import Table
from schemas.errors import DataError
from schemas.frame import Frame
from schemas.moment import SECOND_NS
from trainer.data import interval_of, rows_by_stream
from trainer.synthesis.clock import Clock
from trainer.synthesis.game import Draw, Seen
from trainer.synthesis.images.generator import CODE, ImageGenerator
from trainer.synthesis.lesson import group_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pixels:
    """What values a pixel has."""

    low: float
    high: float
    whole: bool
    """Whole numbers only."""

    @classmethod
    def of(cls, values: Floats) -> Pixels:
        """Of images ``[N, V]``; NaN where missing."""
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return cls(low, high, bool((np.nan_to_num(values) == np.round(np.nan_to_num(values))).all()))

    @property
    def span(self) -> float:
        """Never 0."""
        return max(self.high - self.low, 1e-6)

    def scaled(self, values: Floats) -> Floats:
        """From 0 to 1; what is missing is 0."""
        scaled: Floats = np.nan_to_num((values - np.float32(self.low)) / np.float32(self.span)).astype(np.float32)
        return scaled

    def back(self, scaled: Floats) -> Floats:
        """The values again, as the camera has them."""
        values = np.float32(self.low) + np.float32(self.span) * np.clip(scaled, 0, 1)
        found: Floats = (np.round(values) if self.whole else values).astype(np.float32)
        return found


@dataclass(frozen=True)
class ImageLesson:
    """Images, and what is the same for all of them."""

    frame: Frame
    groups: tuple[str, ...]
    interval_ns: int
    clock: Clock
    pixels: Pixels
    images: Floats
    """``[N, bands, H, W]``, from 0 to 1, in the order of time."""
    context: Floats
    """``[N, K]``."""
    group: Ints
    """``[N]``."""
    start_ns: int
    stop_ns: int

    def windows(self) -> Floats:
        """As their camera has them, see ``as_windows``."""
        return as_windows(self.pixels.back(self.images))

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """(images, context) by torch's random state."""
        rows = torch.randint(len(self.images), (count,)).numpy()
        return torch.from_numpy(self.images[rows]), torch.from_numpy(self.context[rows])

    def draw(self) -> Draw:
        """What a critic sees."""

        def seen(generator: nn.Module, count: int) -> Seen:
            assert isinstance(generator, ImageGenerator)
            _, context = self.drawn(count)
            made = generator(torch.randn(count, CODE), torch.randn(count, generator.noises), context)
            return Seen(made, context, *self.drawn(count))

        return seen


def as_windows(images: Floats) -> Floats:
    """Images ``[N, bands, H, W]`` as windows ``[N, h, w · bands]``, a row after the other; large ones made smaller."""
    N, bands, H, W = images.shape
    down, across = -(-H // SIDE), -(-W // SIDE)
    h, w = H // down, W // across
    small = images[:, :, : h * down, : w * across].reshape(N, bands, h, down, w, across).mean(axis=(3, 5))
    return np.ascontiguousarray(small.transpose(0, 2, 3, 1).reshape(N, h, w * bands))


#: Side of the images that are compared, at most.
SIDE = 32


def lesson_of(table: Table, frame: Frame, patterns: Sequence[str], pixels: Pixels | None = None) -> ImageLesson:
    """Of images, a row of the table each; ``pixels``: None: by these. Raises DataError where there is too little."""
    by_stream = rows_by_stream(table)
    groups = np.zeros(len(table), np.int64)
    for stream, rows in by_stream.items():
        groups[rows] = group_of(stream, patterns)
    for number, pattern in enumerate(patterns):
        if not (groups == number).any():
            raise DataError(f"no image is of {pattern}")
    interval = interval_of(table, by_stream)
    span_s = int(table.times.max() - table.times.min()) / SECOND_NS
    clock = Clock.of(span_s, interval / SECOND_NS, len(patterns))
    order = np.argsort(table.times, kind="stable")
    pixels = pixels or Pixels.of(table.values)
    scaled = pixels.scaled(table.values[order]).reshape(-1, *frame).transpose(0, 3, 1, 2)
    context = np.concatenate(
        [clock.context(table.times[[row]], int(groups[row])) for row in order.tolist()]
        or [np.zeros((0, clock.size), np.float32)]
    )
    return ImageLesson(
        frame, tuple(patterns), interval, clock, pixels, np.ascontiguousarray(scaled), context, groups[order],
        int(table.times.min()), int(table.times.max()),
    )  # fmt: skip
