"""A generator learned as the decoder of a variational autoencoder: what it makes of drawn noise is a sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.console import steps
from trainer.models.variational import gaussian_divergence
from trainer.synthesis.encoder import Encoder, Posterior
from trainer.synthesis.generator import AFTER, BEFORE, STRIDES, Generator
from trainer.synthesis.lesson import Windows

#: Readings of a window: several coarse draws.
LENGTH = 5 * STRIDES[0]

#: Share of the steps in which the divergence comes to its full weight (Bowman et al., CoNLL 2016).
WARM = 0.2

#: Norm of a gradient, at most.
STEEPEST = 10.0

#: A channel that is predicted better than this, in normal scores, is as good as known: a spread of nothing would let
#: one channel outweigh all others.
LEAST_LOG_SPREAD = -3.5

VALID = slice(BEFORE, LENGTH - AFTER)


@dataclass(frozen=True)
class Plan:
    """How long and how fast."""

    steps: int
    batch: int
    rate: float
    limit_s: float


def bound(generator: Generator, x: Tensor, context: Tensor, posteriors: list[Posterior]) -> tuple[Tensor, Tensor]:
    """(negative log likelihood, divergence), nats per reading: the two parts of the evidence lower bound."""
    coarse, middle, fine = (p.drawn() for p in posteriors)
    expected = generator.expected(coarse, middle, fine, context)[:, :, VALID]  # [B, C, t]
    log_spread = generator.log_spread.clamp(min=LEAST_LOG_SPREAD)[:, None]  # [C, 1]
    off = (x[:, :, VALID] - expected) / log_spread.exp()  # [B, C, t]
    likelihood = (0.5 * off.square() + log_spread).sum(1).mean()
    divergence = torch.stack([gaussian_divergence(*posterior).mean() for posterior in posteriors]).sum()
    return likelihood, divergence / x.shape[2]


def fit_variational(
    generator: Generator, encoder: Encoder, windows: Windows, plan: Plan, say: Callable[[str], None] = lambda _: None
) -> None:
    """Adam on the bound; the generator's and the encoder's weights change."""

    def parts() -> tuple[Tensor, Tensor]:
        x, context = windows.drawn(plan.batch)
        return bound(generator, x, context, encoder(x, context))

    descend([*generator.parameters(), *encoder.parameters()], plan, parts, "a reading", say)


def descend(
    parameters: Sequence[Tensor],
    plan: Plan,
    parts: Callable[[], tuple[Tensor, Tensor]],
    unit: str,
    say: Callable[[str], None],
) -> None:
    """Adam in one cycle. ``parts``: (negative log likelihood, divergence) of a batch, nats ``unit``."""
    optimiser = torch.optim.Adam(parameters, lr=plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.1)
    curve: list[float] = []
    began = time.monotonic()
    for step in steps(plan.steps, "variational fit"):
        likelihood, divergence = parts()
        loss = likelihood + min(step / (WARM * plan.steps), 1.0) * divergence
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, STEEPEST)
        optimiser.step()
        schedule.step()
        curve.append(float((likelihood + divergence).detach()))
        if (step + 1) % max(plan.steps // 10, 1) == 0:
            say(f"step {step + 1} of {plan.steps}: bound {np.mean(curve[-100:]):.2f} nats {unit}")
        if time.monotonic() - began > plan.limit_s:
            break
