"""The graph that is served: scaling, masking, clipping, the architecture and the reduction to a score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data import CLIP, Windows
from trainer.models import Architecture


class Graph(nn.Module):
    """From raw windows to scores.

    ``normal`` ``[C]``: the mean square error of each channel on normal data that the weights were not fitted on, plus a
    floor, which bounds what a channel may count that was never wrong. A channel's error is divided by it before the
    channels are averaged: what a channel usually gets wrong counts as 1, so a channel that is hard to predict cannot
    drown out one that is easy. (Standardised residuals; on the servers that this was measured on, the largest single
    gain in ranking.)
    """

    weight: Tensor
    ones: Tensor

    def __init__(self, model: Architecture, normal: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weight", 1.0 / normal)
        self.register_buffer("ones", torch.ones(len(normal), 1))

    def forward(self, x: Tensor, mask: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score ``[B]``, error ``[B, C]``, expected newest reading ``[B, C]`` and window ``[B, W, C]``.

        ``x`` ``[B, W, C]`` raw, anything where ``mask`` ``[B, W, C]`` is false; ``loc`` and ``scale`` ``[B, C]``. The
        score is the mean of the error over the channels observed in the newest reading.
        """
        loc3, scale3 = loc.unsqueeze(1), scale.unsqueeze(1)  # [B, 1, C]
        filled = torch.where(mask, x, loc3)  # [B, W, C], and NaN ends here
        z = ((filled - loc3) / scale3).clamp(-CLIP, CLIP)  # [B, W, C]
        code = self.model.encode(z)  # the architecture's own
        newest = self.model.newest(code)  # [B, C]
        observed = mask[:, -1]  # [B, C]
        residual = torch.where(observed, z[:, -1] - newest, 0.0)  # [B, C]
        error = residual * residual * self.weight  # [B, C]
        # A product with ones, not a sum: ONNX Runtime sums along a row in an order that depends on where in memory the
        # row begins, so a window would score by its place in the batch.
        total = (error @ self.ones).squeeze(1)  # [B]
        score = total / observed.to(x.dtype).sum(1).clamp(min=1.0)  # [B], sums of ones are exact in any order
        expected = newest * scale + loc  # [B, C]
        window = self.model.decode(code) * scale3 + loc3  # [B, W, C]
        return score, error, expected, window


@torch.no_grad()
def mean_square_error(model: Architecture, held_out: Windows) -> Tensor:
    """Mean square error ``[C]`` of the newest reading of held-out normal windows, scaled units; 1 where none is there.

    Estimated on the calibration stretch: it is the longest and latest normal stretch that neither moved the weights nor
    said when to stop. Its scores also set the threshold, so split conformal's guarantee is not exact: each of them is
    divided by a mean that it is part of. Against the validation stretch, which would keep it exact, that cost nothing
    that could be measured: fitted on the first three quarters of eight servers' normal data and promised 1e-3, .98 % of
    the last quarter lay above the threshold, .96 % with the validation stretch (drift makes either so large). But that
    stretch is a third as long: a channel that happens to be quiet there counts for too much ever after, and labelled
    anomalies of minute-by-minute servers ranked lower (area under precision and recall .75 for .79).
    """
    total = torch.zeros(held_out.data.channels, dtype=torch.float64)
    count = torch.zeros(held_out.data.channels, dtype=torch.float64)
    for chosen in held_out.batches():
        z, observed = (torch.from_numpy(a) for a in held_out.scaled(chosen))  # [b, W, C]
        there = observed[:, -1]  # [b, C]
        residual = z[:, -1] - model.newest(model.encode(z))  # [b, C]
        total += torch.where(there, residual, 0.0).double().square().sum(0)  # [C]
        count += there.sum(0)  # [C]
    return torch.where(count > 0, total / count.clamp(min=1), 1.0).float()
