"""The image encoder: images become the code that a generator would have made them from."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.frame import Frame
from trainer.models.variational import LEAST, MOST
from trainer.synthesis.encoder import Posterior
from trainer.synthesis.images.generator import CODE, sizes


class ImageEncoder(nn.Module):
    """Images ``[B, bands, H, W]`` and context ``[B, K]`` → the code's posterior ``[B, CODE]``."""

    def __init__(self, frame: Frame, context: int, hidden: int) -> None:
        super().__init__()
        stages = sizes(frame)
        self.size = stages[-1]
        widths = [frame.bands, *(max(hidden >> stage, 16) for stage in reversed(range(len(stages) - 1)))]
        self.halves = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.around = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[1:])
        h, w = stages[0]
        self.code = nn.Linear(widths[-1] * h * w + context, 2 * CODE)

    def forward(self, x: Tensor, context: Tensor) -> Posterior:
        """The posterior."""
        H, W = self.size
        x = F.pad(x, (0, W - x.shape[3], 0, H - x.shape[2]))
        for half, around in zip(self.halves, self.around, strict=True):
            x = half(x)
            x = F.silu(x + around(F.silu(x)))
        mean, log_variance = self.code(torch.cat([x.flatten(1), context], 1)).chunk(2, 1)
        return Posterior(mean, log_variance.clamp(LEAST, MOST))
