"""Convolutional autoencoder over time (after Thill et al., "Temporal convolutional autoencoder for unsupervised anomaly
detection in time series", Applied Soft Computing 2021, with strides in place of dilations).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from schemas.errors import SettingsError
from trainer.models.architecture import Architecture


class Conv(Architecture):
    """Two strided convolutions to a quarter of the window, two transposed ones back.

    The code is ``latent`` numbers per quarter: W/4 · latent in all.
    """

    default_window: ClassVar[int] = 16
    default_latent: ClassVar[int | None] = 8
    hidden: ClassVar[int] = 32

    def __init__(self, window: int, channels: int, latent: int | None) -> None:
        super().__init__(window, channels, latent)
        if window % 4:
            raise SettingsError(f"setting 'window': the conv model halves it twice: a multiple of 4, not {window}")
        assert self.latent is not None
        # kernel = 2 · stride: every output sees equally many inputs, so no checkerboard (Odena et al. 2016)
        self.inward = nn.Conv1d(channels, self.hidden, 4, stride=2, padding=1)
        self.code = nn.Conv1d(self.hidden, self.latent, 4, stride=2, padding=1)
        self.outward = nn.ConvTranspose1d(self.latent, self.hidden, 4, stride=2, padding=1)
        self.readings = nn.ConvTranspose1d(self.hidden, channels, 4, stride=2, padding=1)

    def encode(self, z: Tensor) -> Tensor:
        """Code ``[B, latent, W/4]``."""
        h = F.relu(self.inward(z.transpose(1, 2)))  # [B, 32, W/2]
        code: Tensor = self.code(h)  # [B, latent, W/4]
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Windows ``[B, W, C]``."""
        h = F.relu(self.outward(code))  # [B, 32, W/2]
        window: Tensor = self.readings(h)  # [B, C, W]
        return window.transpose(1, 2)  # [B, W, C]
