"""Handing streams over from one model to another: what becomes of all that is remembered when a model is promoted.

What no model owns stays as it is: the window, what waits for late readings, seasons, runs, clocks, open incidents. So
does what was judged in thresholds, which mean the same under every model: flags, and recent scores, so that the moving
average goes on and no stream is judged by a single score on the day of a promotion.

A baseline is what a stream is now beyond what was learned of it, so it changes with what was learned. Where a level was
re-baselined and the new model was not taught so, the level stays where it is, in engineering units; what the new model
has learned since is no difference any more. Where it had crept it stays as well: it followed the newest days, and what
a model learned is the mean of weeks, which lies further back. But where the mean of the season says that what was
learned is the nearer, that is taken: beside a season a level creeps so slowly that it may lie weeks behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER
from detector.engine.baseline import MOST_SPREAD, MOST_SUM, MOVED_SPREADS, STEPS, WATCHED, WIDER
from detector.engine.state import Saved

Arrays = dict[str, NDArray[Any]]

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a model knows of U streams: ``loc``, ``scale`` ``[U, C]``, engineering units; ``threshold`` ``[U]``, raw."""

    loc: NDArray[np.float32]
    scale: NDArray[np.float32]
    threshold: NDArray[np.float64]


def handed_over(
    saved: Saved, was: Learned, now: Learned, *, tail: int, season: NDArray[np.float32] | None = None
) -> Saved:
    """What was saved under one model, for another of the same channels; U streams.

    ``tail``: readings that are kept of each; ``season``: the mean of the season that both models know ``[U, C]``,
    engineering units, NaN: not known yet; None: they know no season, or not the same, and it is learned anew.
    """
    sections = {name: dict(arrays) for name, arrays in saved.with_tail(tail).sections.items()}
    if season is None:
        sections.pop("season", None)
    sections["baseline"] |= _baseline(sections["baseline"], was, now, season)
    for name in ("scores", "judged"):
        sections["model"][name] = sections["model"][name] * (now.threshold / was.threshold)[:, None]
    return Saved("", saved.streams, sections)


def _baseline(old: Arrays, was: Learned, now: Learned, season: NDArray[np.float32] | None) -> Arrays:
    """Baselines of the same streams beyond what is learned now."""
    sensed = old["base_level"].shape[1]
    away = (was.loc.astype(np.float64) - now.loc)[:, :sensed]
    before, scale = (learned.scale[:, :sensed].astype(np.float64) for learned in (was, now))
    moved = (old["base_anchor"] != 0) | (old["base_level"] != old["base_old_level"]) & _on_trial(old)
    anchor = _kept(old["base_level"] + away, scale, moved)
    crept = (old["base_level"] != old["base_anchor"]) & (anchor == 0) & ~_on_trial(old)
    if season is not None:
        there = season[:, :sensed].astype(np.float64) - now.loc[:, :sensed]  # where it is, above what is learned now
        crept &= ~(np.abs(old["base_level"] + away - there) > np.abs(there))
    level = np.where(crept, old["base_level"] + away, anchor)
    trial = np.broadcast_to(_on_trial(old), away.shape)
    return {
        "base_level": level.astype(np.float32),
        "base_anchor": anchor.astype(np.float32),
        "base_spread": _spread(old["base_spread"], before / scale),
        "base_old_level": _kept(old["base_old_level"] + away, scale, trial).astype(np.float32),
        "base_old_spread": _spread(old["base_old_spread"], before / scale),
        **_sums(old, old["base_level"] + away - level, before, scale, season=season is not None),
    }


def _on_trial(old: Arrays) -> NDArray[np.bool_]:
    """A shift is on trial, ``[U, 1]``."""
    trial: NDArray[np.bool_] = (old["base_trial"] != NEVER)[:, None]
    return trial


def _kept(level: Doubles, scale: Doubles, moved: NDArray[np.bool_]) -> Doubles:
    """Levels above what is learned now ``[U, C]`` of the channels that ``moved``, as far as it was not learned."""
    kept: Doubles = np.where(moved & (np.abs(level) >= MOVED_SPREADS * scale), level, 0)
    return kept


def _spread(spread: NDArray[np.float32], ratio: Doubles) -> NDArray[np.float32]:
    """Spreads beyond those learned now ``[U, C]``; ``ratio``: what was learned before, in what is learned now."""
    times = np.where(spread > 1, spread * ratio, 1)
    return np.where(times >= WIDER, np.minimum(times, MOST_SPREAD), 1).astype(np.float32)


def _sums(old: Arrays, away: Doubles, before: Doubles, scale: Doubles, *, season: bool) -> Arrays:
    """What is summed of levels in an open incident goes on; of a turn's residuals begins anew: they were the model's.

    ``away``: by how much a reading is further above the level now than it was above the level before. With a season,
    levels are above what is usual at their time, which stays.
    """
    watched = (old["base_mode"] == WATCHED)[:, None]
    count = old["base_count"].astype(np.float64)
    moved = np.zeros_like(away) if season else away * STEPS
    first = old["base_sum"] * before
    total = (first + count * moved) / scale
    second = (old["base_second"] * before**2 + 2 * moved * first + count * moved**2) / scale**2
    return {
        "base_sum": np.where(watched, np.rint(np.clip(total, -MOST_SUM, MOST_SUM)), 0).astype(np.int32),
        "base_second": np.where(watched, np.rint(np.clip(second, 0, 2.0**62)), 0).astype(np.int64),
        "base_count": np.where(watched, old["base_count"], 0).astype(np.uint32),
    }
