"""The incident record of a stream: its open incidents as bytes, for whoever takes the stream over."""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.engine.assembly import NEVER
from detector.engine.incidents import KINDS, PLAIN, TOP_CHANNELS
from detector.engine.state import State
from schemas.alert import Kind
from schemas.errors import ModelError

#: What a record says of each open incident, by the state's names.
_NUMBERS = ("opened", "events", "began", "worst", "told", "phase", "flaps", "ended")


def dump_record(state: State, slot: int) -> bytes | None:
    """None where no incident is open."""
    record = {}
    for k, kind in enumerate(KINDS):
        if state.opened[slot, k] != NEVER:
            record[kind.value] = {name: getattr(state, name)[slot, k].item() for name in _NUMBERS}
            record[kind.value]["named"] = state.named[slot, k].tolist()
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS) if record else None


def load_record(state: State, slot: int, data: bytes) -> None:
    """Make these the stream's open incidents. Raises ModelError where the bytes are no record."""
    try:
        for name, fields in orjson.loads(data).items():
            k = KINDS.index(Kind(name))
            named = [int(c) for c in fields["named"][:TOP_CHANNELS]]
            for field in _NUMBERS:
                getattr(state, field)[slot, k] = fields[field]
            state.named[slot, k] = named + [-1] * (TOP_CHANNELS - len(named))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"an incident record cannot be read ({error}): use the version that wrote it") from error


def forget_incidents(state: State, slots: NDArray[np.int64]) -> None:
    """No incident is open at these streams. (One that expired still waits until what it was about is over.)"""
    state.phase[slots] = np.where(state.opened[slots] != NEVER, PLAIN, state.phase[slots])
    state.opened[slots], state.events[slots] = NEVER, 0
