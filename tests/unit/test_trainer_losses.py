"""The losses: each formula against its source, and what is missing has no say, in value or in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from trainer.losses import HUBER, LOSSES, gaussian_nll, huber, masked_loss, squared
from trainer.models.variational import gaussian_divergence


def test_the_mean_is_over_observed_cells() -> None:
    z = torch.tensor([[[1.0, torch.nan]], [[3.0, 4.0]]])
    observed = torch.tensor([[[True, False]], [[True, True]]])
    assert masked_loss(squared, torch.zeros(2, 1, 2), z, observed) == (1 + 9 + 16) / 3


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_missing_cells_send_no_gradient(loss: str) -> None:
    expected = torch.ones(2, 3, 4, requires_grad=True)
    observed = torch.rand(2, 3, 4) < 0.5
    z = torch.where(observed, 0.0, torch.nan)
    masked_loss(LOSSES[loss], expected, z, observed).backward()
    assert expected.grad is not None
    assert torch.isfinite(expected.grad).all()
    assert (expected.grad[~observed] == 0).all()
    assert (expected.grad[observed] != 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_observed_is_no_error(loss: str) -> None:
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert masked_loss(LOSSES[loss], torch.ones(1, 2, 2), torch.zeros(1, 2, 2), nothing) == 0


def test_hubers_loss_is_a_square_that_turns_into_a_line() -> None:
    z = torch.tensor([0.5, HUBER, 10.0])
    line = 2 * HUBER * 10 - HUBER**2
    torch.testing.assert_close(huber(torch.zeros(3), z), torch.tensor([0.25, HUBER**2, line]))


def test_cross_entropy_is_the_bernoulli_likelihood_and_not_0_at_a_perfect_reconstruction() -> None:
    z, expected = torch.tensor([0.0, 1.0]), torch.tensor([0.3, 0.6])
    torch.testing.assert_close(LOSSES["bce"](expected, z), -Bernoulli(expected).log_prob(z))
    half = torch.tensor([0.5])
    assert LOSSES["bce"](half, half) == pytest.approx(math.log(2))
    assert torch.isfinite(LOSSES["bce"](torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))).all()


def test_the_gaussian_likelihood_is_torchs() -> None:
    residual, log_variance = torch.randn(50), torch.randn(50)
    expected = -Normal(0.0, torch.exp(log_variance / 2)).log_prob(residual)
    torch.testing.assert_close(gaussian_nll(residual, log_variance), expected)


def test_the_divergence_is_torchs_and_0_at_the_prior() -> None:
    mean, log_variance = torch.randn(7, 3, 2), torch.randn(7, 3, 2)
    expected = kl_divergence(Normal(mean, torch.exp(log_variance / 2)), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)
    assert (gaussian_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0).all()
    assert (gaussian_divergence(mean, log_variance) >= 0).all()
