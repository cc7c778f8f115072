"""Dense autoencoder of whole windows, 64-16-64 (Sakurada & Yairi, "Anomaly detection using autoencoders with nonlinear
dimensionality reduction", MLSDA 2014).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.architecture import Autoencoder, Shape, Size, joined
from trainer.models.layers import halving, stack


class Dense(Autoencoder):
    """W·C + K → 64 → latent → 64 → W·C with rectifiers between; ``depth`` layers on either side, halving inwards."""

    default_window: ClassVar[int] = 10

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        cells = shape.window * shape.channels
        widths = halving(size.hidden or 64, size.depth or 1)
        self.code_size = size.latent or 16
        self.inward = stack([cells + shape.context, *widths], size.dropout)
        self.code: nn.Module = nn.Linear(widths[-1], self.code_size)
        self.outward = stack([self.code_size + shape.context, *reversed(widths)], size.dropout)
        self.readings = nn.Linear(widths[0], cells)

    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """``[B, narrowest hidden]``."""
        features: Tensor = self.inward(joined(z, context))  # [B, narrowest]
        return features

    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:
        """Windows ``[B, W, C]``."""
        h = self.outward(joined(code, context))  # [B, 64]
        flat: Tensor = self.readings(h)  # [B, W·C]
        return flat.view(-1, self.shape.window, self.shape.channels)  # [B, W, C]

    def last(self, code: Tensor, context: Tensor | None) -> Tensor:
        """The last C outputs alone."""
        h = self.outward(joined(code, context))  # [B, 64]
        C = self.shape.channels
        return F.linear(h, self.readings.weight[-C:], self.readings.bias[-C:])  # [B, C]
