"""Gates: readings of a machine that is off are neither scored nor learned from.

A machine is *off* with a reading for which a rule of the settings holds (``schemas.machine``). Where the rule's
channels are missing from a reading it is what it was. For a stated time after it was off it is *starting*. Readings of
either kind are passed over, for the model they are a gap. What is open about the stream's values ends with the first of
them, and a stream whose machine was off when it last sent may be silent.

The newest time at which a stream's machine was off, and the newest time of a reading passed over, are all that is
remembered: the rest is a function of the readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER
from detector.engine.segments import Segments
from schemas.machine import COMPARISONS, MachineState, OffRule

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Times = NDArray[np.int64]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]

#: What a machine is doing; UNGATED: nobody said how to know.
UNGATED, ON, OFF, STARTING = 0, 1, 2, 3
STATES = (None, MachineState.ON, MachineState.OFF, MachineState.STARTING)

#: Streams of which it is remembered which rules mean them.
REMEMBERED = 200_000


def fields() -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    i64 = np.dtype("<i8")
    return {"gate_off": ((), i64, NEVER), "gate_time": ((), i64, NEVER)}


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    time: Times
    """``[S]``: the newest time that was scored."""
    gate_off: Times
    """``[S]``: the newest time at which the machine was off."""
    gate_time: Times
    """``[S]``: the newest time of a reading that was passed over."""


@dataclass(frozen=True, slots=True)
class Gated:
    """What machines are doing.

    ``state`` ``[N]``: with each reading, for those that were dropped as it was before; ``before`` ``[S]``: which were
    off before the batch, by slot; ``passed`` ``[N]``: readings to be passed over.
    """

    state: NDArray[np.uint8]
    before: Bools
    passed: Bools

    @classmethod
    def none(cls, readings: int, slots: int) -> Gated:
        """Where nothing is gated."""
        return cls(np.zeros(readings, np.uint8), np.zeros(slots, bool), np.zeros(readings, bool))


class Gates:
    """The rules, for readings of these channels."""

    def __init__(self, rules: Sequence[OffRule], channels: Sequence[str], settle_ns: int) -> None:
        """``settle_ns``: for so long after it was off a machine is starting. Raises ValueError for unknown channels."""
        column = {name: c for c, name in enumerate(channels)}
        for rule in rules:
            for condition in rule.conditions:
                if condition.channel not in column:
                    known = ", ".join(list(channels)[:8]) + (", …" if len(channels) > 8 else "")
                    name = repr(condition.channel)
                    raise ValueError(f"off_when names the channel {name}, not among the model's: {known}")
        self._rules = tuple(rules)
        self._columns = [[column[condition.channel] for condition in rule.conditions] for rule in rules]
        self._settle_ns = settle_ns
        self._meant = lru_cache(REMEMBERED)(self._find)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def state_of(self, memory: Memory, slot: int, stream: str) -> MachineState | None:
        """What a stream's machine is doing since its newest reading."""
        if not any(self._meant(stream)):
            return None
        off, passed, scored = (int(times[slot]) for times in (memory.gate_off, memory.gate_time, memory.time))
        if off != NEVER and off >= max(passed, scored):
            return MachineState.OFF
        return MachineState.STARTING if passed > scored else MachineState.ON

    def gated(self, stream: str) -> bool:
        """Whether a rule is about this stream."""
        return any(self._meant(stream))

    def follow(
        self, memory: Memory, names: Sequence[str], segments: Segments, accepted: Bools, times: Times, values: Floats
    ) -> Gated:
        """What machines are doing with readings ``times`` ``[N]`` and ``values`` ``[N, C]`` of ``segments``, in order
        of arrival within each; ``names``: of all streams, by slot. The memory then knows them.
        """
        size, slots = len(names), segments.slots
        out = Gated.none(len(times), size)
        if not self._rules:
            return out
        newest = np.maximum(memory.time[:size], memory.gate_time[:size])
        out.before[:] = (memory.gate_off[:size] != NEVER) & (memory.gate_off[:size] >= newest)
        for slot in np.flatnonzero(out.before).tolist():  # by rules that were in force then
            out.before[slot] = self.gated(names[slot])
        meant = np.array([self._meant(names[slot]) for slot in slots.tolist()], bool).reshape(-1, len(self._rules))
        holds, known = self._holds(meant[segments.of_row], values)
        told = segments.latest(known & accepted)
        off = np.where(told >= 0, holds[told], out.before[slots][segments.of_row]).astype(bool)
        when_off = segments.latest(off & accepted)
        since = np.where(when_off >= 0, times[when_off], memory.gate_off[slots][segments.of_row])
        means: Bools = np.any(meant, axis=1)
        gated = means[segments.of_row]
        soon = (since != NEVER) & (times - since <= self._settle_ns) if self._settle_ns else np.zeros(len(times), bool)
        starting = ~off & gated & soon
        out.passed[:] = accepted & (off | starting)
        was = np.where(memory.gate_time[slots] > memory.time[slots], STARTING, ON)
        was = np.where(out.before[slots], OFF, was)[segments.of_row]
        self._remember(memory, segments, times, since, out.passed)
        state = np.where(off, OFF, np.where(starting, STARTING, ON)).astype(np.uint8)
        latest = segments.latest(accepted)
        out.state[:] = np.where(gated, np.where(latest >= 0, state[latest], was).astype(np.uint8), UNGATED)
        return out

    def _find(self, stream: str) -> tuple[bool, ...]:
        return tuple(rule.means(stream) for rule in self._rules)

    def _holds(self, meant: Bools, values: Floats) -> tuple[Bools, Bools]:
        """Whether a rule that is ``meant`` ``[N, R]`` holds, and whether that is known, ``[N]`` each."""
        any_holds: Bools = np.zeros(len(values), bool)
        all_known: Bools = np.any(meant, axis=1)
        for r, (rule, columns) in enumerate(zip(self._rules, self._columns, strict=True)):
            seen = values[:, columns]
            missing = np.isnan(seen)
            each: Bools = np.stack(
                [COMPARISONS[c.comparison](seen[:, k], np.float32(c.limit)) for k, c in enumerate(rule.conditions)], 1
            )
            fails: Bools = np.any(~each & ~missing, axis=1)
            holds: Bools = ~(fails | np.any(missing, axis=1))
            any_holds |= meant[:, r] & holds
            all_known &= ~meant[:, r] | fails | holds
        return any_holds, all_known | any_holds

    def _remember(self, memory: Memory, segments: Segments, times: Times, since: Times, passed: Bools) -> None:
        slots, last = segments.slots, segments.last
        memory.gate_off[slots] = since[last]
        newest = segments.latest(passed)[last]
        memory.gate_time[slots] = np.where(newest >= 0, times[newest], memory.gate_time[slots])
