"""What a decoder returns, and what a decoder is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.adapters.port import Records
from detector.engine.readings import Readings
from schemas.dead_letter import DeadLetter


@dataclass(frozen=True, slots=True)
class Decoded:
    """The readings of some records of one partition, and the dead letters among them.

    ``offsets`` int64 ``[N]``: the record that each reading came in; ``dead_letters`` in the order of their offsets;
    ``counts``: values left out because no channel of the model has their name, as ``unknown_channel``.
    """

    readings: Readings
    offsets: NDArray[np.int64]
    dead_letters: list[DeadLetter]
    counts: Counter[str]

    def part(self, start: int, end: int) -> Decoded:
        """The readings from place ``start`` to before ``end``; dead letters and counts go with the first."""
        readings, whole = self.readings, start == 0
        return Decoded(
            Readings(
                readings.partition, readings.streams[start:end], readings.times[start:end], readings.values[start:end]
            ),
            self.offsets[start:end],
            self.dead_letters if whole else [],
            self.counts if whole else Counter(),
        )


class Decoder(Protocol):
    """Turns records into readings. Never raises for what is in a record: that becomes a dead letter."""

    def decode(self, records: Records) -> Decoded:
        """Readings in the order of their records, and of their elements within a record."""
        ...

    @property
    def terms(self) -> dict[str, Any]:
        """What decides how records are read besides the model, as JSON values."""
        ...

    def under(self, terms: Mapping[str, Any]) -> Decoder:
        """A decoder of the same model under other terms."""
        ...
