"""The image critic: tells images that were measured from images that were made, and sees a whole batch at once.

Spectral norm on every layer but the last, and how much the images of a batch differ: see the critic of sensors.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from schemas.frame import Frame
from trainer.synthesis.critic import variety
from trainer.synthesis.images.generator import sizes

#: Pixels, from 0 to 1, are spread so far: layers that are no steeper than 1 would else tell next to nothing apart.
SPREAD = 4


class ImageCritic(nn.Module):
    """Images ``[B, bands, H, W]`` with their context ``[B, K]`` → how real each looks ``[B]``."""

    def __init__(self, frame: Frame, context: int, hidden: int) -> None:
        super().__init__()
        stages = sizes(frame)
        self.size = stages[-1]
        widths = [hidden >> 1, *(hidden for _ in stages[1:])]
        self.first = spectral_norm(nn.Conv2d(frame.bands + context, widths[0], 3, padding=1))
        self.halves = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)) for before, after in pairwise(widths)
        )
        h, w = stages[0]
        self.last = spectral_norm(nn.Linear(widths[-1] * h * w + 1, hidden))
        self.real = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """How real each looks ``[B]``."""
        H, W = self.size
        x = SPREAD * (x - 0.5)
        differs = variety(x)  # [B, 1]
        everywhere = context[:, :, None, None].expand(-1, -1, *x.shape[2:])
        h = F.pad(torch.cat([x, everywhere], 1), (0, W - x.shape[3], 0, H - x.shape[2]))
        h = leaky_relu(self.first(h), 0.2)
        for half in self.halves:
            h = leaky_relu(half(h), 0.2)
        h = leaky_relu(self.last(torch.cat([h.flatten(1), differs], 1)), 0.2)
        real: Tensor = self.real(h)[:, 0]
        return real
