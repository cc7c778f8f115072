"""From an image and its reconstruction to an error of each pixel, and from these to one score.

Axes: B images, ``bands`` of a pixel, H rows, W columns. Every function is differentiable, has no random node, exports
to ONNX, and treats each image alone, with element-wise operations and products only: what an image scores does not
depend on the batch that it came in.

What ranks images best was measured to be, in this order: each pixel's error divided by what it usually is on held-out
normal images; smoothing the difference before it is squared, so that an edge that lies a fraction of a pixel beside its
reconstruction, positive on one side and negative on the other, cancels out; the mean over all pixels, not over the
worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.errors import SettingsError

#: Added to each pixel's normal error, as a share of the mean over all pixels: a pixel that was never wrong (the black
#: around a thing) is not infinitely sensitive.
FLOOR = 0.1

#: Constants of the structural similarity for values of range 1: (0.01)² and (0.03)² (Wang et al. 2004).
C1, C2 = 1e-4, 9e-4


@dataclass(frozen=True)
class Reduction:
    """How the difference of an image and its reconstruction becomes one number."""

    measure: Literal["error", "ssim"] = "error"
    """The squared difference, or what the structural similarity lacks to 1."""
    blur: int = 1
    """How often the difference is smoothed by 1 2 1 each way before it is squared."""
    reach: int = 0
    """Pixels by which the reconstruction may lie beside the image, each pixel judged at the shift that fits best."""
    top: float = 1.0
    """Share of the pixels, those with the largest errors, whose mean is the score."""

    def __post_init__(self) -> None:
        if not (0 <= self.blur <= 8 and 0 <= self.reach <= 4 and 0 < self.top <= 1):
            raise SettingsError(f"blur is 0 to 8, reach 0 to 4, top above 0 to 1, not {self}")

    def map(self, z: Tensor, expected: Tensor) -> Tensor:
        """The error of each pixel, ``[B, H, W]``, of images and reconstructions ``[B, bands, H, W]``."""
        if self.measure == "ssim":
            return dissimilarity(z, expected)
        return least_error(blurred(z, self.blur), blurred(expected, self.blur), self.reach)


class PixelScore(nn.Module):
    """``normal`` ``[H, W]``: the mean error of each pixel on normal images that the weights were not fitted on;
    ``region`` bool ``[H, W]``: where pixels count, None: everywhere.
    """

    weight: Tensor
    share: Tensor

    def __init__(self, reduction: Reduction, normal: Tensor, region: Tensor | None = None) -> None:
        super().__init__()
        inside = torch.ones_like(normal, dtype=torch.bool) if region is None else region
        count = int(inside.sum())
        if not count:
            raise SettingsError("the region holds no pixel: mark those that count with anything but 0")
        usual = normal + FLOOR * normal[inside].mean() + torch.finfo(torch.float32).tiny
        self.reduction = reduction
        self.worst = max(round(reduction.top * count), 1)
        self.register_buffer("weight", torch.where(inside, 1 / usual, 0.0))
        summed = self.worst if reduction.top < 1 else normal.numel()
        self.register_buffer("share", torch.full((summed, 1), 1 / self.worst))

    def forward(self, z: Tensor, expected: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score ``[B]`` and map ``[B, H, W]`` in units of the normal error, 0 outside the region.

        ``z``, ``expected`` and, where pixels may be missing, ``observed`` bool: ``[B, bands, H, W]``. A missing pixel
        is taken to be as expected.
        """
        seen = z if observed is None else torch.where(observed, z, expected)  # [B, bands, H, W]
        error = self.reduction.map(seen, expected) * self.weight  # [B, H, W]
        pixels = error.flatten(1)  # [B, H·W]
        if self.reduction.top < 1:
            pixels = torch.topk(pixels, self.worst, dim=1).values  # [B, worst]
        # a product, not a sum: ONNX Runtime's sum of a row depends on where in memory the row begins
        return (pixels @ self.share).squeeze(1), error  # [B], [B, H, W]


def blurred(x: Tensor, times: int) -> Tensor:
    """``x`` ``[B, bands, H, W]`` smoothed ``times`` by the binomial weights ¼ ½ ¼ down and across; the edge repeats."""
    for _ in range(times):
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # [B, bands, H + 2, W + 2]
        x = 0.25 * (x[:, :, :-2] + x[:, :, 2:]) + 0.5 * x[:, :, 1:-1]  # [B, bands, H, W + 2]
        x = 0.25 * (x[:, :, :, :-2] + x[:, :, :, 2:]) + 0.5 * x[:, :, :, 1:-1]  # [B, bands, H, W]
    return x


def least_error(z: Tensor, expected: Tensor, reach: int) -> Tensor:
    """The squared error of each pixel, the mean over its bands, ``[B, H, W]``: the least over all reconstructions
    shifted by up to ``reach`` pixels down or up and right or left. Beyond its edge a reconstruction repeats itself.
    """
    H, W = z.shape[2:]
    wide = F.pad(expected, (reach,) * 4, mode="replicate") if reach else expected  # [B, bands, H + 2r, W + 2r]
    least: Tensor | None = None
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            error = (z - wide[:, :, down : down + H, right : right + W]).square().mean(1)  # [B, H, W]
            least = error if least is None else torch.minimum(least, error)
    assert least is not None
    return least


def dissimilarity(z: Tensor, expected: Tensor) -> Tensor:
    """1 - SSIM of each pixel, the mean over its bands, ``[B, H, W]``: 0 where both look alike, at most 2.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions on Image
    Processing 2004, eq. 13, for values of range about 1, with the binomial weights of a 7 × 7 window for its Gaussian.
    """

    def mean(x: Tensor) -> Tensor:
        return blurred(x, 3)  # [B, bands, H, W]

    a, b = mean(z), mean(expected)  # [B, bands, H, W]
    variances = mean(z * z) - a * a + mean(expected * expected) - b * b  # [B, bands, H, W], their sum
    covariance = mean(z * expected) - a * b  # [B, bands, H, W]
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)  # [B, bands, H, W]
    structure = (2 * covariance + C2) / (variances + C2)  # [B, bands, H, W]
    return (1 - luminance * structure).mean(1)  # [B, H, W]
