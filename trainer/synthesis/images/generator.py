"""The image generator: a code becomes a small picture, which is doubled in size until it is as large as the image.

Style after Karras et al., "A style-based generator architecture" (CVPR 2019): the code says what the picture shows,
noise that enters at each size says how it looks in detail, coarse where the picture is still small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.frame import Frame

#: Numbers of the code.
CODE = 32

#: Sides of the small picture, about; and how often it is doubled at most.
SMALL, MOST_DOUBLED = 4, 5

#: Natural logarithm of the grain's deviation where there is as good as none.
NO_GRAIN = -6.0


def doublings(frame: Frame) -> int:
    """How often the small picture is doubled."""
    return min(max(int(math.log2(max(min(frame.height, frame.width) / SMALL, 1))), 1), MOST_DOUBLED)


def sizes(frame: Frame) -> list[tuple[int, int]]:
    """Height and width at each stage, the small picture first; the last is cut to the image."""
    n = doublings(frame)
    small = -(-frame.height // 2**n), -(-frame.width // 2**n)
    return [(small[0] << stage, small[1] << stage) for stage in range(n + 1)]


class ImageGenerator(nn.Module):
    """Code ``[B, CODE]``, context ``[B, K]``, noise ``[B, n]`` → images ``[B, bands, H, W]``.

    n: pixels of all stages, those of the smallest first, then one for each value of the image: its own grain.
    """

    def __init__(self, frame: Frame, context: int, hidden: int) -> None:
        super().__init__()
        self.frame, self.stages = frame, sizes(frame)
        widths = [max(hidden >> stage, 16) for stage in range(len(self.stages))]
        self.widths = widths
        h, w = self.stages[0]
        self.small = nn.Linear(CODE + context, widths[0] * h * w)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[max(stage - 1, 0)], widths[stage], 3, padding=1) for stage in range(len(widths))
        )
        self.again = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths)
        self.noise = nn.ParameterList(nn.Parameter(torch.full((1, width, 1, 1), 0.1)) for width in widths)
        self.out = nn.Conv2d(widths[-1], frame.bands, 3, padding=1)
        self.log_grain = nn.Parameter(torch.tensor(NO_GRAIN))

    def forward(self, code: Tensor, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Pixels from 0 to 1. Grain comes before they are bounded: what is all black or all white has none."""
        context = code[:, :0] if context is None else context
        shared, frame = self.noises - self.frame.values, self.frame
        grain = noise[:, shared:].reshape(-1, frame.bands, frame.height, frame.width)
        return torch.sigmoid(self.unbounded(code, noise[:, :shared], context) + self.log_grain.exp() * grain)

    def unbounded(self, code: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        """Pixels without grain, before they are bounded."""
        h, w = self.stages[0]
        drawn = torch.split(noise, [h * w for h, w in self.stages], 1)
        x = F.silu(self.small(torch.cat([code, context], 1))).reshape(-1, self.widths[0], h, w)  # [B, H0, h, w]
        stages = zip(self.convolutions, self.again, self.noise, drawn, self.stages, strict=True)
        for stage, (convolution, again, strength, own, size) in enumerate(stages):
            if stage:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = convolution(x)
            x = x + again(F.silu(x)) + strength * own.reshape(-1, 1, *size)  # [B, Hs, h, w]
            x = F.silu(x)
        pixels: Tensor = self.out(x)[:, :, : self.frame.height, : self.frame.width]
        return pixels

    @property
    def noises(self) -> int:
        """n."""
        return sum(h * w for h, w in self.stages) + self.frame.values
