"""Choosing the default image model: as for sensors, by what each candidate finds of planted faults."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from detector.engine.model import Model
from detector.engine.readings import at_once
from detector.engine.scorer import Scorer
from trainer.images.architecture import ImageAutoencoder
from trainer.images.data import PreparedImages
from trainer.images.faults import KINDS
from trainer.selection import NORMAL, average_precision

#: Different plantings of the same kinds of fault.
PLANTINGS = 4

#: Images that faults are planted into.
IMAGES = 200

Floats = NDArray[np.float64]


class ImageRehearsal:
    """Normal images of the calibration stretch, and each with a fault of every kind: the same for every candidate."""

    def __init__(self, data: PreparedImages, seed: int) -> None:
        count = min(IMAGES, len(data.calibration), at_once(IMAGES, 64 * data.frame.values))
        self._rows = np.unique(np.linspace(0, len(data.calibration) - 1, count).astype(np.int64))
        self._data, self._seed = data, seed

    def judge(self, draft: Model) -> Floats:
        """Area under precision and recall of each planting and kind, ``[P, kinds]``."""
        scorer = Scorer(draft.graph, draft.manifest.batching)
        normal = self._data.calibration.scaled(self._rows)  # [n, V]
        usual = self._score(scorer, normal)
        found = np.empty((PLANTINGS, len(KINDS)))
        for planting in range(PLANTINGS):
            for kind, plant in enumerate(KINDS.values()):
                rng = np.random.default_rng([self._seed, planting, kind])
                images = normal.reshape(-1, *self._data.frame)
                others = images[rng.permutation(len(images))]
                faulty = np.stack([plant(image, other, rng) for image, other in zip(images, others, strict=True)])
                score = np.concatenate([usual, self._score(scorer, faulty.reshape(len(images), -1))])
                truth = np.repeat([NORMAL, kind], len(images))
                found[planting, kind] = average_precision(truth, kind, score)
        return found

    def _score(self, scorer: Scorer, z: NDArray[np.float32]) -> Floats:
        each = np.ones((len(z), self._data.frame.bands), np.float32)
        low, span = self._data.low * each, self._data.span * each
        values = (z * self._data.span + self._data.low)[:, None]  # [n, 1, V]
        return scorer.score(values, low, span)[0].astype(np.float64)


@torch.no_grad()
def image_mflop(network: ImageAutoencoder) -> float:
    """Million floating-point operations to reconstruct one image."""
    frame = network.frame
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, frame.bands, frame.height, frame.width))
    return float(counter.get_total_flops()) / 1e6
