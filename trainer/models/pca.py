"""Window PCA: a window is a point of W·C numbers; normal windows lie near a low-dimensional plane.

Principal component analysis as an anomaly detector: Shyu et al., "A novel anomaly detection scheme based on principal
component classifier", 2003; over lagged windows it is multivariate singular spectrum analysis (Broomhead & King 1986).
It is the best linear autoencoder (Baldi & Hornik 1989), and so the baseline of the others.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from schemas.errors import SettingsError
from trainer.models.architecture import Autoencoder, Batches, Shape, Size, joined


class PCA(Autoencoder):
    """Projection on the first R principal components of all windows; the context is part of the point."""

    default_window: ClassVar[int] = 10

    components: Tensor
    mean: Tensor

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        self.cells = shape.window * shape.channels
        if size.latent is not None and size.latent > self.cells:
            raise SettingsError(
                f"setting 'latent': a window holds {self.cells} numbers: at most that, not {size.latent}"
            )
        self.latent, self.variance = size.latent, size.variance
        self.code: nn.Module = nn.Identity()
        self._take(
            torch.eye(self.cells + shape.context)[:, : size.latent or 1], torch.zeros(self.cells + shape.context)
        )

    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Coordinates on the plane, ``[B, R]``: the code."""
        return (joined(z, context) - self.mean) @ self.components  # [B, R]

    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:  # noqa: ARG002
        """The nearest points of the plane, ``[B, W, C]``."""
        flat = code @ self.components[: self.cells].T + self.mean[: self.cells]  # [B, W·C]
        return flat.view(-1, self.shape.window, self.shape.channels)  # [B, W, C]

    def last(self, code: Tensor, context: Tensor | None) -> Tensor:  # noqa: ARG002
        """The newest C coordinates alone: a W-th of the work."""
        newest = slice(self.cells - self.shape.channels, self.cells)
        return code @ self.components[newest].T + self.mean[newest]  # [B, C]

    def solve(self, batches: Batches) -> bool:
        """Eigenvectors of the covariance, which is summed up batch by batch in float64.

        R is ``latent``, or the least number of components that keep the share ``variance`` of the variance.
        """
        size = len(self.mean)
        count, total, square = 0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        for z, context in batches():
            flat = joined(z, context).double().cpu()  # [b, W·C + K]
            count += len(flat)
            total += flat.sum(0)  # [W·C + K]
            square.addmm_(flat.T, flat)  # [W·C + K, W·C + K]
        mean = total / count
        values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))  # ascending
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        kept = vectors[:, : min(self._rank(values), size)]
        # An eigenvector's sign is arbitrary: its largest entry is made positive, so that equal data give equal files
        largest = kept.gather(0, kept.abs().argmax(0, keepdim=True))  # [1, R]
        kept = kept * torch.where(largest < 0, -1.0, 1.0)
        self._take(kept.float().to(self.mean.device), mean.float().to(self.mean.device))
        return True

    def _rank(self, values: Tensor) -> int:
        if self.latent is not None:
            return self.latent
        share = values.cumsum(0) / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return int((share < self.variance - 1e-12).sum()) + 1

    def _take(self, components: Tensor, mean: Tensor) -> None:
        self.register_buffer("components", components.contiguous())
        self.register_buffer("mean", mean)
        self.code_size = components.shape[1]
