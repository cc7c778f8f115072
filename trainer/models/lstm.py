"""LSTM autoencoder (Malhotra et al., "LSTM-based encoder-decoder for multi-sensor anomaly detection", 2016; the decoder
is fed the code at every step, as in Srivastava et al., "Unsupervised learning of video representations using LSTMs",
ICML 2015, so that it cannot copy its own input).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.models.architecture import Autoencoder, Shape, Size, beside, joined


class LSTM(Autoencoder):
    """The encoder's last state → latent → a decoder that writes the window backwards, from the newest reading on.

    Backwards, as in the source: what the encoder saw last is what the decoder has to say first.
    """

    default_window: ClassVar[int] = 16

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        hidden, depth = size.hidden or 48, size.depth or 1
        self.code_size = size.latent or 16
        between = size.dropout if depth > 1 else 0.0  # torch drops between layers only
        self.reader = nn.LSTM(shape.channels + shape.context, hidden, depth, batch_first=True, dropout=between)
        self.code: nn.Module = nn.Linear(hidden, self.code_size)
        self.writer = nn.LSTM(self.code_size + shape.context, hidden, depth, batch_first=True, dropout=between)
        self.readings = nn.Linear(hidden, shape.channels)

    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """``[B, hidden]``."""
        states, _ = self.reader(beside(z, context))  # [B, W, hidden]
        last: Tensor = states[:, -1]  # [B, hidden]
        return last

    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:
        """Windows ``[B, W, C]``."""
        return torch.flip(self._written(code, context, self.shape.window), (1,))  # [B, W, C]

    def last(self, code: Tensor, context: Tensor | None) -> Tensor:
        """The decoder's first step alone."""
        return self._written(code, context, 1)[:, 0]  # [B, C]

    def _written(self, code: Tensor, context: Tensor | None, steps: int) -> Tensor:
        given = joined(code, context).unsqueeze(1).expand(-1, steps, -1)  # [B, steps, latent + K]
        states, _ = self.writer(given)  # [B, steps, hidden]
        readings: Tensor = self.readings(states)  # [B, steps, C]
        return readings
