"""Linear forecaster: a vector autoregression with context, solved for by ridge regression (Lütkepohl, "New introduction
to multiple time series analysis", 2005; that it rivals deep forecasters: Zeng et al., "Are transformers effective for
time series forecasting?", AAAI 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.models.architecture import Batches, Forecaster, Shape, Size, joined
from trainer.models.ridge import ridge


class Linear(Forecaster):
    """(W - 1)·C + K → C."""

    default_window: ClassVar[int] = 2

    def __init__(self, shape: Shape, size: Size) -> None:  # noqa: ARG002, it has none
        super().__init__(shape)
        self.map = nn.Linear((shape.window - 1) * shape.channels + shape.context, shape.channels)

    def predict(self, past: Tensor, context: Tensor | None) -> Tensor:
        """The next reading, ``[B, C]``."""
        reading: Tensor = self.map(joined(past, context))  # [B, C]
        return reading

    def solve(self, batches: Batches) -> bool:
        """Ridge regression; a missing value counts as the channel's mean."""

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for z, context in batches():
                yield joined(z[:, :-1], context), z[:, -1]

        weight, bias = ridge(pairs())
        with torch.no_grad():
            self.map.weight.copy_(weight)
            self.map.bias.copy_(bias)
        return True
