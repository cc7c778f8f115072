"""Convolutional autoencoder over time (after Thill et al., "Temporal convolutional autoencoder for unsupervised anomaly
detection in time series", Applied Soft Computing 2021, with strides in place of dilations).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from schemas.errors import SettingsError
from trainer.models.architecture import Autoencoder, Shape, Size, beside


class Conv(Autoencoder):
    """Strided convolutions, each of which halves the window, and as many transposed ones back.

    The code is ``latent`` numbers at each of the W / 2^depth places that are left.
    """

    default_window: ClassVar[int] = 16

    def __init__(self, shape: Shape, size: Size) -> None:
        super().__init__(shape)
        depth, hidden, latent = size.depth or 2, size.hidden or 32, size.latent or 8
        if shape.window % 2**depth:
            raise SettingsError(
                f"setting 'window': the conv model halves it {depth} times: a multiple of {2**depth}, not "
                f"{shape.window}"
            )
        self.code_size = latent * (shape.window >> depth)
        # kernel = 2 · stride: every output sees equally many inputs, so no checkerboard (Odena et al. 2016)
        inward: list[nn.Module] = []
        outward: list[nn.Module] = []
        for layer in range(depth - 1):
            inward += [_down(shape.channels + shape.context if layer == 0 else hidden, hidden), *_active(size.dropout)]
            outward += [_up(latent + shape.context if layer == 0 else hidden, hidden), *_active(size.dropout)]
        first, last = (shape.channels + shape.context, latent + shape.context) if depth == 1 else (hidden, hidden)
        self.inward = nn.Sequential(*inward)
        self.code: nn.Module = _down(first, latent)
        self.outward = nn.Sequential(*outward)
        self.readings = _up(last, shape.channels)

    def features(self, z: Tensor, context: Tensor | None) -> Tensor:
        """``[B, hidden, W / 2^(depth - 1)]``."""
        features: Tensor = self.inward(beside(z, context).transpose(1, 2))  # [B, hidden, 2·places]
        return features

    def decode(self, code: Tensor, context: Tensor | None) -> Tensor:
        """Windows ``[B, W, C]`` of a code ``[B, latent, places]``."""
        h = self.outward(beside(code.transpose(1, 2), context).transpose(1, 2))  # [B, hidden, W/2]
        window: Tensor = self.readings(h)  # [B, C, W]
        return window.transpose(1, 2)  # [B, W, C]


def _down(before: int, after: int) -> nn.Module:
    return nn.Conv1d(before, after, 4, stride=2, padding=1)


def _up(before: int, after: int) -> nn.Module:
    return nn.ConvTranspose1d(before, after, 4, stride=2, padding=1)


def _active(dropout: float) -> list[nn.Module]:
    return [nn.ReLU(), nn.Dropout(dropout)] if dropout else [nn.ReLU()]
