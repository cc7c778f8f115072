"""Choosing the default image model: as for sensors, by what each candidate finds of planted faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from detector.engine.model import Model
from detector.engine.readings import at_once
from detector.engine.scorer import IMAGE_SHARE, Scorer
from trainer.images.architecture import ImageAutoencoder
from trainer.images.data import PreparedImages
from trainer.images.faults import KINDS
from trainer.selection import NORMAL, average_precision

#: Different plantings of the same kinds of fault.
PLANTINGS = 4

#: A costlier model has to find this much more: an image takes far longer to score than a reading.
LEAST_GAIN = 0.05

#: Images that faults are planted into, at most and at least.
IMAGES, LEAST = 200, 8

#: Numbers that are scored in all, about: fewer images where they are large.
MOST_VALUES = 1 << 27

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
"""``[n, H, W, bands]``, scaled."""


class ImageRehearsal:
    """Normal images of the calibration stretch, and each with a fault of every kind: the same for every candidate."""

    def __init__(self, data: PreparedImages, seed: int) -> None:
        scorings = (PLANTINGS * len(KINDS) + 1) * data.frame.values
        count = min(max(MOST_VALUES // scorings, LEAST), IMAGES, len(data.calibration))
        self._rows = np.unique(np.linspace(0, len(data.calibration) - 1, count).astype(np.int64))
        self._data, self._seed = data, seed

    def judge(self, draft: Model) -> Floats:
        """Area under precision and recall of each planting and kind, ``[P, kinds]``."""
        scorer = Scorer(draft.graph, draft.manifest.batching)
        usual = self._score(scorer, self._images)
        found = np.empty((PLANTINGS, len(KINDS)))
        for planting, kind in np.ndindex(found.shape):
            score = np.concatenate([usual, self._score(scorer, partial(self._faulty, planting, kind))])
            truth = np.repeat([NORMAL, kind], len(self._rows))
            found[planting, kind] = average_precision(truth, kind, score)
        return found

    def _images(self, places: slice) -> Images:
        return self._data.calibration.scaled(self._rows[places]).reshape(-1, *self._data.frame)

    def _faulty(self, planting: int, kind: int, places: slice) -> Images:
        """The same images, each with a fault; others to cut from are the next ones."""
        plant = list(KINDS.values())[kind]
        images = self._images(places)
        numbers = np.arange(places.start, places.start + len(images))
        others = self._data.calibration.scaled(self._rows[(numbers + 1) % len(self._rows)]).reshape(images.shape)
        rngs = (np.random.default_rng([self._seed, planting, kind, number]) for number in numbers)
        return np.stack([plant(*each) for each in zip(images, others, rngs, strict=True)])

    def _score(self, scorer: Scorer, images: Callable[[slice], Images]) -> Floats:
        """Of all images, a few at a time."""
        size = at_once(IMAGES, IMAGE_SHARE * self._data.frame.values)
        found = []
        for at in range(0, len(self._rows), size):
            z = images(slice(at, min(at + size, len(self._rows)))).reshape(-1, 1, self._data.frame.values)  # [n, 1, V]
            found.append(scorer.score(z * self._data.span + self._data.low, *self._data.scaling(len(z)))[0])
        return np.concatenate(found).astype(np.float64)


@torch.no_grad()
def image_mflop(network: ImageAutoencoder) -> float:
    """Million floating-point operations to reconstruct one image; to compare it then costs all models the same."""
    frame = network.frame
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, frame.bands, frame.height, frame.width))
    return float(counter.get_total_flops()) / 1e6
