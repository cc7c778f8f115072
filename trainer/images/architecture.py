"""What every image model is: a code of an image and a way back from it.

Axes: B images, ``bands`` of a pixel, H rows, W columns; values scaled to about [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from schemas.frame import Frame


class ImageAutoencoder(nn.Module, ABC):
    """Expects an image to be what its code says it is."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Code ``[B, …]`` of images ``[B, bands, H, W]``; of a distribution, its mean."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Images ``[B, bands, H, W]`` of a code."""

    def forward(self, z: Tensor) -> Tensor:
        """The reconstruction, ``[B, bands, H, W]``."""
        return self.decode(self.encode(z))


def as_images(values: Tensor, frame: Frame) -> Tensor:
    """Readings ``[B, H·W·bands]``, as the detector holds them, as ``[B, bands, H, W]``."""
    return values.reshape(-1, *frame).permute(0, 3, 1, 2).contiguous()  # [B, bands, H, W]


def as_readings(images: Tensor) -> Tensor:
    """Images ``[B, bands, H, W]`` as readings, ``[B, H·W·bands]``."""
    return images.permute(0, 2, 3, 1).flatten(1)  # [B, H·W·bands]
