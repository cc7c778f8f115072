"""Window PCA: a window is a point of W·C numbers; normal windows lie near a low-dimensional plane.

Principal component analysis as an anomaly detector: Shyu et al., "A novel anomaly detection scheme based on principal
component classifier", 2003; over lagged windows it is multivariate singular spectrum analysis (Broomhead & King 1986).
It is the best linear autoencoder (Baldi & Hornik 1989), and so the baseline of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor

from trainer.models.architecture import ClosedForm


class PCA(ClosedForm):
    """Projection on the first K principal components of all windows."""

    default_window: ClassVar[int] = 10
    default_latent: ClassVar[int | None] = None

    components: Tensor
    mean: Tensor

    def __init__(self, window: int, channels: int, latent: int | None) -> None:
        super().__init__(window, channels, latent)
        size = window * channels
        rank = min(self.latent or 1, size)
        self.register_buffer("components", torch.eye(size)[:, :rank].contiguous())
        self.register_buffer("mean", torch.zeros(size))

    def encode(self, z: Tensor) -> Tensor:
        """Code ``[B, K]``: coordinates on the plane."""
        flat = z.reshape(-1, self.window * self.channels) - self.mean  # [B, W·C]
        return flat @ self.components  # [B, K]

    def decode(self, code: Tensor) -> Tensor:
        """The nearest points of the plane, ``[B, W, C]``."""
        flat = code @ self.components.T + self.mean  # [B, W·C]
        return flat.reshape(-1, self.window, self.channels)  # [B, W, C]

    def newest(self, code: Tensor) -> Tensor:
        """The last C coordinates alone: a W-th of the work."""
        return code @ self.components[-self.channels :].T + self.mean[-self.channels :]  # [B, C]

    def solve(self, batches: Callable[[], Iterable[Tensor]], variance: float) -> None:
        """Eigenvectors of the covariance, which is summed up batch by batch in float64.

        K is ``latent``, or the least number of components that keep the share ``variance`` of the variance.
        """
        size = self.window * self.channels
        count, total, square = 0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        for batch in batches():
            flat = batch.reshape(len(batch), size).double()  # [b, W·C]
            count += len(flat)
            total += flat.sum(0)  # [W·C]
            square.addmm_(flat.T, flat)  # [W·C, W·C]
        mean = total / count
        values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))  # ascending
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        if self.latent is None:
            share = values.cumsum(0) / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
            rank = int((share < variance - 1e-12).sum()) + 1
        else:
            rank = self.latent
        kept = vectors[:, : min(rank, size)]
        # An eigenvector's sign is arbitrary: its largest entry is made positive, so that equal data give equal files
        largest = kept.gather(0, kept.abs().argmax(0, keepdim=True))  # [1, K]
        kept = kept * torch.where(largest < 0, -1.0, 1.0)
        self.components = kept.float().contiguous()
        self.mean = mean.float()
