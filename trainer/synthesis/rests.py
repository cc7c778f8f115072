"""Rests: a stepwise channel stays at a value as often as the measured one does.

A network's scores tremble a little; where a channel has few values, that is a step up and a step down where the
measured one rests. So a value is left only where the score goes beyond its cell by a margin (the hysteresis of a
comparator, as in Schmitt, "A thermionic trigger", 1938), as wide as gives the measured share of rests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.synthesis.marginals import Marginal

Floats = NDArray[np.float32]

#: The widest margin, normal scores; and how often it is halved in the search for the right one.
WIDEST, HALVED = 4.0, 12


def share_of_rests(values: Sequence[Floats]) -> Floats:
    """Of stretches ``[n, V]``: share of the steps at which each channel stays as it was ``[V]``."""
    rests = np.sum([(np.diff(stretch, axis=0) == 0).sum(axis=0) for stretch in values], axis=0)
    found: Floats = (rests / max(sum(len(stretch) - 1 for stretch in values), 1)).astype(np.float32)
    return found


def rested(scores: Floats, marginals: Sequence[Marginal], margin: Floats) -> Floats:
    """Normal scores ``[S, n, V]`` of streams that stay in a value's cell until they leave it by ``margin`` ``[V]``.

    ``marginals``: of the V channels. One that has many values moves with every reading.
    """
    steps = np.array([marginal.steps for marginal in marginals])
    if not steps.any():
        return scores
    low, high = np.full_like(scores, np.inf), np.full_like(scores, -np.inf)
    for v in np.flatnonzero(steps).tolist():
        edges = np.concatenate([[-np.inf], marginals[v].atoms[0], [np.inf]]).astype(np.float32)
        cell = np.searchsorted(edges[1:-1], scores[:, :, v])
        low[:, :, v], high[:, :, v] = edges[cell] - margin[v], edges[cell + 1] + margin[v]
    held = scores.copy()
    least, most = low[:, 0], high[:, 0]
    for t in range(1, scores.shape[1]):
        moves = (scores[:, t] < least) | (scores[:, t] > most)
        held[:, t] = np.where(moves, scores[:, t], held[:, t - 1])
        least, most = np.where(moves, low[:, t], least), np.where(moves, high[:, t], most)
    return held


def margins(scores: Floats, marginals: Sequence[Marginal], wanted: Floats) -> Floats:
    """The margins ``[V]`` at which made scores ``[S, n, V]`` rest as often as is wanted ``[V]``, or nearly."""
    low, high = np.zeros_like(wanted), np.full_like(wanted, WIDEST)
    atoms = [marginal.atoms[0] if marginal.steps else None for marginal in marginals]
    for _ in range(HALVED):
        middle = ((low + high) / 2).astype(np.float32)
        held = rested(scores, marginals, middle)
        cells = [held[:, :, v] if own is None else np.searchsorted(own, held[:, :, v]) for v, own in enumerate(atoms)]
        share = np.array([(np.diff(cell, axis=1) == 0).mean() for cell in cells], np.float32)
        short = share < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return low
