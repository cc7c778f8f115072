"""Sampling images: the same whether they are made at once or in parts; noise is drawn by blocks, each from its seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.images.faults import KINDS
from trainer.synthesis.images.generator import CODE, sizes
from trainer.synthesis.images.lesson import Pixels
from trainer.synthesis.images.recipe import BATCH, INPUTS, ImageRecipe
from trainer.synthesis.planted import Told
from trainer.synthesis.sampler import Graph, Styles, session_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Mean change over all values of an image, as a share of the pixels' span, below which nobody sees a fault.
VISIBLE = 0.02


class ImageSampler:
    """Makes images by a recipe. ``graph``: what is in the place of the recipe's own, see ``in_torch``."""

    def __init__(
        self, recipe: ImageRecipe, seed: int, styles: Styles | None = None, graph: Graph | None = None
    ) -> None:
        self.recipe, self.seed, self.styles = recipe, seed, styles or Styles()
        self._graph = graph or session_of(recipe.graph, INPUTS)

    def images(self, stream: int, group: int, start_ns: int, count: int) -> tuple[Ints, Floats]:
        """(times ``[n]``, images ``[n, H, W, bands]``) of one stream (its number)."""
        parts = [self.block(stream, group, start_ns, block) for block in range(-(-count // BATCH))]
        times, images = (np.concatenate(own) for own in zip(*parts, strict=True))
        return times[:count], images[:count]

    def block(self, stream: int, group: int, start_ns: int, block: int) -> tuple[Ints, Floats]:
        """Likewise the images of one block, ``BATCH`` of them."""
        rng = np.random.default_rng([self.seed, stream, block])
        moments = start_ns + self.recipe.manifest.interval_ns * np.arange(block * BATCH, (block + 1) * BATCH)
        stages = sizes(self.recipe.manifest.frame)
        counts = [*(h * w for h, w in stages), self.recipe.manifest.frame.values]
        spreads = [self.styles.middle] * (len(stages) - 1) + [self.styles.fine] * 2
        noise = [x * rng.standard_normal((BATCH, n), "f4") for x, n in zip(spreads, counts, strict=True)]
        code = np.float32(self.styles.coarse) * rng.standard_normal((BATCH, CODE), "f4")
        given = [code, np.concatenate(noise, axis=1).astype(np.float32), self.recipe.clock.context(moments, group)]
        made = self._graph(given)  # [BATCH, bands, H, W]
        return moments, self.recipe.pixels.back(made.transpose(0, 2, 3, 1))


def spoil_images(
    pixels: Pixels, times: Ints, images: Floats, stream: str, wanted: int, seed: Sequence[int], kinds: Sequence[str]
) -> tuple[Floats, list[Told]]:
    """Images ``[n, H, W, bands]`` of one stream with faults in ``wanted`` of them, and which; not those that nobody
    could see.
    """
    rng = np.random.default_rng([*seed, 1])
    spoilt, told = images.copy(), []
    scaled = pixels.scaled(images)
    for place in np.sort(rng.choice(len(images), min(wanted, len(images)), replace=False)).tolist():
        kind = kinds[int(rng.integers(len(kinds)))]
        other = scaled[int(rng.integers(len(images)))]
        changed = KINDS[kind](scaled[place], other, rng)
        if np.abs(changed - scaled[place]).mean() >= VISIBLE:
            spoilt[place] = pixels.back(changed)
            told.append(Told(stream, kind, int(times[place]), int(times[place])))
    return spoilt, told
