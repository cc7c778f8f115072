"""A decoder for some streams of a topic that several groups share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

from detector.adapters.port import Records
from detector.decoding.decoded import Decoded, Decoder
from detector.engine.readings import Readings

#: Streams of which it is remembered whether they are meant.
REMEMBERED = 200_000


class OfStreams:
    """Passes readings of other streams over; they are counted as ``other_streams``.

    ``patterns``: of the names of those that are meant, with ``*`` and ``?``; none: all are.
    """

    def __init__(self, decoder: Decoder, patterns: Sequence[str]) -> None:
        self._decoder, self._patterns = decoder, tuple(patterns)
        self._means = lru_cache(REMEMBERED)(self._find)

    def _find(self, stream: str) -> bool:
        return any(fnmatchcase(stream, pattern) for pattern in self._patterns)

    @property
    def terms(self) -> dict[str, Any]:
        """See ``Decoder.terms``."""
        chosen = {"streams": list(self._patterns)} if self._patterns else {}
        return {**self._decoder.terms, **chosen}

    def under(self, terms: Mapping[str, Any]) -> OfStreams:
        """See ``Decoder.under``."""
        return OfStreams(self._decoder.under(terms), terms.get("streams", ()))

    def decode(self, records: Records) -> Decoded:
        """See ``Decoder.decode``."""
        decoded = self._decoder.decode(records)
        if not self._patterns:
            return decoded
        readings = decoded.readings
        meant = np.fromiter(map(self._means, readings.streams), bool, len(readings))
        if meant.all():
            return decoded
        rows = np.flatnonzero(meant)
        left = [readings.streams[row] for row in rows.tolist()]
        decoded.counts["other_streams"] += len(readings) - len(rows)
        return Decoded(
            Readings(readings.partition, left, readings.times[rows], readings.values[rows]),
            decoded.offsets[rows], decoded.dead_letters, decoded.counts,
        )  # fmt: skip
