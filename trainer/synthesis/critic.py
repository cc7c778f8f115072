"""The critic: tells windows that were measured from windows that were made, and sees a whole batch at once.

Spectral norm on every layer (Miyato et al., "Spectral normalization for GANs", ICLR 2018) bounds how steep it is. The
last feature is how much the windows of a batch differ (Karras et al., "Progressive growing of GANs", ICLR 2018): a
generator that always makes the same is seen at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

#: Windows that are compared with each other.
GROUP = 8


class Critic(nn.Module):
    """Windows ``[B, C, T]`` with their context ``[B, K, T]`` → how real each looks ``[B]``."""

    def __init__(self, channels: int, context: int, hidden: int, length: int) -> None:
        super().__init__()
        widths = (channels + context, hidden, hidden, 2 * hidden)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv1d(before, after, 5, stride=stride, padding=2))
            for before, after, stride in zip(widths[:-1], widths[1:], (1, 2, 2), strict=True)
        )
        self.last = spectral_norm(nn.Linear(2 * hidden * (length // 4) + 1, hidden))
        self.real = spectral_norm(nn.Linear(hidden, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """How real each looks ``[B]``."""
        h = torch.cat([x, context], 1)  # [B, C + K, T]
        for layer in self.layers:
            h = leaky_relu(layer(h), 0.2)  # [B, H, T / 4] in the end
        h = torch.cat([h.flatten(1), variety(x)], 1)  # [B, 2·H·T / 4 + 1]
        real: Tensor = self.real(leaky_relu(self.last(h), 0.2))[:, 0]  # [B]
        return real


def variety(x: Tensor) -> Tensor:
    """Mean standard deviation of the values over the windows of each group of a batch, ``[B, 1]``."""
    groups = x.reshape(GROUP, -1, *x.shape[1:]) if len(x) % GROUP == 0 else x[None]
    spread = (groups.var(0, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1)  # [B / GROUP]
    return spread.repeat(len(x) // len(spread))[:, None]
