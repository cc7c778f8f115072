"""The generator: noise at three rates, and the time, become readings; convolutions all along, so it has no ends.

Style after Karras et al., "A style-based generator architecture" (CVPR 2019): noise enters at several stages. Here they
are stages of time. What is drawn every ``STRIDES[0]`` readings says the level and the course, what is drawn every few
says the shape, what is drawn with each reading is texture. Between two draws of the coarse noise it goes over smoothly,
so any length is one stretch, and a stretch made in parts is the same as one made at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Readings from one draw of noise to the next, coarse to fine.
STRIDES = (32, 4, 1)

#: Numbers in a draw of each.
SIZES = (16, 12, 8)

#: Readings at the start and the end that see what is not there: four convolutions, two of 4 readings a step; and
#: at the end the last coarse draw, which has no next one to go over to.
BEFORE, AFTER = 12, STRIDES[0] + 12


class Noise(NamedTuple):
    """What a stretch of T readings is made from, T a multiple of ``STRIDES[0]``."""

    coarse: Tensor
    """``[B, N, T / 32]``."""
    middle: Tensor
    """``[B, N, T / 4]``."""
    fine: Tensor
    """``[B, N, T]``."""
    own: Tensor
    """``[B, C, T]``: what each channel does by itself."""

    @classmethod
    def drawn(cls, batch: int, length: int, channels: int) -> Noise:
        """Standard normal."""
        rates = [*zip(SIZES, STRIDES, strict=True), (channels, 1)]
        return cls(*(torch.randn(batch, size, length // stride) for size, stride in rates))


class Generator(nn.Module):
    """Noise and the context of each reading → normal scores of each reading."""

    def __init__(self, channels: int, context: int, hidden: int) -> None:
        super().__init__()
        coarse, middle, fine = SIZES
        self.level = nn.Sequential(nn.Linear(coarse + context, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.course = nn.Conv1d(hidden + middle + context, hidden, 3, padding=1)
        self.course_more = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.shape = nn.Conv1d(hidden + fine + context, hidden, 3, padding=1)
        self.texture = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv1d(hidden, channels, 1)
        self.straight = nn.Conv1d(hidden + fine + context, channels, 1)
        self.log_spread = nn.Parameter(torch.full((channels,), -1.0))

    def forward(
        self, coarse: Tensor, middle: Tensor, fine: Tensor, own: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Noise (see ``Noise``), context ``[B, K, T]`` (None: K is 0) → normal scores ``[B, C, T]``."""
        context = fine[:, :0] if context is None else context
        return self.expected(coarse, middle, fine, context) + self.log_spread.exp()[:, None] * own  # [B, C, T]

    def expected(self, coarse: Tensor, middle: Tensor, fine: Tensor, context: Tensor) -> Tensor:
        """Without what each channel does by itself."""
        T = fine.shape[2]
        slow = context[:, :, :: STRIDES[0]]  # [B, K, T / 32]
        h = self.level(torch.cat([coarse, slow], 1).transpose(1, 2)).transpose(1, 2)  # [B, H, T / 32]
        h = _smooth(h, middle.shape[2])  # [B, H, T / 4]
        h = self.course(torch.cat([h, middle, context[:, :, :: STRIDES[1]]], 1))  # [B, H, T / 4]
        h = h + self.course_more(F.silu(h))  # [B, H, T / 4]
        h = torch.cat([_smooth(h, T), fine, context], 1)  # [B, H + N + K, T]
        shape = self.shape(h)  # [B, H, T]
        made: Tensor = self.out(F.silu(shape + self.texture(F.silu(shape)))) + self.straight(h)  # [B, C, T]
        return made


def _smooth(h: Tensor, length: int) -> Tensor:
    """From each draw to the next in equal steps, ``[B, H, n]`` → ``[B, H, length]``; the last one stays."""
    times = length // h.shape[2]
    way = torch.arange(times, device=h.device, dtype=h.dtype) / times  # [times]
    following = torch.cat([h[:, :, 1:], h[:, :, -1:]], 2)  # [B, H, n]
    steps = h[:, :, :, None] * (1 - way) + following[:, :, :, None] * way  # [B, H, n, times]
    return steps.flatten(2)  # [B, H, length]
