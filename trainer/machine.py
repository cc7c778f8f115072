"""Readings of machines that are off: nothing is learned from them, as nothing is judged by them (``engine.gates``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detector.adapters.files import Table
from detector.adapters.overflow import taken
from detector.adapters.texts import coded
from detector.engine.assembly import NEVER, Times
from detector.engine.gates import Gates
from detector.engine.segments import Segments
from detector.spans import Spans
from schemas.errors import SettingsError
from schemas.machine import parse_off_when
from schemas.moment import SECOND_NS
from trainer.normal import Drop, normal


@dataclass(slots=True)
class _Memory:
    time: Times
    gate_off: Times
    gate_time: Times


def off_spans(table: Table, off_when: str, settle_s: float) -> dict[str, Spans]:
    """By stream, from the first to the last reading of each time that its machine was off or starting.

    Raises SettingsError where a rule names a channel that the table does not have.
    """
    try:
        gates = Gates(parse_off_when(off_when), table.channels, round(settle_s * SECOND_NS))
    except ValueError as error:
        raise SettingsError(f"setting {error}") from None
    if not gates or not len(table):
        return {}
    names = coded(table.streams)
    order = np.lexsort((table.times, names.codes))
    segments = Segments.of(names.codes[order].astype(np.int64))
    times = np.asarray(table.times)[order]
    memory = _Memory(*(np.full(len(names.names), NEVER) for _ in range(3)))
    all_of_them = np.ones(len(times), bool)
    passed = gates.follow(memory, names.names, segments, all_of_them, times, taken(table.values, order)).passed
    begins = passed & ~segments.previous(passed, np.zeros(len(segments.slots), bool))
    last = np.ones(len(passed), bool)
    last[:-1] = ~passed[1:] | (segments.of_row[1:] != segments.of_row[:-1])
    ends = times[passed & last] + 1
    pairs: dict[str, list[tuple[int, int]]] = {}
    for of, start, end in zip(segments.of_row[begins].tolist(), times[begins].tolist(), ends.tolist(), strict=True):
        pairs.setdefault(names.names[int(segments.slots[of])], []).append((start, end))
    return {stream: Spans.of(own) for stream, own in pairs.items()}


def running(table: Table, off_when: str, settle_s: float, say: Callable[[str], None] = lambda _: None) -> Table:
    """The readings of machines that are on. Raises likewise."""
    off = off_spans(table, off_when, settle_s)
    if not off:
        return table
    chosen = normal(table, lambda stream: {Drop.OFF: off[stream]} if stream in off else {})
    say(f"left out: {chosen.dropped.get(Drop.OFF, 0)} readings of machines that were off or starting")
    return chosen.table
