"""A generator of images learned as the decoder of a variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.models.variational import gaussian_divergence
from trainer.synthesis.images.encoder import ImageEncoder
from trainer.synthesis.images.generator import ImageGenerator
from trainer.synthesis.images.lesson import ImageLesson
from trainer.synthesis.variational import Plan, descend

#: Images by which the grain is measured.
EXPLAINED = 512

#: A pixel is never known better than this (natural logarithm of a deviation, pixels from 0 to 1).
LEAST_LOG_SPREAD = -4.0


def fit_images(
    generator: ImageGenerator, encoder: ImageEncoder, lesson: ImageLesson, plan: Plan, say: Callable[[str], None]
) -> None:
    """Adam on the evidence lower bound; the generator's and the encoder's weights change."""
    log_spread = torch.nn.Parameter(torch.tensor(-1.5))  # of a pixel from what is expected

    def parts() -> tuple[Tensor, Tensor]:
        x, context = lesson.drawn(plan.batch)
        posterior = encoder(x, context)
        noise = torch.randn(len(x), generator.noises - generator.frame.values)
        expected = torch.sigmoid(generator.unbounded(posterior.drawn(), noise, context))  # [B, bands, H, W]
        known = log_spread.clamp(min=LEAST_LOG_SPREAD)
        off = (x - expected) / known.exp()
        likelihood = (0.5 * off.square() + known).mean()
        return likelihood, gaussian_divergence(*posterior).mean() / generator.frame.values

    descend([*generator.parameters(), *encoder.parameters(), log_spread], plan, parts, "a pixel", say)


@torch.no_grad()
def grain(generator: ImageGenerator, encoder: ImageEncoder, lesson: ImageLesson) -> float:
    """Natural logarithm of the grain's deviation that explains how far images are from what is expected of them."""
    x, context = lesson.drawn(EXPLAINED)
    noise = torch.randn(len(x), generator.noises - generator.frame.values)
    expected = torch.sigmoid(generator.unbounded(encoder(x, context).mean, noise, context))
    slope = expected * (1 - expected)  # of a pixel by what it is before it is bounded
    return float(0.5 * ((x - expected).square().mean() / slope.square().mean().clamp(min=1e-12)).log())
