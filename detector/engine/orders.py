"""Orders: what an operator's command does to a stream's baseline and its open incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER
from detector.engine.incidents import KINDS, Change, close, note
from schemas.alert import Ended, Kind
from schemas.command import Command, Verb

if TYPE_CHECKING:
    from detector.engine.engine import Engine

#: Kinds that are on for as long as their condition holds: what was accepted must be over before it can open again.
LASTING = (Kind.STUCK, Kind.MISSING, Kind.RANGE)

#: Newest readings that say where a stream is now, at least and at most.
LEAST, NEWEST = 1, 16
#: Newest readings that say how far it scatters, at least.
SCATTER = 6
#: Standard deviation of normal data whose median absolute deviation is 1.
NORMAL_MAD = 1.4826

ANOMALY = KINDS.index(Kind.ANOMALY)


def obey(engine: Engine, slot: int, command: Command) -> list[Change]:
    """*accept*: where the stream is now is its level, and its open incidents are over. *confirm*: what was re-baselined
    is taken back, and nothing is while the anomaly lasts.
    """
    return _accept(engine, slot, command) if command.command is Verb.ACCEPT else _confirm(engine, slot)


def _accept(engine: Engine, slot: int, command: Command) -> list[Change]:
    state = engine.state
    names = engine.model.manifest.channel_names
    meant = np.array([not command.channels or name in command.channels for name in names])
    if not meant.any():
        return []
    if engine.baselines.move:
        _settle(engine, slot, meant)
    time = int(state.time[slot])
    return [
        close(state, slot, kind, time, Ended.ACCEPTED, wait=kind in LASTING)
        for k, kind in enumerate(KINDS)
        if state.opened[slot, k] != NEVER and kind not in (Kind.CLOCK, Kind.SILENT)
    ]


def _settle(engine: Engine, slot: int, meant: NDArray[np.bool_]) -> None:
    """Make the baseline fit what the stream is now: its level or, where none moved, what it usually scores."""
    state, at = engine.state, np.array([slot])
    newest = state.judged[slot, -1] / float(engine.streams.threshold(at)[0])
    explained = False
    if state.base_drift[slot] and engine.model.manifest.frame is None:  # a season is there already
        engine.baselines.catch_up(state, slot, engine.season_level(at)[0], engine.streams.scaling(at)[1][0], meant)
    level = np.zeros((1, 0), np.float32)
    if engine.model.manifest.frame is None:
        learned, before = engine.streams.scaling(at)[1][0], state.base_spread[slot].copy()
        rows, above, deviation = _above(engine, slot)
        level = engine.baselines.accept(state, slot, above, deviation, learned, engine.streams.noise, meant)[None]
        # what came before is of another level, and no part of the windows to come
        state.raw[slot, : len(state.raw[slot]) - rows, level[0] != 0] = np.nan
        explained = bool(level.any() or (state.base_spread[slot] != before).any())
    if not explained and state.opened[slot, ANOMALY] != NEVER:
        engine.baselines.relieve(state, slot, float(np.nan_to_num(newest)))
    engine.move_level(at, level if level.size else np.zeros((1, len(meant)), np.float32))


def _above(engine: Engine, slot: int) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """How many of the newest readings say where a stream is now; what they are above what is usual, NaN where not
    observed, and their deviation, 0 where they are too few to say; ``[C]`` each, engineering units.
    """
    state, at = engine.state, np.array([slot])
    filled = min(int(state.filled[slot]), NEWEST)
    if state.opened[slot, ANOMALY] != NEVER:  # what came before the incident is no evidence of the new level
        since = int(state.time[slot] - state.began[slot, ANOMALY])
        filled = min(filled, since // engine.interval_ns + 1)
    loc, _ = engine.scaling(at)
    if filled < LEAST:
        return 0, np.full(loc.shape[1], np.nan, np.float32), np.zeros(loc.shape[1], np.float32)
    rows = state.raw[slot, -filled:].astype(np.float64)  # [r, C]
    there = ~np.isnan(rows)
    count = there.sum(axis=0)
    # medians: one wild reading among them says neither where the stream is nor how far it scatters
    middle = np.nanmedian(np.where(count > 0, rows, 0), axis=0)
    off = np.where(there, rows - middle, np.nan)
    usual = loc[0]
    if engine.seasons is not None:
        known = engine.seasons.usual(state, slot, int(state.time[slot]))
        usual = np.where(np.isnan(known), usual, known)
    absolute = np.nanmedian(np.where(count > 0, np.abs(off), 0), axis=0)
    square = (np.nan_to_num(off) ** 2).sum(axis=0) / np.maximum(count, 1)
    scatter = np.minimum(np.sqrt(square), NORMAL_MAD * absolute)
    deviation = np.where(count >= SCATTER, scatter, 0).astype(np.float32)
    return filled, np.where(count > 0, middle - usual, np.nan).astype(np.float32), deviation


def _confirm(engine: Engine, slot: int) -> list[Change]:
    state = engine.state
    if engine.baselines.move:
        level = engine.baselines.back(state, slot)
        if level.any():
            engine.move_level(np.array([slot]), level[None])
    if state.opened[slot, ANOMALY] == NEVER:
        return []
    return [note(state, slot, Kind.ANOMALY, int(state.time[slot]))]
