"""From an image and its reconstruction to an error of each pixel, and from these to one score.

Axes: B images, ``bands`` of a pixel, H rows, W columns. Every function is differentiable, has no random node, exports
to ONNX, and treats each image alone: what an image scores does not depend on the batch that it came in.

Two measures are added, each divided at each pixel by what it usually is on held-out normal images. The squared error,
of a difference that was smoothed first, so that an edge a fraction of a pixel beside its reconstruction cancels out; it
knows no bound, so a small bright spot is seen. And what the structural similarity lacks to 1; it is at most 2, so a
small spot drowns in the noise of black surroundings, but it tells textures and shapes apart. Mean AUROC of PCA on ten
kinds of clothes, one of them normal: plain squared error .905, divided at each pixel .919, smoothed as well .928,
structural similarity .939, both .935 (.932 with a pixel forgiven). The worst pixels alone (``top``) are no better
there; they are for large pictures with small faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.errors import SettingsError
from schemas.frame import Frame

#: Added to each pixel's normal error, as a share of the mean over all pixels: a pixel that was never wrong (the black
#: around a thing) is not infinitely sensitive.
FLOOR = 0.1

#: And at least this: the squared error of a thousandth of the range, and a dissimilarity that nobody sees. Of a scene
#: that never changes, rounding errors would count for everything.
LEAST_NORMAL = {"error": 1e-6, "ssim": 1e-4}

#: Shorter side of images, in pixels, from which on a pixel is little.
LEAST_SIDE = 16

#: Constants of the structural similarity for values of range 1: (0.01)² and (0.03)² (Wang et al. 2004).
C1, C2 = 1e-4, 9e-4

#: How often the weights ¼ ½ ¼ are applied for the means of the structural similarity.
TAPS = 3


@dataclass(frozen=True)
class Reduction:
    """How the difference of an image and its reconstruction becomes one number."""

    measures: tuple[Literal["error", "ssim"], ...] = ("error", "ssim")
    """The squared difference, what the structural similarity lacks to 1, or both: M of them."""
    blur: int = 1
    """How often the difference is smoothed by 1 2 1 each way before it is squared; ``ssim`` does without."""
    reach: int = 1
    """Pixels by which the reconstruction may lie beside the image, each pixel judged at the shift that fits best."""
    top: float = 1.0
    """Share of the pixels, those with the largest errors, whose mean is the score."""

    def __post_init__(self) -> None:
        if not (self.measures and 0 <= self.blur <= 8 and 0 <= self.reach <= 4 and 0 < self.top <= 1):
            raise SettingsError(f"blur is 0 to 8, reach 0 to 4, top above 0 to 1, not {self}")

    def maps(self, z: Tensor, expected: Tensor) -> Tensor:
        """The error of each pixel, ``[B, M, H, W]``, of images and reconstructions ``[B, bands, H, W]``."""
        found = []
        for measure in self.measures:
            if measure == "ssim":
                found.append(least_dissimilarity(z, expected, self.reach))  # [B, H, W]
            else:
                smooth = blurred(z, self.blur), blurred(expected, self.blur)  # [B, bands, H, W] each
                found.append(least_squared_error(*smooth, self.reach))  # [B, H, W]
        return torch.stack(found, 1)  # [B, M, H, W]


def tolerance(frame: Frame) -> int:
    """Pixels by which images of this size may move, in training and in the score: 1, and 0 where a pixel is much.

    A pixel of eight moves a stroke of a digit beside itself: forgiving it was measured to cost .02 of AUROC there.
    """
    return int(min(frame.height, frame.width) >= LEAST_SIDE)


class PixelScore(nn.Module):
    """``normal`` ``[M, H, W]``: the mean of each map on normal images that the weights were not fitted on;
    ``region`` bool ``[H, W]``: where pixels count, None: everywhere.
    """

    weight: Tensor
    inside: Tensor
    share: Tensor

    def __init__(self, reduction: Reduction, normal: Tensor, region: Tensor | None = None) -> None:
        super().__init__()
        M, H, W = normal.shape
        inside = torch.ones(H, W, dtype=torch.bool) if region is None else region
        count = int(inside.sum())
        if not count:
            raise SettingsError("the region holds no pixel: mark those that count with anything but 0")
        least = normal.new_tensor([LEAST_NORMAL[measure] for measure in reduction.measures])  # [M]
        floor = FLOOR * normal[:, inside].mean(1) + least  # [M]
        self.reduction = reduction
        self.worst = max(round(reduction.top * count), 1)
        summed = self.worst if reduction.top < 1 else H * W
        weight = 1 / (M * (normal + floor[:, None, None]))  # [M, H, W]
        self.register_buffer("weight", torch.where(inside, weight, 0.0))
        self.register_buffer("inside", inside)
        self.register_buffer("share", torch.full((summed, 1), 1 / self.worst))

    def forward(self, z: Tensor, expected: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score ``[B]`` and map ``[B, H, W]`` in units of the normal error, NaN outside the region.

        ``z``, ``expected`` and, where pixels may be missing, ``observed`` bool: ``[B, bands, H, W]``. A missing pixel
        is taken to be as expected.
        """
        seen = z if observed is None else torch.where(observed, z, expected)  # [B, bands, H, W]
        error = (self.reduction.maps(seen, expected) * self.weight).sum(1)  # [B, H, W]
        pixels = error.flatten(1)  # [B, H·W]
        if self.reduction.top < 1:
            pixels = torch.topk(pixels, self.worst, dim=1).values  # [B, worst]
        # a product, not a sum: ONNX Runtime's sum of a row depends on where in memory the row begins
        shown = torch.where(self.inside, error, torch.nan)  # [B, H, W]
        return (pixels @ self.share).squeeze(1), shown  # [B], [B, H, W]


def blurred(x: Tensor, times: int) -> Tensor:
    """``x`` ``[B, n, H, W]`` smoothed ``times`` by the weights ¼ ½ ¼ down and across; the edge repeats."""
    return _blurred_inside(F.pad(x, (times,) * 4, mode="replicate"), times) if times else x  # [B, n, H, W]


def _blurred_inside(wide: Tensor, times: int) -> Tensor:
    """The same of ``[B, n, H + 2t, W + 2t]``, whose edge is cut off. Each of the n planes by itself (a depthwise
    convolution): as n·B images of one plane it would take ten times the memory.
    """
    n = wide.shape[1]
    taps = wide.new_tensor([comb(2 * times, k) / 4**times for k in range(2 * times + 1)])  # [2t + 1]
    down = F.conv2d(wide, taps.reshape(1, 1, -1, 1).expand(n, 1, -1, 1), groups=n)  # [B, n, H, W + 2t]
    return F.conv2d(down, taps.reshape(1, 1, 1, -1).expand(n, 1, 1, -1), groups=n)  # [B, n, H, W]


def _shifted(wide: Tensor, reach: int) -> Tensor:
    """All S shifts by up to ``reach`` pixels either way of ``[B, n, H + 2r, W + 2r]``: ``[B, S, n, H, W]``."""
    H, W = wide.shape[2] - 2 * reach, wide.shape[3] - 2 * reach
    sides = range(2 * reach + 1)
    return torch.stack([wide[:, :, down : down + H, right : right + W] for down in sides for right in sides], 1)


def least_squared_error(z: Tensor, expected: Tensor, reach: int) -> Tensor:
    """The squared error of each pixel, the mean over its bands, ``[B, H, W]``: the least over all shifts of the
    reconstruction by up to ``reach`` pixels down or up and right or left. Beyond its edge it repeats itself.
    """
    moved = _shifted(_padded(expected, reach), reach)  # [B, S, bands, H, W]
    return (z.unsqueeze(1) - moved).square().mean(2).amin(1)  # [B, H, W]


def least_dissimilarity(z: Tensor, expected: Tensor, reach: int) -> Tensor:
    """1 - SSIM of each pixel, the mean over its bands, ``[B, H, W]``: 0 where both look alike, at most 2; the least
    over all shifts, as above.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions on Image
    Processing 2004, eq. 13, for values of range about 1, with the binomial weights of a 7 × 7 window for its Gaussian.
    Written without the difference of nearly equal numbers that 1 - SSIM is: with d the difference, l and s the
    luminance and the structure, 1 - l = mean(d)² / (a² + b² + C1) and 1 - s = variance(d) / (variances + C2).
    """
    wide = _padded(expected, reach + TAPS)  # [B, bands, H + 2r + 2t, W + 2r + 2t]
    a, b = blurred(z, TAPS), _blurred_inside(wide, TAPS)  # [B, bands, H, W], [B, bands, H + 2r, W + 2r]
    spread = blurred(z * z, TAPS) - a * a  # [B, bands, H, W]
    usual = _blurred_inside(wide * wide, TAPS) - b * b  # [B, bands, H + 2r, W + 2r]
    a, b, variances = a.unsqueeze(1), _shifted(b, reach), spread.unsqueeze(1) + _shifted(usual, reach)
    moved = _shifted(wide[:, :, TAPS:-TAPS, TAPS:-TAPS], reach)  # [B, S, bands, H, W]
    square = (z.unsqueeze(1) - moved).square()  # [B, S, bands, H, W]
    difference = (a - b).square()  # [B, S, bands, H, W]
    variance = blurred(square.flatten(1, 2), TAPS).reshape(square.shape) - difference  # [B, S, bands, H, W]
    luminance = difference / (a * a + b * b + C1)  # [B, S, bands, H, W], 1 - l
    structure = variance / (variances + C2)  # [B, S, bands, H, W], 1 - s
    return (luminance + structure - luminance * structure).mean(2).amin(1)  # [B, H, W]


def _padded(x: Tensor, by: int) -> Tensor:
    return F.pad(x, (by,) * 4, mode="replicate") if by else x
