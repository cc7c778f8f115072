"""Each channel's own distribution: values become normal scores for a network, and normal scores become values.

A network learns smooth things. What is not smooth is kept here: a channel's steps (hundredths, whole numbers), values
that it has most of the time, hard ends. So a sample holds only values that the channel can have: where it has few
different ones, exactly these, and never one beyond the lowest and the highest that were seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float32]

#: Different values up to which a channel counts as stepwise: each of them is kept with its own share.
MOST_STEPS = 1024

#: Knots of a channel that has more: quantiles, closer together at both ends.
KNOTS = 513

#: Normal scores are cut here; one in 300,000 would be farther out.
FARTHEST = 4.5


@dataclass(frozen=True)
class Marginal:
    """The distribution of one channel, by K knots in ascending order."""

    values: NDArray[np.float64]
    """``[K]``, engineering units."""
    shares: NDArray[np.float64]
    """``[K]``: share of the readings up to each value. Of a stepwise channel, the value included."""
    steps: bool
    """It has no values but these."""

    @classmethod
    def of(cls, values: Floats) -> Marginal:
        """Of the observed values ``[n]`` of a channel, n ≥ 1."""
        found, counts = np.unique(values.astype(np.float64), return_counts=True)
        if len(found) <= MOST_STEPS:
            return cls(found, np.cumsum(counts) / counts.sum(), steps=True)
        shares = ndtr(np.linspace(-FARTHEST, FARTHEST, KNOTS))
        shares[0], shares[-1] = 0, 1
        return cls(np.quantile(values.astype(np.float64), shares), shares, steps=False)

    @property
    def constant(self) -> bool:
        """It never moves."""
        return len(self.values) == 1

    def scores(self, values: Floats) -> Floats:
        """Normal scores of values ``[…]``: of a stepwise channel the middle of the value's share."""
        if self.steps:
            edges = np.concatenate([[0.0], self.shares])
            # between two steps, or beyond all: the nearest
            place = np.abs(np.searchsorted((self.values[1:] + self.values[:-1]) / 2, values))
            share = (edges[place] + edges[place + 1]) / 2
        else:
            share = np.interp(values, self.values, self.shares)
        cut: Floats = np.clip(ndtri(share), -FARTHEST, FARTHEST).astype(np.float32)
        return cut

    @property
    def atoms(self) -> tuple[Floats, Floats]:
        """(edges ``[K - 1]`` between them, normal scores ``[K]``) of a stepwise channel's values."""
        return ndtri(self.shares[:-1]).astype(np.float32), self.scores(self.values.astype(np.float32))

    def back(self, scores: Floats) -> Floats:
        """Values of normal scores ``[…]``."""
        if self.steps:
            place = np.searchsorted(ndtri(self.shares[:-1]), scores)
            return self.values.astype(np.float32)[place]
        edges = np.clip(ndtri(self.shares), -FARTHEST, FARTHEST)
        return np.interp(scores, edges, self.values).astype(np.float32)


def readings_of(
    scores: Floats, marginals: Sequence[Marginal], varying: Sequence[int], same_as: Sequence[int]
) -> Floats:
    """Readings ``[n, C]`` of normal scores ``[n, V]`` of the channels that vary.

    ``same_as`` ``[C]``: the first channel that each always equals, or itself.
    """
    made = np.empty((len(scores), len(marginals)), np.float32)
    place = {c: v for v, c in enumerate(varying)}
    for c, first in enumerate(same_as):
        v = place.get(first)
        made[:, c] = marginals[c].values[0] if v is None else marginals[first].back(scores[:, v])
    return made
