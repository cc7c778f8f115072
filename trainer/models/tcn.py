"""Temporal-convolution forecaster (Bai, Kolter & Koltun, "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling", 2018): dilated causal convolutions with residual connections.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.architecture import Forecaster, Shape, Size, beside, joined

KERNEL = 3


class Block(nn.Module):
    """One dilated causal convolution beside a way around it: ``[B, n, T]`` → ``[B, hidden, T]``."""

    def __init__(self, before: int, hidden: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = (KERNEL - 1) * dilation
        self.convolution = nn.Conv1d(before, hidden, KERNEL, dilation=dilation)
        self.around = nn.Conv1d(before, hidden, 1) if before != hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``[B, hidden, T]``."""
        seen = F.pad(h, (self.reach, 0))  # [B, n, reach + T], zeros before the window: nothing known
        added: Tensor = self.dropout(F.relu(self.convolution(seen)))  # [B, hidden, T]
        around: Tensor = self.around(h)  # [B, hidden, T]
        return around + added


class TCN(Forecaster):
    """``depth`` blocks with dilations 1, 2, 4 …; the last place and the newest reading give the next one."""

    default_window: ClassVar[int] = 16
    default_noise: ClassVar[float] = 0.7

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        hidden, depth = size.hidden or 32, size.depth or 3
        inputs = [shape.channels + shape.context, *[hidden] * (depth - 1)]
        self.blocks = nn.Sequential(
            *(Block(before, hidden, 2**layer, size.dropout) for layer, before in enumerate(inputs))
        )
        self.curved = nn.Linear(hidden, shape.channels)
        self.straight = nn.Linear(shape.channels + shape.context, shape.channels)

    def predict(self, past: Tensor, context: Tensor | None) -> Tensor:
        """The next reading, ``[B, C]``."""
        h = self.blocks(beside(past, context).transpose(1, 2))  # [B, hidden, W - 1]
        reading: Tensor = self.curved(h[:, :, -1]) + self.straight(joined(past[:, -1], context))  # [B, C]
        return reading
