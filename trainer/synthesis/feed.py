"""A feed: made readings of many streams, stretch by stretch, with the faults that were ordered in them.

A stretch is a block of the sampler. Faults are planted in each by itself, so that a feed without an end needs no more
memory than one that has ended, and the same seed gives the same readings however many are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from schemas.errors import SettingsError
from trainer.synthesis.marginals import readings_of
from trainer.synthesis.planted import Faults, Told, scale_of, spoil
from trainer.synthesis.sampler import BLOCK, Sampler

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Values of one stretch of all streams, at most: 1 GiB of them, and as many are made ahead.
MOST_VALUES = 1 << 28

#: Normal scores by which a channel's spread is measured.
SPREAD = 1001


@dataclass(frozen=True)
class Stretch:
    """Readings of all streams at the same times."""

    times: Ints
    """``[n]``, ns."""
    values: Floats
    """``[S, n, C]``; of images ``[S, n, H, W, bands]``."""
    told: tuple[Told, ...]
    """The faults that are in it."""
    asked: int
    """How many it should have been."""


class Feed:
    """Streams of a recipe's groups, ``each`` of every group, from ``start_ns`` on."""

    def __init__(self, sampler: Sampler, each: int, start_ns: int, faults: Faults | None = None) -> None:
        manifest = sampler.recipe.manifest
        self.names = tuple(name_of(pattern, n, each) for pattern in manifest.groups for n in range(each))
        self.channels = manifest.channels
        self._sampler, self._each, self._start_ns, self._faults = sampler, each, start_ns, faults
        self._scales = [_scale(sampler, group) for group in range(len(manifest.groups))]

    def of_stream(self, number: int, length: int) -> Iterator[Stretch]:
        """One stream, ``length`` readings of it."""
        for block in range(-(-length // BLOCK)):
            yield self._stretch(range(number, number + 1), block, min(BLOCK, length - block * BLOCK))

    def of_all(self, length: int | None = None) -> Iterator[Stretch]:
        """All streams, ``length`` readings of each, without an end where it is None; the next one is made meanwhile.

        Raises SettingsError where one stretch of so many streams is too much.
        """
        size = len(self.names) * BLOCK * len(self.channels)
        if size > MOST_VALUES:
            most = MOST_VALUES // (BLOCK * len(self.channels))
            raise SettingsError(f"{len(self.names)} streams are too many for one process: ask for {most} at most")
        return ahead(self._blocks(length))

    def _blocks(self, length: int | None) -> Iterator[Stretch]:
        for block in count() if length is None else range(-(-length // BLOCK)):
            wanted = BLOCK if length is None else min(BLOCK, length - block * BLOCK)
            yield self._stretch(range(len(self.names)), block, wanted)

    def _stretch(self, numbers: Sequence[int], block: int, wanted: int) -> Stretch:
        parts: list[Floats] = []
        told: list[Told] = []
        asked = 0
        for group in sorted({number // self._each for number in numbers}):
            own = [number for number in numbers if number // self._each == group]
            times, values = self._sampler.block(own, group, self._start_ns, block, wanted)
            for number, of_one in zip(own, values, strict=True):
                if self._faults is None:
                    continue
                due = self._faults.within(block * BLOCK, wanted, number)
                spoilt, found = spoil(
                    times, of_one, self.names[number], self.channels, due, [self._faults.seed, number, block],
                    self._faults.kinds, self._scales[group],
                )  # fmt: skip
                of_one[:], asked = spoilt, asked + due
                told += found
            parts.append(values)
        return Stretch(times, np.concatenate(parts), tuple(told), asked)


def name_of(pattern: str, number: int, each: int) -> str:
    """Of a made stream: its group's pattern, the first star of which is a number."""
    if "*" not in pattern:
        return pattern if each == 1 else f"{pattern}-{number + 1}"
    return "default" if pattern == "*" and each == 1 else pattern.replace("*", f"{number + 1}", 1).replace("*", "")


def _scale(sampler: Sampler, group: int) -> Floats:
    """Deviation of each channel ``[C]`` by its distribution, the same for every stretch."""
    manifest, own = sampler.recipe.manifest, sampler.recipe.marginals[group]
    share = (np.arange(SPREAD) + 0.5) / SPREAD
    scores = np.repeat(ndtri(share).astype(np.float32)[:, None], len(manifest.varying), axis=1)
    return scale_of(readings_of(scores, own, manifest.varying, manifest.same_as))


def ahead(stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """The same, each made while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Stretch | None] = pool.submit(next, stretches, None)
        while (stretch := coming.result()) is not None:
            coming = pool.submit(next, stretches, None)
            yield stretch
