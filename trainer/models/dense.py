"""Dense autoencoder of whole windows, 64-16-64 (Sakurada & Yairi, "Anomaly detection using autoencoders with nonlinear
dimensionality reduction", MLSDA 2014).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.architecture import Architecture


class Dense(Architecture):
    """W·C → 64 → latent → 64 → W·C with rectifiers between."""

    default_window: ClassVar[int] = 10
    default_latent: ClassVar[int | None] = 16
    hidden: ClassVar[int] = 64

    def __init__(self, window: int, channels: int, latent: int | None) -> None:
        super().__init__(window, channels, latent)
        assert self.latent is not None
        self.inward = nn.Linear(window * channels, self.hidden)
        self.code = nn.Linear(self.hidden, self.latent)
        self.outward = nn.Linear(self.latent, self.hidden)
        self.readings = nn.Linear(self.hidden, window * channels)

    def encode(self, z: Tensor) -> Tensor:
        """Code ``[B, latent]``."""
        h = F.relu(self.inward(z.reshape(-1, self.window * self.channels)))  # [B, 64]
        return F.relu(self.code(h))  # [B, latent]

    def decode(self, code: Tensor) -> Tensor:
        """Windows ``[B, W, C]``."""
        h = F.relu(self.outward(code))  # [B, 64]
        flat: Tensor = self.readings(h)  # [B, W·C]
        return flat.reshape(-1, self.window, self.channels)  # [B, W, C]

    def newest(self, code: Tensor) -> Tensor:
        """The last C outputs alone."""
        h = F.relu(self.outward(code))  # [B, 64]
        weight, bias = self.readings.weight[-self.channels :], self.readings.bias[-self.channels :]  # [C, 64], [C]
        return F.linear(h, weight, bias)  # [B, C]
