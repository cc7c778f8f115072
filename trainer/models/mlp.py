"""Multilayer-perceptron forecaster with a linear skip: what is linear stays exact, the hidden layer adds the rest (the
shape of N-BEATS' and TiDE's blocks: Das et al., "Long-term forecasting with TiDE", TMLR 2023).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from trainer.models.architecture import Forecaster, Shape, Size, joined
from trainer.models.layers import halving, stack


class MLP(Forecaster):
    """(W - 1)·C + K → 64 → C, plus a linear map of the same inputs."""

    default_window: ClassVar[int] = 2
    default_noise: ClassVar[float] = 0.7

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        inputs = (shape.window - 1) * shape.channels + shape.context
        widths = halving(size.hidden or 64, size.depth or 1)
        self.hidden = stack([inputs, *widths], size.dropout)
        self.curved = nn.Linear(widths[-1], shape.channels)
        self.straight = nn.Linear(inputs, shape.channels)

    def predict(self, past: Tensor, context: Tensor | None) -> Tensor:
        """The next reading, ``[B, C]``."""
        given = joined(past, context)  # [B, (W - 1)·C + K]
        reading: Tensor = self.straight(given) + self.curved(self.hidden(given))  # [B, C]
        return reading
