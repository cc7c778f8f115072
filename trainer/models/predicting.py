"""A prediction head beside the reconstruction (Wong et al., "AER: auto-encoder with regression for time series anomaly
detection", IEEE Big Data 2022; one way, since a score must not see the future).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.models.architecture import Architecture, Autoencoder, Batches, Outcome, joined
from trainer.models.ridge import ridge

#: Readings that the head sees directly, beside the code of the window before.
LAGS = 1


class Predicting(Architecture):
    """An autoencoder with a second head, which predicts the newest reading from the code of the window without it.

    That window is the one a reading earlier; its oldest reading, which the window does not hold any more, is taken to
    be equal to the next.
    """

    def __init__(self, inner: Autoencoder) -> None:
        super().__init__(inner.shape)
        self.inner = inner
        self.lags = min(LAGS, inner.shape.window - 1)
        inputs = inner.code_size + self.lags * inner.shape.channels + inner.shape.context
        self.head = nn.Linear(inputs, inner.shape.channels)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """The window reconstructed and the newest reading predicted."""
        inner = self.inner(z, context)
        return Outcome((*inner.expected, self._predicted(z, context).unsqueeze(1)), inner.divergence)

    def newest(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Two heads, ``[B, 2, C]``: reconstructed, predicted."""
        predicted = self._predicted(z, context).unsqueeze(1)  # [B, 1, C]
        return torch.cat([self.inner.newest(z, context), predicted], 1)  # [B, 2, C]

    def window(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The reconstruction, ``[B, W, C]``."""
        return self.inner.window(z, context)

    def solve(self, batches: Batches) -> bool:
        """The inner one, then its head by ridge regression; False where the inner one cannot be solved for."""
        if not self.inner.solve(batches):
            return False

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for z, context in batches():
                yield self._before(z, context), z[:, -1]

        weight, bias = ridge(pairs())
        self.head = nn.Linear(weight.shape[1], weight.shape[0])  # the size of a solved code is known only now
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
        return True

    def _predicted(self, z: Tensor, context: Tensor | None) -> Tensor:
        reading: Tensor = self.head(self._before(z, context))  # [B, C]
        return reading

    def _before(self, z: Tensor, context: Tensor | None) -> Tensor:
        """All that the head sees, ``[B, code + lags·C + K]``: nothing of the newest reading."""
        earlier = torch.cat([z[:, :1], z[:, :-1]], 1)  # [B, W, C]
        code = self.inner.encode(earlier, context)  # [B, …]
        past = z[:, -1 - self.lags : -1]  # [B, lags, C]
        return torch.cat([code.flatten(1), joined(past, context)], 1)
