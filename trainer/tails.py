"""From peaks of episodes to a tail: how often normal data reach a level, also a level that they never reached.

Three ways, each where it holds.

* Where the data reach, *ranks*: with N peaks above a level in T stream-days, exchangeable data exceed it (N + 1) / T
  times a day at most (Vovk, Gammerman & Shafer 2005).
* Beyond, *peaks over a threshold* (Pickands 1975; Davison & Smith 1990; Siffer et al. 2017): what the largest peaks
  exceed a level by is generalised Pareto. Its shape is drawn towards 0, an exponential tail, by a prior (Martins &
  Stedinger 2000 do so for floods): a shape from a few dozen peaks is mostly noise, and a threshold that is extrapolated
  with it is worse than noise.
* Where the stretch holds faults that nobody knows of, the largest peaks are no normal ones, and both of the above make
  the threshold blind to what it is for. Servers were seen with ten times the threshold. So the tail is also fitted
  to the *bulk*: the peaks between the levels that are reached ``BULK[0]`` and ``BULK[1]`` times a week, by maximum
  likelihood truncated at both. Where the peaks above are larger than the bulk lets expect, clearly and by a factor that
  matters, the bulk's tail stands, and what it cannot explain is told to be suspect.

A peak is the largest within a gap on either side, so peaks thin out where episodes are frequent: episodes of a rate Λ
leave (1 - exp(-2gΛ)) / 2g peaks. All rates here are those of episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from detector.engine.tails import Tail

#: Episodes per stream and day at the two ends of the bulk: 60 and 10 a week.
BULK = (60 / 7, 10 / 7)

#: Peaks that the bulk has at least, to be fitted; of them and above them, for a shape of its own.
LEAST_BULK, LEAST_SHAPE = 30, 300

#: Peaks above the level that a tail is fitted over: a tenth of all, within these bounds.
LEAST_OVER, MOST_OVER = 30, 300

#: Standard deviation of the shape before any data: most tails of scores lie within ± .2.
SHAPE_PRIOR = 0.1

#: The stretch holds faults where its peaks above the bulk exceed it by this many times what the bulk lets expect in the
#: mean, and where chance does so less often than this.
HEAVIER, CHANCE = 2.0, 1e-3

#: A peak is suspect where the whole stretch lets expect less than this many as large.
SUSPECT = 0.1

#: Return periods up to this many times the stretch are told; a threshold goes no further.
EXTENT = 1000.0

#: Points of the table beyond the ranks, and of the ranks.
POINTS, RANKS = 64, 512

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A generalised Pareto tail: ``rate`` · (1 + shape · (x - anchor) / scale)^(-1 / shape) episodes a day."""

    anchor: float
    rate: float
    scale: float
    shape: float

    def rates(self, x: Floats) -> Floats:
        """Episodes per stream and day at levels ``[N]``."""
        return self.rate * np.exp(-self.depth(x))

    def depth(self, x: Floats) -> Floats:
        """-log of the share of the anchor's episodes that reach each level, ``[N]``: exponential where the fit holds."""
        z = (x - self.anchor) / self.scale
        if abs(self.shape) < 1e-6:
            return z
        return np.log(np.maximum(1 + self.shape * z, 1e-300)) / self.shape

    def levels(self, rates: Floats) -> Floats:
        """Levels that are reached at these rates, ``[N]``."""
        depth = np.log(self.rate / rates)
        return self.anchor + self.scale * (
            depth if abs(self.shape) < 1e-6 else np.expm1(self.shape * depth) / self.shape
        )


@dataclass(frozen=True)
class Fitted:
    """A tail and what it was made from; levels in units of the streams' factors."""

    tail: Tail
    fit: Fit
    bulk: bool
    """The bulk's tail stands, because the largest peaks look like faults."""
    level: Floats
    """``[P]``: the peaks, each divided by its stream's factor; the largest first."""
    rate: Floats
    """``[P]``: episodes per stream and day at each."""
    suspect: NDArray[np.bool_]
    """``[P]``: looks like a fault."""
    days: float

    def method(self, rate: float) -> str:
        """What says the level of a rate."""
        if rate >= self.fit.rate:
            return "ranks"
        return f"{'bulk' if self.bulk else 'pot'}-{'gpd' if abs(self.fit.shape) >= 1e-6 else 'exponential'}"


def fit_tail(level: Floats, days: float, gap_days: float, repeats: float = 1.0) -> Fitted:
    """The tail of peaks ``[P]``, P ≥ 1, of ``days`` stream-days; ``repeats``: incidents for each peak."""
    x = np.sort(level)[::-1]
    rate = thinned_back(np.arange(1, len(x) + 1) / days, gap_days)
    bulk = _bulk(x, rate, gap_days)
    suspect = np.zeros(len(x), bool)
    if bulk is not None and _heavier(x, rate, bulk):
        fit = bulk
        suspect = fit.rates(x) * days < SUSPECT
    else:
        fit, bulk = _over(x, rate, gap_days), None
    tail = _table(x, rate, fit, days, repeats)
    return Fitted(tail, replace(fit, rate=fit.rate * repeats), bulk is not None, x, rate * repeats, suspect, days)


def thinned_back(rate: Floats, gap_days: float) -> Floats:
    """Rates of episodes that leave peaks at these rates, ``[N]``."""
    return -np.log1p(-np.minimum(2 * gap_days * rate, 0.98)) / (2 * gap_days)


def _bulk(x: Floats, rate: Floats, gap_days: float) -> Fit | None:
    """The tail as the bulk shows it, anchored at its upper end; None: too few peaks, or all alike."""
    last, first = np.searchsorted(rate, BULK[0], side="right"), int(np.searchsorted(rate, BULK[1]))
    inside = x[first + 1 : last]
    if first >= len(x) or len(inside) < LEAST_BULK or not x[first] > inside[-1]:
        return None
    return _likeliest(inside, Fit(x[first], float(rate[first]), 1.0, 0.0), gap_days, top=float(x[first]))


def _over(x: Floats, rate: Floats, gap_days: float) -> Fit:
    """The tail over the level that a tenth of the peaks exceed."""
    over = min(max(len(x) // 10, LEAST_OVER), MOST_OVER, len(x))
    anchor = Fit(float(x[over - 1]), float(rate[over - 1]), 1.0, 0.0)
    excess = x[: over - 1] - anchor.anchor
    if over < LEAST_OVER:  # one more peak is supposed, as far off as the largest lies from 0
        return replace(anchor, scale=max((float(excess.sum()) + float(x[0])) / over, 1e-12))
    if not excess.max(initial=0) > 0:
        return replace(anchor, scale=max(abs(float(x[0])), 1e-12))
    return _likeliest(x[: over - 1], anchor, gap_days, top=math.inf)


def _likeliest(x: Floats, anchor: Fit, gap_days: float, top: float) -> Fit:
    """The likeliest tail through the anchor, of peaks ``[n]`` above ``low`` and below ``top``."""
    low = min(float(x.min()), anchor.anchor)
    spread = float(np.mean(np.abs(x - anchor.anchor)))
    doubled = 2 * gap_days * anchor.rate

    def cost(parameters: Floats) -> float:
        fit = replace(anchor, scale=math.exp(parameters[0]) * spread, shape=float(parameters[1]))
        if 1 + fit.shape * (low - fit.anchor) / fit.scale <= 1e-9 or (
            fit.shape < 0 and 1 + fit.shape * (float(x.max()) - fit.anchor) / fit.scale <= 1e-9
        ):
            return 1e300
        depth = fit.depth(x)
        log_density = -depth * (1 + fit.shape) - math.log(fit.scale) - doubled * np.exp(-depth)
        ends = np.exp(-doubled * np.exp(-fit.depth(np.array([low, min(top, 1e300)]))))
        mass = (1.0 if math.isinf(top) else ends[1]) - ends[0]
        prior = (fit.shape / SHAPE_PRIOR) ** 2 / 2
        return float(-log_density.sum() + len(x) * math.log(max(mass / doubled, 1e-300)) + prior)

    line = optimize.minimize_scalar(lambda s: cost(np.array([s, 0.0])), bounds=(-5.0, 2.0), method="bounded")
    start = np.array([float(line.x), 0.0])
    if len(x) < (LEAST_SHAPE if math.isfinite(top) else LEAST_OVER):
        return replace(anchor, scale=math.exp(start[0]) * spread)
    bent = optimize.minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4})
    best = bent.x if bent.fun < line.fun else start
    return replace(anchor, scale=math.exp(float(best[0])) * spread, shape=float(best[1]))


def _heavier(x: Floats, rate: Floats, bulk: Fit) -> bool:
    """Whether the peaks above the bulk are larger than it lets expect, by more than chance and by what matters."""
    first = int(np.searchsorted(rate, BULK[1]))
    if first < 1:
        return False
    depth = bulk.depth(x[:first])
    inside = int(np.searchsorted(rate, BULK[0], side="right")) - first
    ratio = float(depth.mean())
    return ratio > HEAVIER and float(stats.f.sf(ratio, 2 * first, 2 * inside)) < CHANCE


def _table(x: Floats, rate: Floats, fit: Fit, days: float, repeats: float) -> Tail:
    """Ranks as far as the fit's anchor, the fit beyond."""
    ranked = np.flatnonzero(rate >= fit.rate)
    ranked = ranked[np.unique(np.linspace(0, len(ranked) - 1, RANKS).astype(np.int64))] if len(ranked) else ranked
    rarest = min(1 / (EXTENT * days), fit.rate / 10)
    beyond = np.geomspace(fit.rate, rarest, POINTS)[1:]
    levels = np.concatenate([x[ranked][::-1], fit.levels(beyond)])
    rates = np.concatenate([rate[ranked][::-1], beyond])
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(levels)) > 0])
    levels, rates = levels[rising], rates[rising]
    if len(levels) < 2:  # all peaks alike and nothing to go by: a tail as steep as it is high
        levels = np.array([levels[0], levels[0] + max(abs(levels[0]), 1e-9)])
        rates = np.array([rates[0], rates[0] / 10])
    return Tail(levels, rates * repeats)
