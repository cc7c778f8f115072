"""Ridge regression, summed up batch by batch (Hoerl & Kennard, "Ridge regression", Technometrics 1970)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

#: Penalty, as a share of the number of windows. It does what noise of this variance on the inputs would do (Bishop,
#: "Training with noise is equivalent to Tikhonov regularization", Neural Computation 1995), whose own is about 1: a
#: forecaster that trusts the last reading less is less quick to take a fault for granted.
PENALTY = 0.5


def ridge(pairs: Iterable[tuple[Tensor, Tensor]], penalty: float = PENALTY) -> tuple[Tensor, Tensor]:
    """Weight ``[M, N]`` and bias ``[M]`` of the best linear map from inputs ``[b, N]`` to targets ``[b, M]``.

    The intercept is not shrunk. Sums are in float64, so that the order of batches does not matter in practice.
    """
    sums: list[Tensor] = []
    count = 0
    for inputs, targets in pairs:
        x, y = inputs.double(), targets.double()
        parts = [x.T @ x, x.T @ y, x.sum(0), y.sum(0)]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        count += len(x)
    gram, cross, inputs_sum, targets_sum = sums
    mean_x, mean_y = inputs_sum / count, targets_sum / count
    covariance = gram - count * torch.outer(mean_x, mean_x)
    covariance.diagonal().add_(penalty * count)
    weight = torch.linalg.solve(covariance, cross - count * torch.outer(mean_x, mean_y)).T  # [M, N]
    return weight.float().contiguous(), (mean_y - weight @ mean_x).float()
