"""What the critic of sensors sees: the middle of made stretches, and as much of measured ones."""

from __future__ import annotations

import torch
from torch import nn

from trainer.synthesis.game import Draw, Seen
from trainer.synthesis.generator import AFTER, BEFORE, STRIDES, Noise
from trainer.synthesis.lesson import Windows

#: Readings of a window that the critic sees, and that are made for it.
SEEN = 64
MADE = 4 * STRIDES[0]


def draw_of(windows: Windows) -> Draw:
    """Of windows of MADE readings."""

    def draw(generator: nn.Module, count: int) -> Seen:
        real, context = windows.drawn(count)  # [B, C, MADE]
        made = generator(*Noise.drawn(count, MADE, real.shape[1]), context)
        start = BEFORE + int(torch.randint(MADE - AFTER - BEFORE - SEEN + 1, ()))
        seen = slice(start, start + SEEN)
        others, at = windows.drawn(count)
        return Seen(made[:, :, seen], context[:, :, seen], others[:, :, seen], at[:, :, seen])

    return draw
