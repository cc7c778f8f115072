"""The encoder: windows become the noise that a generator would have made them from (Kingma & Welling, ICLR 2014).

One posterior for each draw of each rate, as in a ladder: what can be told by a coarse draw costs least to tell there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.models.variational import LEAST, MOST
from trainer.synthesis.generator import SIZES, STRIDES


class Posterior(NamedTuple):
    """Of the draws of one rate, ``[B, N, T / stride]`` each."""

    mean: Tensor
    log_variance: Tensor

    def drawn(self) -> Tensor:
        """By torch's random state."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


class Encoder(nn.Module):
    """Normal scores ``[B, C, T]`` and context ``[B, K, T]`` → posteriors, coarse to fine."""

    def __init__(self, channels: int, context: int, hidden: int) -> None:
        super().__init__()
        coarse, middle, fine = SIZES
        to_middle, to_coarse = STRIDES[1], STRIDES[0] // STRIDES[1]
        self.near = nn.Conv1d(channels + context, hidden, 3, padding=1)
        self.fine = nn.Conv1d(hidden, 2 * fine, 1)
        self.down = nn.Conv1d(hidden, hidden, to_middle, stride=to_middle)
        self.around = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.middle = nn.Conv1d(hidden, 2 * middle, 1)
        self.far_down = nn.Conv1d(hidden, hidden, to_coarse, stride=to_coarse)
        self.far = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.coarse = nn.Conv1d(hidden, 2 * coarse, 1)

    def forward(self, x: Tensor, context: Tensor) -> list[Posterior]:
        """The posteriors."""
        near = F.silu(self.near(torch.cat([x, context], 1)))  # [B, H, T]
        h = self.down(near)  # [B, H, T / 4]
        h = F.silu(h + self.around(F.silu(h)))  # [B, H, T / 4]
        far = self.far_down(h)  # [B, H, T / 32]
        far = F.silu(far + self.far(F.silu(far)))  # [B, H, T / 32]
        return [_split(self.coarse(far)), _split(self.middle(h)), _split(self.fine(near))]


def _split(both: Tensor) -> Posterior:
    mean, log_variance = both.chunk(2, 1)
    return Posterior(mean, log_variance.clamp(LEAST, MOST))
