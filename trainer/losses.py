"""Losses over readings in which values may be missing: one function for each formula.

``expected``, ``z`` and ``observed`` are ``[B, R, C]``, ``observed`` bool. What stands in a missing cell does not
matter. Each loss is the mean over the observed cells, 0 where there are none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(expected, observed value), the same shape each → the loss of each cell."""

#: Where a Huber loss turns from a square into a line, in standard deviations (Huber 1964 takes 1.345).
HUBER = 1.345


def squared(expected: Tensor, z: Tensor) -> Tensor:
    """(z - x̂)²."""
    return (z - expected).square()


def huber(expected: Tensor, z: Tensor) -> Tensor:
    """Twice Huber's loss, so that it equals ``squared`` near 0: r², beyond δ 2·δ·|r| - δ² (Huber, "Robust estimation of
    a location parameter", 1964).
    """
    return 2 * F.huber_loss(expected, z, reduction="none", delta=HUBER)


def binary_cross_entropy(expected: Tensor, z: Tensor) -> Tensor:
    """-z·log x̂ - (1 - z)·log(1 - x̂) of data in [0, 1]; ``expected`` is clamped away from 0 and 1. Not 0 where x̂ = z."""
    return F.binary_cross_entropy(expected.clamp(1e-6, 1 - 1e-6), z, reduction="none")


def gaussian_nll(residual: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of a residual under N(0, σ²): ½·(log 2π + log σ² + r²/σ²), nats.

    ``log_variance`` is log σ², broadcast to the residual's shape.
    """
    return 0.5 * (1.8378770664093453 + log_variance + residual.square() * torch.exp(-log_variance))


#: By the name that a setting gives.
LOSSES: dict[str, Loss] = {"mse": squared, "huber": huber, "bce": binary_cross_entropy}


def masked_mean(cells: Tensor, observed: Tensor) -> Tensor:
    """Mean over the observed cells, ``[]``; NaN in a missing cell does no harm, nor to the gradient."""
    return torch.where(observed, cells, 0.0).sum() / observed.sum().clamp(min=1)  # []


def masked_loss(loss: Loss, expected: Tensor, z: Tensor, observed: Tensor) -> Tensor:
    """The mean loss of the observed cells, ``[]``."""
    known = torch.where(observed, z, 0.0)  # [B, R, C]
    cells = loss(torch.where(observed, expected, 0.0), known)  # [B, R, C]
    return masked_mean(cells, observed)
