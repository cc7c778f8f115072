"""The graph that is served: scaling, masking, clipping, the architecture and the reduction to a score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from schemas.manifest import Channel
from trainer.data import CLIP
from trainer.models import Architecture
from trainer.models.variational import Variational, gaussian_divergence

#: Error, in units of what is usual, at which a channel counts half as far off: five standard deviations.
BROAD = 25.0


#: What a score is made of, by the name that a setting gives, and in words.
SCORES = {
    "newest": "residual of the newest reading",
    "window": "residual of the window",
    "elbo": "negative evidence lower bound",
}


class Graph(nn.Module):
    """From raw windows to scores.

    ``score``: ``newest`` compares the newest reading with what the H heads expect; ``window`` all readings with the
    reconstruction, H = W; ``elbo`` is the negative evidence lower bound of a variational autoencoder (Kingma & Welling
    2014) at its posterior mean, with the normal error as the variance, without its constants and per half a cell, so
    that what is normal is near 1: mean of r²/σ² + 2 · KL / (W · C). It does not know breadth.

    ``normal`` ``[H, C]``: the mean square error of each channel by each head on normal data that the weights were not
    fitted on, plus a floor, which bounds what a channel may count that was never wrong. A channel's error is divided by
    it before the channels are averaged: what a channel usually gets wrong counts as 1, so a channel that is hard to
    predict cannot drown out one that is easy. (Standardised residuals; on the servers that this was measured on, the
    largest single gain in ranking.)

    Two readings of the same mean error are not alike: one sensor may spike by itself, as sensors do, or many be off
    together, as in a fault. So the mean is weighted by the root of its breadth: the share of channels that are far off.

    ``channels`` (None: all alike): a channel of direction ``rise`` or ``drop`` errs one way only, and each counts by
    its weight, one of weight 0 not at all.
    """

    weight: Tensor
    trust: Tensor
    ones: Tensor
    rises: Tensor
    drops: Tensor
    counts: Tensor

    def __init__(
        self, model: Architecture, normal: Tensor, score: str = "newest", channels: Sequence[Channel] | None = None
    ) -> None:
        super().__init__()
        self.model, self.kind = model, score
        directions = ["both"] * normal.shape[1] if channels is None else [channel.direction for channel in channels]
        weights = [1.0] * normal.shape[1] if channels is None else [channel.weight for channel in channels]
        self.directed, self.weighted = set(directions) != {"both"}, set(weights) != {1.0}
        self.register_buffer("rises", torch.tensor([d != "drop" for d in directions]))
        self.register_buffer("drops", torch.tensor([d != "rise" for d in directions]))
        self.register_buffer("counts", torch.tensor(weights, dtype=normal.dtype))
        weight = 1.0 / normal  # [H, C]
        self.register_buffer("weight", weight / len(weight))
        self.register_buffer("trust", weight / weight.sum(0))
        self.register_buffer("ones", torch.ones(normal.shape[1], 1))

    def forward(
        self, x: Tensor, mask: Tensor, loc: Tensor, scale: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score ``[B]``, error ``[B, C]``, expected newest reading ``[B, C]`` and window ``[B, W, C]``.

        ``x`` ``[B, W, C]`` raw, anything where ``mask`` ``[B, W, C]`` is false; ``loc`` and ``scale`` ``[B, C]``;
        ``context`` ``[B, K]`` in engineering units, NaN where nothing is known. The score is the mean of the error over
        the channels observed in the newest reading, times the root of their breadth; expected is what the heads say,
        each the more trusted the less it usually errs.
        """
        loc3, scale3 = loc.unsqueeze(1), scale.unsqueeze(1)  # [B, 1, C]
        filled = torch.where(mask, x, loc3)  # [B, W, C], and NaN ends here
        z = ((filled - loc3) / scale3).clamp(-CLIP, CLIP)  # [B, W, C]
        known = None if context is None else believed(*scaled_context(context, loc, scale), z)  # [B, K]
        residual, expected = residuals(self.model, self.kind, z, known)  # [B, H, C], [B, H, C]
        observed = mask[:, -1:] if self.kind == "newest" else mask  # [B, 1 or H, C]
        residual = torch.where(observed, residual, 0.0)  # [B, H, C]
        if self.directed:
            rises = residual > 0  # (ONNX Runtime chooses between numbers, not between truths)
            residual = torch.where((rises & self.rises) | (~rises & self.drops), residual, 0.0)  # [B, H, C]
        error = (residual * residual * self.weight).sum(1)  # [B, C]
        seen = observed.any(1).to(x.dtype)  # [B, C]
        if self.kind != "newest":  # the mean over what was observed: what is missing neither raises nor lowers it
            error = error * (z.shape[1] / observed.to(x.dtype).sum(1).clamp(min=1.0))  # [B, C]
        count = seen.sum(1).clamp(min=1.0)  # [B], sums of ones are exact in any order
        share = error / (error + BROAD)  # [B, C], near 1 where a channel is far off
        if self.weighted:
            error, share = error * self.counts, share * self.counts  # [B, C]
            count = ((seen * self.counts) @ self.ones).squeeze(1).clamp(min=1e-6)  # [B]
        # Products with ones, not sums: ONNX Runtime sums along a row in an order that depends on where in memory the
        # row begins, so a window would score by its place in the batch.
        mean = (error @ self.ones).squeeze(1) / count  # [B]
        if isinstance(self.model, Variational) and self.kind == "elbo":
            divergence = gaussian_divergence(*self.model.posterior(z, known))  # [B], nats
            score = mean + 2 * divergence / z[0].numel()  # [B]
        else:
            breadth = (share @ self.ones).squeeze(1) / count  # [B]
            score = mean * torch.sqrt(breadth * (1 + BROAD))  # [B], 1 where every error is 1
        if self.kind == "newest":
            expected = (expected * self.trust).sum(1)  # [B, C]
        else:
            expected = expected[:, -1]  # [B, C]
        expected = expected * scale + loc  # [B, C]
        window = self.model.window(z, known) * scale3 + loc3  # [B, W, C]
        return score, error, expected, window


def residuals(model: Architecture, kind: str, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a score compares: the residual of each head and what it expects, ``[B, H, C]`` each; see ``Graph``."""
    if kind == "newest":
        newest = model.newest(z, context)  # [B, H, C]
        return z[:, -1:] - newest, newest
    window = model.window(z, context)  # [B, W, C]
    return z - window, window


def scaled_context(context: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Context ``[B, K]`` scaled as the channels ``[B, C]`` that it repeats, and where it is known, bool ``[B, K]``."""
    times = context.shape[1] // loc.shape[1]
    loc, scale = loc.repeat(1, times), scale.repeat(1, times)  # [B, K]
    known = ~torch.isnan(context)  # [B, K]
    return ((torch.where(known, context, loc) - loc) / scale).clamp(-CLIP, CLIP), known


def believed(context: Tensor, known: Tensor, z: Tensor) -> Tensor:
    """Scaled context ``[B, K]`` with the reading before the newest where nothing is known: as it was, so it will be.

    A stream in its first period would otherwise be expected at its mean, and look anomalous all day. ``z``
    ``[B, W, C]``; with a window of one reading nothing is known of the stream, and its mean has to do.
    """
    before = z[:, -2] if z.shape[1] > 1 else torch.zeros_like(z[:, -1])  # [B, C]
    return torch.where(known, context, before.repeat(1, context.shape[1] // z.shape[2]))  # [B, K]
