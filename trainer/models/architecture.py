"""What every architecture is: a way to say what the newest reading of a window was to be expected to be.

Axes: B windows, W readings (the newest last), C channels, K columns of context, H heads. Values are scaled: about mean
0 and standard deviation 1 per channel and stream, clipped, 0 where missing. The context of a window is what is known
about its newest reading without looking at it (its season); it is given, never reconstructed.

An autoencoder has seen the reading that it expects, and says what is left of it after the code; a forecaster has not.
Either is one head; a score is made from the residuals of all heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from schemas.errors import SettingsError


@dataclass(frozen=True)
class Shape:
    """W, C and K of the windows; K is 0 where streams have no context."""

    window: int
    channels: int
    context: int = 0


@dataclass(frozen=True)
class Size:
    """How large a network is; None: the architecture's own."""

    latent: int | None = None
    """Numbers in the code (of each place of it, where the code has places)."""
    hidden: int | None = None
    """Units of the widest hidden layer."""
    depth: int | None = None
    """Hidden layers on the way in, and as many on the way out."""
    dropout: float = 0.0
    """Share of hidden units left out in training."""
    variance: float = 0.9
    """Share of the variance that principal components keep where ``latent`` does not say how many there are."""


class Outcome(NamedTuple):
    """What training compares with the data, and what else it pays for."""

    expected: tuple[Tensor, ...]
    """Each ``[B, R, C]``: the newest R readings; R = W for a reconstruction, 1 for a prediction."""
    divergence: Tensor | None = None
    """``[B]``, nats: how far the code's distribution is from its prior (variational autoencoders)."""


Batches = Callable[[], Iterable[tuple[Tensor, Tensor | None]]]
"""Yields windows ``[b, W, C]`` with their context ``[b, K]`` anew at each call."""


class Architecture(nn.Module, ABC):
    """Expects the newest reading of windows ``[B, W, C]``, given their context ``[B, K]`` (None where K = 0)."""

    #: Readings in a window, unless the user says otherwise.
    default_window: ClassVar[int]
    #: Noise added in training, in standard deviations, unless the user says otherwise.
    default_noise: ClassVar[float] = 0.0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """What the loss is taken of."""

    @abstractmethod
    def newest(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The expected newest reading by each head, ``[B, H, C]``: all that a score needs."""

    @abstractmethod
    def window(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The window as it was to be expected, ``[B, W, C]``, for pictures."""

    def solve(self, batches: Batches) -> bool:  # noqa: ARG002
        """Fit in closed form where there is one; False: it takes gradient descent."""
        return False


class Autoencoder(Architecture):
    """A code of a window and a way back from it.

    Subclasses set ``code``, the module from their features to the code; a variational autoencoder doubles it.
    """

    code: nn.Module
    #: Numbers in the code of a window, all places together.
    code_size: int

    @abstractmethod
    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """What ``code`` is made from; B first."""

    @abstractmethod
    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:
        """Windows ``[B, W, C]`` of a code."""

    def last(self, code: Tensor, context: Tensor | None) -> Tensor:
        """The newest reading ``[B, C]`` alone, where that is cheaper."""
        return self.decode(code, context)[:, -1]  # [B, C]

    def encode(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Code of windows ``[B, W, C]``; its shape is the architecture's own, B first."""
        code: Tensor = self.code(self.features(z, context))
        return code

    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """The window reconstructed."""
        return Outcome((self.window(z, context),))

    def newest(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """One head, ``[B, 1, C]``."""
        return self.last(self.encode(z, context), context).unsqueeze(1)  # [B, 1, C]

    def window(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The reconstruction, ``[B, W, C]``."""
        return self.decode(self.encode(z, context), context)  # [B, W, C]


class Forecaster(Architecture):
    """Predicts the newest reading from those before it. Raises SettingsError for a window that holds none before it."""

    def __init__(self, shape: Shape) -> None:
        if shape.window < 2:
            raise SettingsError("setting 'window': a forecaster needs readings before the newest: at least 2, not 1")
        super().__init__(shape)

    @abstractmethod
    def predict(self, past: Tensor, context: Tensor | None) -> Tensor:
        """The next reading ``[B, C]`` after ``past`` ``[B, W - 1, C]``."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """The newest reading predicted."""
        return Outcome((self.newest(z, context),))

    def newest(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """One head, ``[B, 1, C]``."""
        return self.predict(z[:, :-1], context).unsqueeze(1)  # [B, 1, C]

    def window(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The past as it was, since a forecaster takes it as given, and the reading predicted from it."""
        return torch.cat([z[:, :-1], self.newest(z, context)], 1)  # [B, W, C]


def joined(z: Tensor, context: Tensor | None) -> Tensor:
    """``z`` ``[B, …]`` flattened and the context, ``[B, n + K]``."""
    flat = z.flatten(1)  # [B, n]
    return flat if context is None else torch.cat([flat, context], 1)


def beside(z: Tensor, context: Tensor | None) -> Tensor:
    """``z`` ``[B, T, n]`` with the context repeated at each of its T places, ``[B, T, n + K]``."""
    if context is None:
        return z
    return torch.cat([z, context.unsqueeze(1).expand(-1, z.shape[1], -1)], 2)
