"""The reporter: gathers what an alert says, for the few readings that cause one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.engine.alerts import Evidence, Published, channel_shares, describe, largest
from detector.engine.arrival import Arrived
from detector.engine.assembly import NEVER
from detector.engine.attribution import smoothed_error
from detector.engine.baseline import STEPPED, Turned
from detector.engine.gates import Gates
from detector.engine.incidents import TOP_CHANNELS, Change
from detector.engine.model import Model
from detector.engine.pictures import image_peak
from detector.engine.scorer import Scorer
from detector.engine.silence import Silence
from detector.engine.state import State
from detector.engine.streams import Streams
from schemas.alert import EventType, ImagePeak, Kind
from schemas.machine import MachineState
from schemas.moment import SECOND_NS

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of n readings of U streams after they were scored."""

    arrived: Arrived
    loc: Floats
    """``[U, C]``, as it is now."""
    scale: Floats
    context: Floats | None
    """``[n, C]``."""
    score: Doubles
    """``[n]``, in thresholds, as published."""
    judged: Doubles
    """``[n]``, in thresholds; smaller than ``score`` where a shift is on trial."""
    p_value: Doubles
    error: Floats
    """``[n, C]``."""
    expected: Floats
    turned: Turned | None
    """What happened to the baselines just before."""


class Reporter:
    """Makes alerts of changes."""

    def __init__(
        self, model: Model, scorer: Scorer, streams: Streams, state: State, weights: NDArray[np.float64], gates: Gates
    ) -> None:
        self._weights = weights
        self.gates = gates
        self._manifest, self._scorer, self._streams, self._state = model.manifest, scorer, streams, state

    def of_reading(self, seen: Seen, change: Change, which: NDArray[np.bool_] | None) -> Published:
        """A change that a reading brought; ``which`` ``[n, C]``: the channels that a rule is about."""
        u = int(seen.arrived.segments.of_row[change.row])
        slot = int(seen.arrived.segments.slots[u])
        first = change.row == seen.arrived.segments.first[u] and change.type is EventType.UPDATED
        if first and change.kind is Kind.SHIFT and seen.turned is not None and seen.turned.shifted[u]:
            return self._publish(slot, seen, change, self._moved(seen, change, u))
        if change.opening_kind is Kind.ANOMALY:
            return self._publish(slot, seen, change, self._anomalous(seen, change, slot, u))
        if change.kind is Kind.DRIFT:
            return self._publish(slot, seen, change, self._drifted(seen, change, slot, u))
        return self._publish(slot, seen, change, self._broken(seen, change, u, which))

    def of_silence(self, silence: Silence, change: Change, machine: MachineState | None) -> Published:
        """A stream fell silent or is back; ``machine``: what it was doing when it last sent."""
        slot = silence.slot
        return describe(
            self._manifest, change, Evidence(), partition=self._streams.partitions[slot],
            stream=self._streams.names[slot], index=silence.index, time=silence.time, machine=machine,
        )  # fmt: skip

    def of_clock(
        self, slot: int, index: int, time: int, change: Change, back_ns: int, machine: MachineState | None
    ) -> Published:
        """A stream's clock was set back, or has caught up; ``time``: of its newest reading that counted."""
        facts = {"set_back_s": back_ns / SECOND_NS} if back_ns else None
        return describe(
            self._manifest, change, Evidence(facts=facts), partition=self._streams.partitions[slot],
            stream=self._streams.names[slot], index=index, time=time, machine=machine,
        )  # fmt: skip

    def of_order(self, slot: int, change: Change) -> Published:
        """A change that an operator brought."""
        time, machine = int(self._state.time[slot]), self.gates.state_of(self._state, slot, self._streams.names[slot])
        return self._of_no_score(slot, -1, time, change, machine)

    def of_switch(self, slot: int, index: int, time: int, change: Change) -> Published:
        """The machine was switched off."""
        return self._of_no_score(slot, index, time, change, MachineState.OFF)

    def _of_no_score(self, slot: int, index: int, time: int, change: Change, machine: MachineState | None) -> Published:
        loc, scale = self._streams.scaling(np.array([slot]))
        named = list(change.named)
        raw = self._state.raw[slot]
        observed = raw[-1] if self._manifest.frame is None and len(raw) else np.full(loc.shape[1], np.nan, np.float32)
        weight = np.zeros(loc.shape[1], np.float32)
        channels = channel_shares(self._manifest, named, weight, observed, loc[0])
        evidence = Evidence(
            return_period_s=self._period(slot, change), channels=channels, spreads=_spreads(scale[0], named)
        )
        return describe(
            self._manifest, change, evidence, partition=self._streams.partitions[slot],
            stream=self._streams.names[slot], index=index, time=time, machine=machine,
        )  # fmt: skip

    # -- the kinds -------------------------------------------------------------------------------------------------

    def _anomalous(self, seen: Seen, change: Change, slot: int, u: int) -> Evidence:
        row, over = change.row, change.type is EventType.RESOLVED
        error, expected = seen.error[row] if over else self.blamed(seen, row), seen.expected[row]
        chosen = list(change.named) if over and change.named else largest(error)
        windows = None if over else self._windows(seen, row, u)
        facts = self._way(slot, seen, u, chosen[0]) if chosen and change.kind is Kind.SHIFT else None
        return Evidence(
            score=float(seen.score[row]),
            p_value=float(seen.p_value[row]),
            return_period_s=self._period(slot, change),
            channels=channel_shares(
                self._manifest, chosen, error, self._observed(seen.arrived.values[row]), expected, windows
            ),
            spreads=_spreads(seen.scale[u], chosen),
            image=self._peak(seen, row, u),
            facts=facts,
        )

    def _way(self, slot: int, seen: Seen, u: int, channel: int) -> dict[str, Any] | None:
        """What a channel did in the shift on trial: from where to where it moved, or how far it scatters."""
        state = self._state
        if state.base_trial[slot] == NEVER or self._manifest.frame is not None:
            return None
        now = float(seen.loc[u, channel])
        moved = float(state.base_level[slot, channel] - state.base_old_level[slot, channel])
        if moved:
            return {"moved_from": now - moved, "moved_to": now}
        spread = float(state.base_spread[slot, channel])
        return {"scatters": spread if spread > float(state.base_old_spread[slot, channel]) else 0.0}

    def _moved(self, seen: Seen, change: Change, u: int) -> Evidence:
        """A shift: the channels that moved most, from where to where, or that scatter more."""
        assert seen.turned is not None
        slot, row = int(seen.arrived.segments.slots[u]), change.row
        level, wider = seen.turned.level[u], seen.turned.wider[u]
        observed, expected, now = seen.arrived.values[row], seen.expected[row], seen.loc[u]
        if level.any():
            far = np.abs(level / self._streams.scaling(np.array([slot]))[1][0])
            chosen, observed, expected = largest(far), now, now - level
            facts = {"moved_from": float(expected[chosen[0]]), "moved_to": float(now[chosen[0]])}
        elif wider.any():
            far, chosen = wider, largest(wider)
            facts = {"scatters": float(wider[chosen[0]])}
        else:  # nothing moved by itself: the scores are taken for usual
            return self._anomalous(seen, change, slot, u)
        return Evidence(
            score=float(seen.score[row]),
            p_value=float(seen.p_value[row]),
            return_period_s=self._period(slot, change),
            channels=channel_shares(self._manifest, chosen, far, observed, expected),
            spreads=_spreads(seen.scale[u], chosen),
            facts=facts,
        )

    def _drifted(self, seen: Seen, change: Change, slot: int, u: int) -> Evidence:
        assert seen.turned is not None
        loc, learned = (part[0] for part in self._streams.scaling(np.array([slot])))
        # (of what came by shifts all counts, of what crept what did since the last one)
        anchor = self._state.base_anchor[slot] * (self._state.base_drift[slot] != STEPPED)
        # of this turn alone: what of it is told with the next reading must not know which batch brought that
        opens = change.type is EventType.OPENED
        crept = (seen.turned.crept[u] if opens else np.full(len(loc), np.nan)).astype(np.float32)
        chosen = list(change.named[:1])
        far = np.zeros_like(crept)
        far[chosen] = np.abs(crept[chosen]) if opens else 1
        expected = loc + anchor
        channels = channel_shares(self._manifest, chosen, far, expected + crept * learned, expected)
        facts = {"drifted": float(far[chosen[0]])} if chosen and opens else None
        return Evidence(
            score=_known(seen.score[change.row]), p_value=_known(seen.p_value[change.row]),
            channels=channels, spreads=_spreads(seen.scale[u], chosen), facts=facts,
        )  # fmt: skip

    def _broken(self, seen: Seen, change: Change, u: int, which: NDArray[np.bool_] | None) -> Evidence:
        row = change.row
        about = np.zeros(len(seen.loc[u]), np.float32) if which is None else which[row].astype(np.float32)
        chosen = [int(c) for c in np.flatnonzero(about)[:TOP_CHANNELS]] or list(change.named)
        observed = seen.arrived.values[row]
        facts: dict[str, Any] = {}
        if change.kind is Kind.RANGE and chosen and not np.isnan(observed[chosen[0]]):
            channel = self._manifest.channels[chosen[0]]
            low = channel.lowest is not None and observed[chosen[0]] < channel.lowest
            limit = channel.lowest if low else channel.highest
            facts = {} if limit is None else {"limit": float(limit)}
        return Evidence(
            score=_known(seen.score[row]),
            p_value=_known(seen.p_value[row]),
            channels=channel_shares(self._manifest, chosen, about, observed, seen.expected[row]),
            spreads=_spreads(seen.scale[u], chosen),
            facts=facts,
        )

    def blamed(self, seen: Seen, row: int) -> Floats:
        """The errors ``[C]`` behind the score of a reading, smoothed as it is."""
        if self._manifest.frame is not None or len(self._weights) == 1 or np.isnan(seen.score[row]):
            return np.asarray(seen.error[row])
        u = int(seen.arrived.segments.of_row[row])
        x = seen.arrived.window(np.array([row]), self._manifest.window)[0]
        usual = None if seen.context is None else seen.context[row]
        learned, spread = self._shown(seen, u)
        times = None if spread is None else spread[0]
        error = smoothed_error(self._scorer, x, seen.loc[u], learned[0], usual, self._weights, times)
        return np.nan_to_num(error, posinf=float(np.finfo(np.float32).max))

    # -- parts -----------------------------------------------------------------------------------------------------

    def _publish(self, slot: int, seen: Seen, change: Change, evidence: Evidence) -> Published:
        arrived, stream = seen.arrived, self._streams.names[slot]
        return describe(
            self._manifest, change, evidence, partition=self._streams.partitions[slot],
            stream=stream, index=int(arrived.index[change.row]), time=int(arrived.times[change.row]),
            machine=MachineState.ON if self.gates.gated(stream) else None,
        )  # fmt: skip

    def _period(self, slot: int, change: Change) -> float | None:
        if change.worst <= 0:
            return None
        return _known(self._streams.return_period_s(np.array([slot]), np.array([change.worst]))[0])

    def _windows(self, seen: Seen, row: int, u: int) -> tuple[Floats, Floats] | None:
        """Observed and expected window ``[W, C]`` of a reading; None for images."""
        if self._manifest.frame is not None:
            return None
        x = seen.arrived.window(np.array([row]), self._manifest.window)
        context = None if seen.context is None else seen.context[[row]]
        learned, spread = self._shown(seen, u)
        expected = self._scorer.window(x, seen.loc[[u]], learned, context, spread)[0]
        return x[0], np.concatenate([expected[:-1], seen.expected[[row]]])

    def _shown(self, seen: Seen, u: int) -> tuple[Floats, Floats | None]:
        """Scale as learned and spread ``[1, C]`` by which a stream's readings are shown to the model."""
        slot = seen.arrived.segments.slots[[u]]
        spread = self._state.base_spread[slot]
        return self._streams.scaling(slot)[1], spread if (spread > 1).any() else None

    def _observed(self, values: Floats) -> Floats:
        """What an alert says was observed, ``[C]``: the reading ``[V]``, of an image the mean of each band."""
        if self._manifest.frame is None:
            return values
        pixels = values.reshape(-1, len(self._manifest.channels)).astype(np.float64)  # [H·W, C]
        seen = ~np.isnan(pixels)
        count = seen.sum(axis=0)
        mean = np.where(seen, pixels, 0).sum(axis=0) / np.maximum(count, 1)
        return np.where(count, mean, np.nan).astype(np.float32)

    def _peak(self, seen: Seen, row: int, u: int) -> ImagePeak | None:
        """Where in the image the error is largest; None for sensors. Scored once more, but rarely."""
        values = seen.arrived.values[row]
        if self._manifest.frame is None or np.isnan(values).all():
            return None
        return image_peak(self._scorer.map(values[None, None], seen.loc[[u]], seen.scale[[u]])[0])


def _spreads(scale: Floats, chosen: list[int]) -> tuple[float, ...]:
    return tuple(float(scale[c]) for c in chosen)


def _known(value: float | np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
