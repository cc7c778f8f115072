"""Convolutional autoencoders of images: strided convolutions to a small code, transposed ones back (Masci et al.,
"Stacked convolutional auto-encoders for hierarchical feature extraction", ICANN 2011).

Axes: B images, ``bands`` of a pixel, H rows, W columns; values scaled to about [0, 1]. Fully convolutional (Long et
al., "Fully convolutional networks for semantic segmentation", CVPR 2015): no weight depends on H and W, so one network
does for every size. The code is ``latent`` numbers for each patch of ``reach`` × ``reach`` pixels; an image no larger
than a patch has one code, a larger one a grid of them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.errors import SettingsError
from schemas.frame import Frame
from trainer.images.architecture import ImageAutoencoder
from trainer.models.architecture import Size
from trainer.models.variational import LEAST, MOST, gaussian_divergence

#: Shorter sides above which another halving, and a patch of 4 × 4 places instead of 2 × 2, pay.
HALVED, PLACED = 16, 8


class ConvAutoencoder(ImageAutoencoder):
    """``depth`` convolutions, each of which halves the image, and a last one that makes a code of each patch."""

    def __init__(self, frame: Frame, size: Size) -> None:
        super().__init__(frame)
        shorter = min(frame.height, frame.width)
        depth, places = size.depth or (3 if shorter > HALVED else 2), 4 if shorter > PLACED else 2
        hidden, latent = size.hidden or 32, size.latent or 16
        self.reach = places << depth
        most = 2 * max(frame.height, frame.width, HALVED)
        if self.reach > most:
            raise SettingsError(
                f"setting 'depth': {depth} layers make patches of {self.reach} pixels, the images are {frame}: take "
                f"{(most // places).bit_length() - 1} or fewer"
            )
        self.grid = (-(-frame.height // self.reach), -(-frame.width // self.reach))
        self.code_size = latent * self.grid[0] * self.grid[1]
        widths = [frame.bands, *(max(hidden >> layer, 1) for layer in reversed(range(depth)))]
        inward: list[nn.Module] = []
        outward: list[nn.Module] = []
        for before, after in pairwise(widths):
            inward += [_down(before, after), nn.ReLU(), *_dropout(size.dropout)]
            outward = [nn.ReLU(), *_dropout(size.dropout), _up(after, before), *outward]
        self.inward = nn.Sequential(*inward)
        self.code = nn.Conv2d(widths[-1], latent, places, stride=places)
        self.spread = nn.ConvTranspose2d(latent, widths[-1], places, stride=places)
        self.outward = nn.Sequential(*outward)

    def features(self, z: Tensor) -> Tensor:
        """What the code is made from, ``[B, hidden, places, places]``; at its edge the image repeats."""
        top, left, bottom, right = self._margins()
        padded = F.pad(z, (left, right, top, bottom), mode="replicate")  # [B, bands, n·reach, m·reach]
        features: Tensor = self.inward(padded)  # [B, hidden, n·places, m·places]
        return features

    def encode(self, z: Tensor) -> Tensor:
        """Code ``[B, latent, n, m]`` of images ``[B, bands, H, W]``."""
        code: Tensor = self.code(self.features(z))  # [B, latent, n, m]
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Images ``[B, bands, H, W]`` of a code ``[B, latent, n, m]``."""
        top, left, _, _ = self._margins()
        padded: Tensor = self.outward(self.spread(code))  # [B, bands, n·reach, m·reach]
        return padded[:, :, top : top + self.frame.height, left : left + self.frame.width]  # [B, bands, H, W]

    def _margins(self) -> tuple[int, int, int, int]:
        """Pixels added at the top, left, bottom and right so that patches cover the image."""
        down = self.grid[0] * self.reach - self.frame.height
        across = self.grid[1] * self.reach - self.frame.width
        return down // 2, across // 2, down - down // 2, across - across // 2


class VariationalConvAutoencoder(ConvAutoencoder):
    """The code has a distribution (Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014): in training it is
    drawn from the posterior, for a score it is the posterior's mean, which is what ``encode`` gives.
    """

    def __init__(self, frame: Frame, size: Size) -> None:
        super().__init__(frame, size)
        places = self.code.kernel_size[0]
        self.log_variance = nn.Conv2d(self.code.in_channels, self.code.out_channels, places, stride=places)

    def posterior(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, ``[B, latent, n, m]`` each."""
        features = self.features(z)  # [B, hidden, n·places, m·places]
        log_variance: Tensor = self.log_variance(features)  # [B, latent, n, m]
        return self.code(features), log_variance.clamp(LEAST, MOST)

    def sample(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[B, bands, H, W]`` decoded from a draw of the code, and what the code costs, ``[B]``, nats."""
        mean, log_variance = self.posterior(z)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)  # [B, latent, n, m]
        return self.decode(code), gaussian_divergence(mean, log_variance)


def _down(before: int, after: int) -> nn.Module:
    # kernel = 2 · stride: every output sees equally many inputs, so no checkerboard (Odena et al. 2016)
    return nn.Conv2d(before, after, 4, stride=2, padding=1)


def _up(before: int, after: int) -> nn.Module:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []
