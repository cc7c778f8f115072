"""The masked loss: what is missing has no say, in value or in gradient."""

from __future__ import annotations

import torch

from trainer.losses import masked_mse


def test_the_mean_is_over_observed_cells() -> None:
    z = torch.tensor([[[1.0, torch.nan]], [[3.0, 4.0]]])
    observed = torch.tensor([[[True, False]], [[True, True]]])
    assert masked_mse(torch.zeros(2, 1, 2), z, observed) == (1 + 9 + 16) / 3


def test_missing_cells_send_no_gradient() -> None:
    reconstruction = torch.ones(2, 3, 4, requires_grad=True)
    observed = torch.rand(2, 3, 4) < 0.5
    z = torch.where(observed, 0.0, torch.nan)
    masked_mse(reconstruction, z, observed).backward()
    assert reconstruction.grad is not None
    assert torch.isfinite(reconstruction.grad).all()
    assert (reconstruction.grad[~observed] == 0).all()
    assert (reconstruction.grad[observed] != 0).all()


def test_nothing_observed_is_no_error() -> None:
    assert masked_mse(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)) == 0
