"""Normal images as they might as well have been: moved a little, lit a little otherwise; and where pixels count.

Values are scaled so that 0 is black and 1 the brightest. Axes: B images, ``bands`` of a pixel, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.adapters.pillow import BadPictureError, picture, require_pillow
from schemas.errors import DataError
from schemas.frame import Frame


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew whenever it is used. Draws on torch's random state."""

    shift: int = 0
    """Pixels that it is moved by at most, down or up and right or left; the edge repeats."""
    brightness: float = 0.0
    """Share by which it is made lighter or darker at most."""

    def __call__(self, z: Tensor) -> Tensor:
        """Images ``[B, bands, H, W]`` changed; ``z`` itself where nothing is set."""
        if self.shift:
            down, right = torch.randint(-self.shift, self.shift + 1, (2, len(z)), device=z.device)  # [B] each
            z = shifted(z, down, right)
        if self.brightness:
            draw = 2 * torch.rand(len(z), 1, 1, 1, device=z.device) - 1  # [B, 1, 1, 1]
            z = z * (1 + self.brightness * draw)
        return z


@dataclass(frozen=True)
class ImageCorruption:
    """What a network is shown in training instead of the truth; see ``trainer.corruption``. What is hidden is black."""

    noise: float = 0.0
    """Standard deviation of the noise added to every pixel, as a share of the range."""
    mask_cells: float = 0.0
    """Share of single pixels hidden."""
    mask_spans: float = 0.0
    """Share of images with a hidden square of half the shorter side."""

    def __call__(self, z: Tensor) -> Tensor:
        """A spoilt copy of images ``[B, bands, H, W]``; ``z`` itself where nothing is set."""
        B, _, H, W = z.shape
        if self.noise:
            z = z + self.noise * torch.randn_like(z)
        if self.mask_cells:
            z = z * (torch.rand(B, 1, H, W, device=z.device) >= self.mask_cells)
        if self.mask_spans:
            z = z * ~self._squares(B, H, W, z.device)
        return z

    def _squares(self, B: int, H: int, W: int, device: torch.device) -> Tensor:
        """``[B, 1, H, W]``, true in the square of those images that have one."""
        side = max(min(H, W) // 2, 1)
        inside = []
        for extent in (H, W):
            start = torch.randint(0, extent - side + 1, (B, 1), device=device)
            place = torch.arange(extent, device=device)  # [extent]
            inside.append((place >= start) & (place < start + side))  # [B, extent]
        chosen = torch.rand(B, 1, 1, 1, device=device) < self.mask_spans
        return (inside[0][:, None, :, None] & inside[1][:, None, None, :]) & chosen


def shifted(z: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image of ``[B, bands, H, W]`` moved by its own whole numbers ``[B]``; the edge repeats."""
    B, _, H, W = z.shape
    rows = (torch.arange(H, device=z.device) - down[:, None]).clamp(0, H - 1)  # [B, H]
    columns = (torch.arange(W, device=z.device) - right[:, None]).clamp(0, W - 1)  # [B, W]
    image = torch.arange(B, device=z.device)[:, None, None]  # [B, 1, 1]
    moved = z[image, :, rows[:, :, None], columns[:, None, :]]  # [B, H, W, bands]
    return moved.permute(0, 3, 1, 2).contiguous()  # [B, bands, H, W]


def read_region(path: str, frame: Frame) -> Tensor:
    """Bool ``[H, W]``: where a picture of the images' height and width is anything but black.

    Raises DataError where it is no such picture, or black all over.
    """
    require_pillow(path)
    try:
        pixels = picture(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except BadPictureError as error:
        raise DataError(f"{path} is no picture ({error}): draw the region as PNG") from error
    if pixels.shape[:2] != frame[:2]:
        found = Frame(*pixels.shape)
        raise DataError(f"{path} is {found}, the images are {frame}: draw the region in their size")
    inside = pixels.max(axis=2) > 0
    if not inside.any():
        raise DataError(f"{path} is black all over: mark the pixels that count with another colour")
    return torch.from_numpy(inside)
