"""How good a sample is: measures that each can be fooled alone, together and beside what real data reach.

Windows ``[N, W, C]`` in engineering units are compared with real ones of another time. One measure is easily fooled:
copies of the training data are told apart from nothing, a Gaussian forecasts as well as the data, a generator of fifty
windows has a fine precision. So they are read together, beside the row of real data of the training time, which says
what is possible, and that of a Gaussian with the same principal components, which says what is cheap.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial.distance import cdist
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: Neighbours whose ball is the manifold (Kynkäänniemi et al., NeurIPS 2019).
NEIGHBOURS = 5

#: Windows of each kind that are compared, at most.
MOST = 1500

#: Lags of the autocorrelation that are compared, readings.
LAGS = 12


class Quality(BaseModel):
    """Measures of one set of windows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    discriminative: float
    """|accuracy - .5| of the better of two classifiers that tell it from real windows; 0 is best, .5 worst."""
    by_classifier: tuple[float, float]
    """Of the network and of the trees."""
    tstr: float
    """Mean absolute error, in deviations, of a forecast of the last reading of real windows, learned from these."""
    mmd: float
    """Squared maximum mean discrepancy, Gaussian kernel, unbiased (Gretton et al., JMLR 2012)."""
    precision: float
    """Share that lies within the real manifold."""
    recall: float
    """Share of real windows that lie within its manifold."""
    nearest: float
    """Median distance to the nearest training window, over that of real windows of another time; below 1: copied?"""
    copied: float
    """Share nearer to a training window than 95 of 100 real windows are."""
    autocorrelation: float
    """Mean difference of the autocorrelation over channels and lags."""
    crosscorrelation: float
    """Mean difference of the correlation of channels."""


@dataclass(frozen=True)
class Scale:
    """What makes channels comparable: their level and deviation in the training windows."""

    loc: Floats
    scale: Floats

    @classmethod
    def of(cls, windows: Floats) -> Scale:
        """Of training windows."""
        flat = windows.reshape(-1, windows.shape[2]).astype(np.float64)
        spread = flat.std(axis=0)
        varying = spread > 1e-9
        return cls(flat.mean(axis=0).astype(np.float32), np.where(varying, spread, np.inf).astype(np.float32))

    def flat(self, windows: Floats) -> Floats:
        """``[N, W·C]``; what is constant in training is 0 unless it moved."""
        z = (windows - self.loc) / self.scale
        return z.reshape(len(windows), -1)


#: A generator that covers less of the real windows than this share of what real ones of another time cover has
#: collapsed; one of whose windows less than this share of real ones' lies among real ones has learned nothing; one
#: whose windows lie nearer to the training data than this, or so many of them do, has copied them.
LEAST_RECALL, LEAST_PRECISION, LEAST_DISTANCE, MOST_COPIED = 0.5, 0.1, 0.5, 0.5


def faults_of_quality(made: Quality, real: Quality) -> list[str]:
    """Why a generator is of no use; empty: it is."""
    found = []
    if made.recall < LEAST_RECALL * real.recall:
        found.append(f"it makes only some of what there is: recall {made.recall:.2f}, real data {real.recall:.2f}")
    if made.precision < LEAST_PRECISION * real.precision:
        found.append(
            f"hardly anything that it makes is like what there is: precision {made.precision:.2f}, real data "
            f"{real.precision:.2f}; take more --steps"
        )
    if made.nearest < LEAST_DISTANCE or made.copied > MOST_COPIED:
        found.append(
            f"it copies what it learned from: {made.copied:.0%} of its windows lie nearer to a training window than "
            f"95 of 100 real ones, the median at {made.nearest:.2f} of their distance"
        )
    return found


def judge(made: Floats, real: Floats, trained: Floats, seed: int, *, whole: bool = True) -> Quality:
    """Windows ``made`` against ``real`` ones of another time; ``trained``: those that the generator learned from.

    ``real`` is in the order of time, and so is ``made`` where it has one: classifiers learn from every other block.
    Not ``whole``: ``made`` are the training windows themselves, whose distance to themselves says nothing.
    """
    scale = Scale.of(trained)
    rng = np.random.default_rng(seed)
    made, real = (_some(windows, rng) for windows in (made, real))
    a, b = scale.flat(made), scale.flat(real)
    known = scale.flat(_some(trained, rng, 3 * MOST))
    network, trees = discriminative(a, b, seed)
    near_real = cdist(b, known).min(axis=1)
    near_made = cdist(a, known).min(axis=1) if whole else near_real
    return Quality(
        discriminative=max(network, trees),
        by_classifier=(network, trees),
        tstr=forecast_error(a, b, made.shape[2], seed),
        mmd=mmd2(a, b),
        precision=covered(a, b),
        recall=covered(b, a),
        nearest=float(np.median(near_made) / max(np.median(near_real), 1e-12)),
        copied=float((near_made < np.quantile(near_real, 0.05)).mean()),
        autocorrelation=float(np.abs(_autocorrelation(made) - _autocorrelation(real)).mean()),
        crosscorrelation=float(np.abs(_correlation(made) - _correlation(real)).mean()),
    )


def told_apart(made: Floats, trained: Floats, seed: int) -> tuple[float, float]:
    """``discriminative`` of made windows and those that were learned from."""
    scale, rng = Scale.of(trained), np.random.default_rng(seed)
    a, b = (scale.flat(_some(windows, rng)) for windows in (made, trained))
    return discriminative(a, b, seed)


def _some(windows: Floats, rng: np.random.Generator, most: int = MOST) -> Floats:
    if len(windows) <= most:
        return windows
    return windows[np.sort(rng.choice(len(windows), most, replace=False))]


def discriminative(made: Floats, real: Floats, seed: int) -> tuple[float, float]:
    """|accuracy - .5| on unseen windows of a network and of boosted trees; ``[N, D]`` each, in the order of time."""
    count = min(len(made), len(real))
    rng = np.random.default_rng(seed)
    made, real = (x[np.sort(rng.choice(len(x), count, replace=False))] for x in (made, real))
    x, y = np.concatenate([made, real]), np.repeat([1, 0], count)
    block = np.tile(np.arange(count) * BLOCKS // count, 2)
    learned = block % 2 == 0
    scores = []
    for classifier in (
        MLPClassifier(
            hidden_layer_sizes=(64,), early_stopping=True, max_iter=60, random_state=seed, learning_rate_init=2e-3
        ),
        HistGradientBoostingClassifier(max_iter=100, max_features=0.3, random_state=seed),
    ):
        with _calm():
            classifier.fit(x[learned], y[learned])
        scores.append(abs(float(classifier.score(x[~learned], y[~learned])) - 0.5))
    return scores[0], scores[1]


@contextmanager
def _calm() -> Iterator[None]:
    """That a network would go on learning is no news: all rows are given as long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


#: Blocks of time, of which every other one teaches the classifiers and the rest judges them.
BLOCKS = 20


def forecast_error(learned: Floats, judged: Floats, channels: int, seed: int) -> float:
    """Mean absolute error of the last reading of windows ``[N, W·C]``, by a network that learned from others."""
    model = MLPRegressor(
        hidden_layer_sizes=(64,), early_stopping=True, max_iter=100, random_state=seed, learning_rate_init=2e-3
    )
    with _calm():
        model.fit(learned[:, :-channels], learned[:, -channels:])
    return float(np.abs(model.predict(judged[:, :-channels]).reshape(len(judged), -1) - judged[:, -channels:]).mean())


def mmd2(a: Floats, b: Floats) -> float:
    """Unbiased, with the median distance as the kernel's width."""
    between = cdist(a, b, "sqeuclidean")
    width = max(float(np.median(between)), 1e-12)

    def within(x: Floats) -> float:
        kernel = np.exp(-cdist(x, x, "sqeuclidean") / width)
        return float((kernel.sum() - len(x)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(np.exp(-between / width).mean())


def covered(points: Floats, manifold: Floats) -> float:
    """Share of points within the ball of some point of the manifold, up to its k-th neighbour."""
    own = cdist(manifold, manifold)
    radius = np.partition(own, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    return float((cdist(points, manifold) <= radius).any(axis=1).mean())


def _autocorrelation(windows: Floats) -> Doubles:
    """``[C, LAGS]``, over all windows, from the level of each channel."""
    x = windows.astype(np.float64) - windows.mean(axis=(0, 1), dtype=np.float64)
    lags = min(LAGS, x.shape[1] - 1)
    power = np.maximum((x**2).mean(axis=(0, 1)), 1e-12)
    return np.stack([(x[:, lag:] * x[:, : x.shape[1] - lag]).mean(axis=(0, 1)) / power for lag in range(1, lags + 1)])


def _correlation(windows: Floats) -> Doubles:
    flat = windows.reshape(-1, windows.shape[2]).astype(np.float64)
    x = flat - flat.mean(axis=0)
    spread = np.sqrt((x**2).mean(axis=0))
    moves = spread > 1e-9
    x = x[:, moves] / spread[moves]
    both = np.zeros((windows.shape[2],) * 2)
    both[np.ix_(moves, moves)] = x.T @ x / len(x)
    return both
