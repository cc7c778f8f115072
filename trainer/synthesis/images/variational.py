"""A generator of images learned as the decoder of a variational autoencoder."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from trainer.models.variational import gaussian_divergence
from trainer.synthesis.images.encoder import ImageEncoder
from trainer.synthesis.images.generator import ImageGenerator
from trainer.synthesis.images.lesson import ImageLesson
from trainer.synthesis.variational import WARM, Plan

#: Images by which the grain is measured.
EXPLAINED = 512

#: A pixel is never known better than this (natural logarithm of a deviation, pixels from 0 to 1).
LEAST_LOG_SPREAD = -4.0


def fit_images(
    generator: ImageGenerator, encoder: ImageEncoder, lesson: ImageLesson, plan: Plan, say: Callable[[str], None]
) -> None:
    """Adam on the evidence lower bound; the generator's and the encoder's weights change."""
    log_spread = torch.nn.Parameter(torch.tensor(-1.5))  # of a pixel from what is expected
    parameters = [*generator.parameters(), *encoder.parameters(), log_spread]
    optimiser = torch.optim.Adam(parameters, lr=plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.1)
    curve: list[float] = []
    began = time.monotonic()
    for step in range(plan.steps):
        x, context = lesson.drawn(plan.batch)
        posterior = encoder(x, context)
        noise = torch.randn(len(x), generator.noises - generator.frame.values)
        expected = torch.sigmoid(generator.unbounded(posterior.drawn(), noise, context))  # [B, bands, H, W]
        known = log_spread.clamp(min=LEAST_LOG_SPREAD)
        off = (x - expected) / known.exp()
        likelihood = (0.5 * off.square() + known).flatten(1).sum(1).mean()
        divergence = gaussian_divergence(*posterior).mean()
        loss = likelihood + min(step / (WARM * plan.steps), 1.0) * divergence
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 100.0)
        optimiser.step()
        schedule.step()
        curve.append(float((likelihood + divergence).detach()))
        if (step + 1) % max(plan.steps // 10, 1) == 0:
            say(f"step {step + 1} of {plan.steps}: bound {np.mean(curve[-100:]):.2f} nats an image")
        if time.monotonic() - began > plan.limit_s:
            break


@torch.no_grad()
def grain(generator: ImageGenerator, encoder: ImageEncoder, lesson: ImageLesson) -> float:
    """Natural logarithm of the grain's deviation that explains how far images are from what is expected of them."""
    x, context = lesson.drawn(EXPLAINED)
    noise = torch.randn(len(x), generator.noises - generator.frame.values)
    expected = torch.sigmoid(generator.unbounded(encoder(x, context).mean, noise, context))
    slope = expected * (1 - expected)  # of a pixel by what it is before it is bounded
    return float(0.5 * ((x - expected).square().mean() / slope.square().mean().clamp(min=1e-12)).log())
