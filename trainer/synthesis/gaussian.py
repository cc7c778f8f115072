"""The cheap sample: windows of a Gaussian with the data's mean and largest principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.synthesis.quality import Scale

Floats = NDArray[np.float32]

#: Share of the variance that the components hold.
HELD = 0.95


@dataclass(frozen=True)
class Gaussian:
    """Windows ``[W, C]`` of k components."""

    scale: Scale
    mean: Floats
    """``[W·C]``."""
    axes: Floats
    """``[k, W·C]``, each as long as its deviation."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, windows: Floats) -> Gaussian:
        """Of windows ``[N, W, C]``."""
        scale = Scale.of(windows)
        flat = scale.flat(windows).astype(np.float64)
        mean = flat.mean(axis=0)
        _, lengths, axes = np.linalg.svd(flat - mean, full_matrices=False)
        held = np.cumsum(lengths**2) / np.sum(lengths**2)
        k = int(np.searchsorted(held, HELD)) + 1
        deviations = lengths[:k, None] / np.sqrt(max(len(windows) - 1, 1))
        return cls(scale, mean.astype(np.float32), (deviations * axes[:k]).astype(np.float32), windows.shape[1:])

    def drawn(self, count: int, seed: int) -> Floats:
        """Windows ``[count, W, C]``."""
        rng = np.random.default_rng(seed)
        flat = self.mean + rng.standard_normal((count, len(self.axes)), np.float32) @ self.axes
        z = flat.reshape(count, *self.shape)
        spread = np.where(np.isfinite(self.scale.scale), self.scale.scale, np.float32(0))
        made: Floats = z * spread + self.scale.loc
        return made
