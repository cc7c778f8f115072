"""Readings as columns, the form in which they travel through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Numbers held at once, in a batch of readings: 128 MB of them. Sensors never get there, images do.
MOST_VALUES = 1 << 25


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one partition in the order of arrival.

    ``streams``: N names; ``times``: int64 ``[N]``, nanoseconds since 1970; ``values``: float32 ``[N, V]`` in
    engineering units, NaN where missing: of sensors one for each channel in the manifest's order (V = C), of a camera
    the pixels row by row, the bands of each beside each other (V = H · W · C).
    """

    partition: int
    streams: Sequence[str]
    times: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times)


def at_once(most: int, values: int) -> int:
    """Readings of ``values`` numbers each that a batch may hold: ``most``, fewer where they are large, 1 at least."""
    return max(1, min(most, MOST_VALUES // values))
