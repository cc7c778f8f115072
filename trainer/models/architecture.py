"""What every architecture is: a code and a way back from it, over windows of scaled readings.

Axes: B windows, W readings (the newest last), C channels. Values are scaled: about mean 0 and standard deviation 1 per
channel and stream, clipped, 0 where missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from torch import Tensor, nn


class Architecture(nn.Module, ABC):
    """An autoencoder of windows ``[B, W, C]``."""

    #: Readings in a window, unless the user says otherwise.
    default_window: ClassVar[int]
    #: Size of the code, unless the user says otherwise; None: the architecture finds it in the data.
    default_latent: ClassVar[int | None]

    def __init__(self, window: int, channels: int, latent: int | None) -> None:
        """``latent`` None: ``default_latent``. Raises SettingsError where the architecture has no such window."""
        super().__init__()
        self.window, self.channels = window, channels
        self.latent = self.default_latent if latent is None else latent

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Code of windows ``[B, W, C]``; its shape is the architecture's own, B first."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Windows ``[B, W, C]`` of a code."""

    def newest(self, code: Tensor) -> Tensor:
        """The newest reading ``[B, C]`` of each window alone: all that a score needs, where it is cheaper to get."""
        return self.decode(code)[:, -1]  # [B, C]

    def forward(self, z: Tensor) -> Tensor:
        """Windows ``[B, W, C]`` as the model would have them."""
        return self.decode(self.encode(z))  # [B, W, C]


class ClosedForm(Architecture):
    """An architecture that is solved for in one or two passes instead of by gradient descent."""

    @abstractmethod
    def solve(self, batches: Callable[[], Iterable[Tensor]], variance: float) -> None:
        """Fit to windows ``[b, W, C]``, which each call of ``batches`` yields anew; ``variance``: the share to keep."""
