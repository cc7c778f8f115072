"""Made images of many streams, a block of each at a time, with faults in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError
from trainer.synthesis.feed import MOST_VALUES, Stretch, ahead, name_of
from trainer.synthesis.images.recipe import BATCH
from trainer.synthesis.images.sampler import ImageSampler, spoil_images
from trainer.synthesis.planted import Faults, Told

Floats = NDArray[np.float32]


class ImageFeed:
    """Streams of a recipe's groups, ``each`` of every group, from ``start_ns`` on."""

    def __init__(self, sampler: ImageSampler, each: int, start_ns: int, faults: Faults | None = None) -> None:
        manifest = sampler.recipe.manifest
        self.names = tuple(name_of(pattern, n, each) for pattern in manifest.groups for n in range(each))
        self.manifest = manifest
        self._sampler, self._each, self._start_ns, self._faults = sampler, each, start_ns, faults

    def of_all(self, length: int | None = None) -> Iterator[Stretch]:
        """All streams, ``length`` images of each, without an end where it is None; the values of a stretch are
        ``[S, n, H, W, bands]``.

        Raises SettingsError where one stretch of so many streams is too much.
        """
        of_one = BATCH * self.manifest.frame.values
        if len(self.names) * of_one > MOST_VALUES:
            most = MOST_VALUES // of_one
            raise SettingsError(f"{len(self.names)} streams are too many for one process: ask for {most} at most")
        return ahead(self._blocks(length))

    def _blocks(self, length: int | None) -> Iterator[Stretch]:
        for block in count() if length is None else range(-(-length // BATCH)):
            yield self._stretch(block, BATCH if length is None else min(BATCH, length - block * BATCH))

    def _stretch(self, block: int, wanted: int) -> Stretch:
        parts: list[Floats] = []
        told: list[Told] = []
        asked = 0
        for number, name in enumerate(self.names):
            times, images = self._sampler.block(number, number // self._each, self._start_ns, block)
            times, images = times[:wanted], images[:wanted]
            if self._faults is not None:
                faults, pixels = self._faults, self._sampler.recipe.pixels
                due = faults.within(block * BATCH, wanted, number)
                seed = [faults.seed, number, block]
                images, found = spoil_images(pixels, times, images, name, due, seed, faults.kinds)
                told, asked = told + found, asked + due
            parts.append(images)
        return Stretch(times, np.stack(parts), tuple(told), asked)
