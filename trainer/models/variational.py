"""Variational autoencoder: any autoencoder whose code has a distribution (Kingma & Welling, "Auto-encoding variational
Bayes", ICLR 2014).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from trainer.models.architecture import Autoencoder, Outcome

#: Bounds of a log variance: beyond, its exponential says nothing that a gradient could use.
LEAST, MOST = -12.0, 6.0


class Variational(Autoencoder):
    """The inner autoencoder's code is the posterior's mean; a second module of the same kind gives its log variance.

    In training the code is drawn from the posterior, in evaluation and in the exported graph it is the mean.
    """

    def __init__(self, inner: Autoencoder) -> None:
        super().__init__(inner.shape)
        self.inner = inner
        self.code_size = inner.code_size
        self.log_variance = copy.deepcopy(inner.code)

    @property
    def code(self) -> torch.nn.Module:  # type: ignore[override]
        """The inner one's."""
        return self.inner.code

    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """The inner one's."""
        return self.inner.features(z, context)

    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:
        """The inner one's, ``[B, W, C]``."""
        return self.inner.decode(code, context)

    def last(self, code: Tensor, context: Tensor | None) -> Tensor:
        """The inner one's, ``[B, C]``."""
        return self.inner.last(code, context)

    def posterior(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, of its shape each."""
        features = self.features(z, context)
        log_variance: Tensor = self.log_variance(features)
        return self.code(features), log_variance.clamp(LEAST, MOST)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """The window decoded from a draw of the code, and what the code costs."""
        mean, log_variance = self.posterior(z, context)
        code = mean
        if self.training:
            code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return Outcome((self.decode(code, context),), gaussian_divergence(mean, log_variance))


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = -½ Σ (1 + log σ² - μ² - σ²) of each row, ``[B]``, nats (Kingma & Welling, appendix B).

    ``log_variance`` is log σ², not log σ.
    """
    terms = 1 + log_variance - mean.square() - log_variance.exp()  # [B, …]
    return -0.5 * terms.flatten(1).sum(1)  # [B]
