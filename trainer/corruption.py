"""What a network is shown in training instead of the truth, so that it learns what belongs together rather than to
copy.

Denoising (Vincent et al., "Extracting and composing robust features with denoising autoencoders", ICML 2008): Gaussian
noise, or single cells hidden. Hidden channels and spans (Pathak et al., "Context encoders: feature learning by
inpainting", CVPR 2016): a channel, or all channels for a while, must be told from the rest. What is hidden is 0, as
what is missing is. All draw on torch's random state and compose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: A hidden span is this share of the window.
SPAN = 0.25


@dataclass(frozen=True)
class Corruption:
    """How much of a window is spoilt in training."""

    noise: float = 0.0
    """Standard deviation of the noise added to every cell, in the channel's own."""
    mask_cells: float = 0.0
    """Share of single cells hidden."""
    mask_channels: float = 0.0
    """Share of whole channels hidden."""
    mask_spans: float = 0.0
    """Share of windows with a hidden span of ``SPAN`` of their readings."""

    def __call__(self, z: Tensor) -> Tensor:
        """A spoilt copy of windows ``[B, W, C]``; ``z`` itself where nothing is set."""
        B, W, C = z.shape
        if self.noise:
            z = z + self.noise * torch.randn_like(z)
        if self.mask_cells:
            z = z * (torch.rand_like(z) >= self.mask_cells)
        if self.mask_channels:
            z = z * (torch.rand(B, 1, C, device=z.device) >= self.mask_channels)
        if self.mask_spans:
            z = z * ~self._spans(B, W, z.device)
        return z

    def _spans(self, B: int, W: int, device: torch.device) -> Tensor:
        """``[B, W, 1]``, true in the span of those windows that have one."""
        length = max(round(SPAN * W), 1)
        start = torch.randint(0, W - length + 1, (B, 1), device=device)
        place = torch.arange(W, device=device)  # [W]
        inside = (place >= start) & (place < start + length)  # [B, W]
        chosen = torch.rand(B, 1, device=device) < self.mask_spans
        return (inside & chosen).unsqueeze(2)
