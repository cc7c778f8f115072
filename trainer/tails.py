"""From peaks of episodes to a tail: how often normal data reach a level, also a level that they never reached.

Three ways, each where it holds.

* Where the data reach, *ranks*: N peaks in T stream-days lie at a level or above, and exchangeable data come above it
  N / T times a day at most (Vovk, Gammerman & Shafer 2005).
* Beyond, *peaks over a threshold* (Pickands 1975; Davison & Smith 1990; Siffer et al. 2017): what the largest peaks
  exceed a level by is generalised Pareto. Its shape is drawn towards 0, an exponential tail, by a prior (Martins &
  Stedinger 2000 do so for floods): a shape from a few dozen peaks is mostly noise, and so is what it extrapolates to.
* Where the stretch holds faults that nobody knows of, the largest peaks are no normal ones, and both of the above make
  the threshold blind to what it is for: on real servers they gave three to ten times what normal data need. So the tail
  is also fitted to the *bulk*: the peaks between the levels that are reached 60 and 10 times a week, by maximum
  likelihood truncated at both. Where the peaks above are larger than that lets expect, by more than chance and by what
  matters, the bulk's tail stands, and what it cannot explain is suspect. Where they are not, a bulk of half the rates
  is tried, and so on, as far as there are peaks.

A peak is the largest within a gap g on either side, so peaks thin out where episodes are frequent: of a rate Λ of
episodes (1 - exp(-2gΛ)) / 2g peaks are left. All rates here are those of episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from detector.engine.tails import Tail

#: Episodes per stream and day at the upper end of the bulk, and how many times that at its lower end.
BULK, WIDTH = 10 / 7, 6.0

#: Peaks that a bulk has at least inside and above it, to be judged by; inside for a shape of its own; inside at most.
LEAST_BULK, LEAST_ABOVE, LEAST_SHAPE, MOST_BULK = 30, 6, 300, 3000

#: Peaks above the level that a tail is fitted over: a tenth of all, within these bounds.
LEAST_OVER, MOST_OVER = 30, 300

#: Standard deviation of the shape before any data, and the most that is believed. Below 0 the tail would have an end:
#: a squared residual has none, and beyond it anything would be impossible, a fault or not.
SHAPE_PRIOR, MOST_SHAPE = 0.1, 0.5

#: The stretch holds faults where its peaks above the bulk exceed it by this many times what the bulk lets expect in the
#: mean, and where chance does so less often than this.
HEAVIER, CHANCE = 2.0, 1e-3

#: A peak is suspect where the whole stretch lets expect less than this many as large.
SUSPECT = 0.1

#: Return periods up to this many times the stretch are told; a threshold goes no further.
EXTENT = 1000.0

#: Blocks of data below which an interval would be a guess, and how often they are drawn.
LEAST_BLOCKS, RESAMPLES = 5, 50

#: Points of the table beyond the ranks, and of the ranks.
POINTS, RANKS = 64, 512

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        """-log of the share of the anchor's episodes that reach each level, ``[N]``: exponential if the fit holds."""
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


def fit_tail(level: Floats, days: float, gap_days: float, repeats: float = 1.0, bulk: bool | None = None) -> Fitted:
    """The tail of peaks ``[P]``, P ≥ 1, of ``days`` stream-days; ``repeats``: incidents for each peak.

    ``bulk``: whether to go by the bulk, None: as the data say.
    """
    x = np.sort(level)[::-1]
    rate = thinned_back(np.arange(1, len(x) + 1) / days, gap_days)
    fit = None if bulk is False else _contaminated(x, rate, days, gap_days, forced=bulk is True)
    suspect = np.zeros(len(x), bool) if fit is None else fit.rates(x) * days < SUSPECT
    by_bulk, fit = fit is not None, fit or _over(x, rate, days, gap_days)
    tail = _table(x, rate, fit, days, repeats)
    return Fitted(tail, replace(fit, rate=fit.rate * repeats), by_bulk, x, rate * repeats, suspect, days)


def interval_of(
    fitted: Fitted, level: Floats, block: Ints, gap_days: float, repeats: float, rates: Floats
) -> Floats | None:
    """Where the levels of rates ``[R]`` lie in nine of ten cases, least and most ``[2, R]``, by resampling the data.

    ``level``, ``block`` ``[P]``: the peaks and the block of each. Blocks are drawn, not peaks: those of a day have
    causes in common (block bootstrap; Künsch 1989). None where there are fewer than ``LEAST_BLOCKS``.
    """
    order = np.argsort(block, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(block[order])) + 1)
    if len(members) < LEAST_BLOCKS:
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(members), len(members))
        own = np.concatenate([level[members[one]] for one in drawn])
        tail = fit_tail(own, fitted.days, gap_days, repeats, fitted.bulk).tail
        found.append([tail.level(rate) for rate in rates.tolist()])
    return np.quantile(found, (0.05, 0.95), axis=0)


def thinned_back(rate: Floats, gap_days: float) -> Floats:
    """Rates of episodes that leave peaks at these rates, ``[N]``."""
    return -np.log1p(-np.minimum(2 * gap_days * rate, 0.98)) / (2 * gap_days)


def _contaminated(x: Floats, rate: Floats, days: float, gap_days: float, forced: bool) -> Fit | None:
    """The tail by the first bulk, the most frequent first, above which peaks are too large; None: there is none.

    ``forced``: the first bulk's, whatever lies above.
    """
    upper = BULK
    while (above := int(np.searchsorted(rate, upper))) >= LEAST_ABOVE:
        inside = x[above + 1 : int(np.searchsorted(rate, WIDTH * upper, side="right"))]
        if len(inside) < LEAST_BULK:
            return None
        if x[above] > inside[-1]:
            anchor = Fit(float(x[above]), float(rate[above]), 1.0, 0.0)
            step = -(-len(inside) // MOST_BULK)
            fit = _likeliest(inside[::-step], anchor, days / step, gap_days, top=anchor.anchor)
            if forced or _heavier(fit.depth(x[:above]), len(inside)):
                return fit
        upper /= 2
    return None


def _heavier(depth: Floats, inside: int) -> bool:
    """Whether peaks of these depths above a bulk of ``inside`` peaks are too large: their mean should be about 1."""
    ratio = float(depth.mean())
    return ratio > HEAVIER and float(stats.f.sf(ratio, 2 * len(depth), 2 * inside)) < CHANCE


def _over(x: Floats, rate: Floats, days: float, gap_days: float) -> Fit:
    """The tail over the level that a tenth of the peaks exceed."""
    over = min(max(len(x) // 10, LEAST_OVER), MOST_OVER, len(x))
    anchor = Fit(float(x[over - 1]), float(rate[over - 1]), 1.0, 0.0)
    excess = x[: over - 1] - anchor.anchor
    if over < LEAST_OVER:  # one more peak is supposed, as far off as the largest lies from 0
        return replace(anchor, scale=max((float(excess.sum()) + float(x[0])) / over, 1e-12))
    if not excess.max(initial=0) > 0:
        return replace(anchor, scale=max(abs(float(x[0])), 1e-12))
    return _likeliest(x[: over - 1], anchor, days, gap_days, top=math.inf)


def _likeliest(x: Floats, anchor: Fit, days: float, gap_days: float, top: float) -> Fit:
    """The likeliest tail through the anchor, of all peaks ``[n]`` that lie below ``top`` and no lower than theirs.

    The likelihood of a Poisson process of episodes (Smith 1989), thinned as peaks are: both where the peaks lie and how
    many there are count.
    """
    low = min(float(x.min()), anchor.anchor)
    spread = float(np.mean(np.abs(x - anchor.anchor)))
    doubled = 2 * gap_days * anchor.rate

    def cost(parameters: Floats) -> float:
        fit = replace(anchor, scale=math.exp(parameters[0]) * spread, shape=float(parameters[1]))
        if not 0 <= fit.shape <= MOST_SHAPE or 1 + fit.shape * (low - fit.anchor) / fit.scale <= 1e-9:
            return 1e300
        depth = fit.depth(x)
        log_density = -depth * (1 + fit.shape) - math.log(fit.scale) - doubled * np.exp(-depth)
        left = np.exp(-doubled * np.exp(-fit.depth(np.array([low, min(top, 1e300)]))))
        expected = days / (2 * gap_days) * ((1.0 if math.isinf(top) else left[1]) - left[0])
        prior = (fit.shape / SHAPE_PRIOR) ** 2 / 2
        return float(expected - log_density.sum() + prior)

    line = optimize.minimize_scalar(lambda s: cost(np.array([s, 0.0])), bounds=(-5.0, 2.0), method="bounded")
    start = np.array([float(line.x), 0.0])
    if len(x) < (LEAST_SHAPE if math.isfinite(top) else LEAST_OVER):
        return replace(anchor, scale=math.exp(start[0]) * spread)
    bent = optimize.minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4})
    best = bent.x if bent.fun < line.fun else start
    return replace(anchor, scale=math.exp(float(best[0])) * spread, shape=float(best[1]))


def _table(x: Floats, rate: Floats, fit: Fit, days: float, repeats: float) -> Tail:
    """Ranks as far as the fit's anchor, the fit beyond."""
    ranked = np.flatnonzero(rate >= fit.rate)
    ranked = ranked[np.unique(np.linspace(0, len(ranked) - 1, RANKS).astype(np.int64))] if len(ranked) else ranked
    rarest = min(1 / (EXTENT * days), fit.rate / 10)
    beyond = np.geomspace(fit.rate, rarest, POINTS)[1:]
    levels = np.concatenate([x[ranked][::-1], fit.levels(beyond)])
    rates = np.concatenate([rate[ranked][::-1], beyond])
    rising = np.diff(np.maximum.accumulate(levels), prepend=-np.inf) > 0  # of equal levels the most frequent
    levels, rates = levels[rising], rates[rising]
    falling = np.diff(rates, prepend=np.inf) < 0
    levels, rates = levels[falling], rates[falling]
    if len(levels) < 2:  # all peaks alike and nothing to go by: a tail as steep as it is high
        levels = np.array([levels[0], levels[0] + max(abs(levels[0]), 1e-9)])
        rates = np.array([rates[0], rates[0] / 10])
    return Tail(levels, rates * repeats)
