"""Principal components of whole images: each is expected to be what its projection on them is. The baseline.

Of small images only: an axis holds a number for every pixel. Axes: B images, V numbers of an image, K components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.errors import SettingsError
from schemas.frame import Frame
from trainer.images.architecture import ImageAutoencoder
from trainer.models.architecture import Size

#: Numbers of an image, and images, beyond which the decomposition takes too long and too much memory.
MOST_VALUES, MOST_IMAGES = 4096, 5000


class ImagePCA(ImageAutoencoder):
    """``latent`` components, or as many as carry ``variance`` of it. Until ``solve`` an image's expectation is 0."""

    mean: Tensor
    axes: Tensor

    def __init__(self, frame: Frame, size: Size) -> None:
        super().__init__(frame)
        if frame.values > MOST_VALUES:
            raise SettingsError(f"images of {frame} are too large for pca ({MOST_VALUES} values): take --model conv")
        self.size = size
        self.register_buffer("mean", torch.zeros(frame.values))
        self.register_buffer("axes", torch.zeros(size.latent or 1, frame.values))

    def solve(self, z: Tensor) -> None:
        """Find the components of images ``[n, bands, H, W]``."""
        flat = z.flatten(1).double()  # [n, V]
        mean = flat.mean(0)
        _, spread, axes = torch.linalg.svd(flat - mean, full_matrices=False)  # [n], [n, V]
        share = spread.square().cumsum(0) / spread.square().sum().clamp(min=1e-12)
        kept = self.size.latent or int((share < self.size.variance - 1e-12).sum()) + 1
        self.mean, self.axes = mean.float(), axes[:kept].float()

    def encode(self, z: Tensor) -> Tensor:
        """Scores on the components, ``[B, K]``."""
        return (z.flatten(1) - self.mean) @ self.axes.T

    def decode(self, code: Tensor) -> Tensor:
        """See ``ImageAutoencoder.decode``."""
        frame = self.frame
        return (code @ self.axes + self.mean).reshape(-1, frame.bands, frame.height, frame.width)
