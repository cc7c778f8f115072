"""Coming back: when a stream was again at the level that it had before a fault.

A fault that goes on is not always loud enough for an incident, or it has become the baseline. It is over when the
stream leaves the fault's level, and that the readings tell.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine.orders import NORMAL_MAD
from schemas.moment import LATEST_NS, SECOND_NS
from trainer.retrain.promised import DAY_NS

HOUR_NS = 3600 * SECOND_NS

#: A stretch is compared with the same hours of the days before the fault, so that a daily rhythm is no difference.
STRETCH_NS, DAYS_BEFORE = 6 * HOUR_NS, 3

#: A stretch is away where the median of some channel is so many robust deviations of those hours from theirs.
AWAY = 2.5

#: Stretches in a row that are near before a stream is back.
IN_A_ROW = 4

#: Readings below which a stretch or the hours before say nothing.
LEAST = 6

Floats = NDArray[np.float32]
Times = NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """Where a stream is, as its model has learned: ``loc``, ``scale`` ``[C]``, engineering units."""

    loc: Floats
    scale: Floats


def came_back(times: Times, values: Floats, began: int, ended: int, level: Level | None = None) -> int | None:
    """When, ns; LATEST_NS: it is still away; None: nobody can tell, since nothing was away when ``ended``.

    ``times`` ``[n]`` in order, ``values`` ``[n, C]``: the stream's readings; ``began``, ``ended``: of the fault;
    ``level``: what it is compared with where the readings do not reach back to before the fault.
    """

    def away(start: int) -> bool | None:
        return _away(times, values, began, start, level)

    if not (away(ended - STRETCH_NS) or away(ended)) or not len(times):
        return None
    newest = int(times[-1])
    for start in range(ended, newest - IN_A_ROW * STRETCH_NS + 1, HOUR_NS):
        if all(away(start + n * STRETCH_NS) is False for n in range(IN_A_ROW)):
            return start + STRETCH_NS  # of the first stretch a part may be the fault's
    return LATEST_NS


def _away(times: Times, values: Floats, began: int, start: int, level: Level | None) -> bool | None:
    """Whether the stretch from ``start`` is elsewhere than the same hours before; None: too few readings to say."""
    now = values[_between(times, start, start + STRETCH_NS)]
    days = -((began - start - STRETCH_NS) // DAY_NS)  # whole ones, so that the stretch lies before the fault
    before = np.concatenate([
        values[_between(times, moved, moved + STRETCH_NS)]
        for moved in (start - DAY_NS * (days + n) for n in range(DAYS_BEFORE))
    ])  # fmt: skip
    known = np.isfinite(before).sum(axis=0) >= LEAST
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # channels that are never there
        usual, middle = np.nanmedian(before, axis=0), np.nanmedian(now, axis=0)
        spread = NORMAL_MAD * np.nanmedian(np.abs(before - usual), axis=0)
    if level is not None:
        usual, spread = np.where(known, usual, level.loc), np.where(known, spread, level.scale)
    told = (np.isfinite(now).sum(axis=0) >= LEAST) & (known if level is None else True)
    if not told.any():
        return None
    off = np.abs(middle - usual) > AWAY * np.maximum(spread, 1e-6 * np.maximum(np.abs(usual), 1))
    return bool((off & told).any())


def _between(times: Times, start: int, end: int) -> slice:
    return slice(*np.searchsorted(times, [start, end]).tolist())
