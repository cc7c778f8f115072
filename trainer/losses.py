"""Losses over windows in which values may be missing."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mse(reconstruction: Tensor, z: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error of the observed cells alone; 0 where there are none.

    All ``[B, W, C]``, ``observed`` bool. What stands in a missing cell of ``z`` does not matter, NaN included.
    """
    residual = torch.where(observed, reconstruction - torch.where(observed, z, 0.0), 0.0)  # [B, W, C]
    return residual.square().sum() / observed.sum().clamp(min=1)  # []
