"""Stacks of layers that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def stack(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these sizes, each with a rectifier and dropout: ``[B, sizes[0]]`` → ``[B, sizes[-1]]``."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def halving(widest: int, depth: int) -> list[int]:
    """Sizes of ``depth`` hidden layers, each half of the one before.

    >>> halving(64, 3)
    [64, 32, 16]
    """
    return [max(widest >> layer, 1) for layer in range(depth)]
