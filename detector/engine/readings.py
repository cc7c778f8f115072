"""Readings as columns, the form in which they travel through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one partition in the order of arrival.

    ``streams``: N names; ``times``: int64 ``[N]``, nanoseconds since 1970; ``values``: float32 ``[N, C]`` in
    engineering units, in the manifest's order of channels, NaN where missing.
    """

    partition: int
    streams: Sequence[str]
    times: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times)
