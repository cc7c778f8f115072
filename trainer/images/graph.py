"""The graph that is served for images: scaling, the autoencoder, the error of each pixel and its reduction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data import CLIP
from trainer.images.architecture import ImageAutoencoder, as_images, as_readings
from trainer.images.score import PixelScore


class ImageGraph(nn.Module):
    """From images as the detector holds them to scores; inputs and outputs as ``detector.engine.scorer`` says."""

    mean: Tensor

    def __init__(self, network: ImageAutoencoder, score: PixelScore) -> None:
        super().__init__()
        self.network, self.score, self.frame = network, score, network.frame
        pixels = self.frame.height * self.frame.width
        self.register_buffer("mean", torch.full((pixels, 1), 1 / pixels))

    def forward(
        self, x: Tensor, mask: Tensor, loc: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Score ``[B]``, error of each band ``[B, C]``, its expected mean ``[B, C]``, the expected image ``[B, 1, V]``
        and the error of each pixel ``[B, H, W]``.

        ``x`` ``[B, 1, V]`` raw, anything where ``mask`` ``[B, 1, V]`` is false; ``loc`` and ``scale`` ``[B, C]``.
        """
        low, span = (a[:, :, None, None] for a in (loc, scale))  # [B, C, 1, 1]
        observed = as_images(mask, self.frame)  # [B, C, H, W]
        filled = torch.where(observed, as_images(x, self.frame), low)  # [B, C, H, W], and NaN ends here
        z = ((filled - low) / span).clamp(-CLIP, CLIP)  # [B, C, H, W]
        expected = self.network(z)  # [B, C, H, W]
        score, pixels = self.score(z, expected, observed)  # [B], [B, H, W]
        residual = torch.where(observed, z - expected, 0.0)  # [B, C, H, W]
        error = self._mean(residual.square())  # [B, C]
        usual = self._mean(expected) * scale + loc  # [B, C]
        window = as_readings(expected * span + low).unsqueeze(1)  # [B, 1, V]
        return score, error, usual, window, pixels

    def _mean(self, images: Tensor) -> Tensor:
        # a product, not a mean: ONNX Runtime's sum of a row depends on where in memory the row begins
        return (images.flatten(2) @ self.mean).squeeze(2)  # [B, C]
