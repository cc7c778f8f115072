"""Readings of several streams, mixed, as Hypothesis draws them: gaps, repeated times, missing values, loud runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from pipeline import Row


@st.composite
def crowds(draw: st.DrawFn, streams: Sequence[str]) -> list[Row]:
    """Up to 400 readings of these streams; each has a clock of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clock = dict.fromkeys(streams, 100)
    rows: list[Row] = []
    for name in rng.choice(streams, draw(st.integers(1, 400))):
        clock[name] += int(rng.choice([1, 1, 1, 1, 1, 1, 0, 2, 6]))
        loud = 4 if (clock[name] // 10) % 4 == 0 else 0.5
        values = [None if rng.random() < 0.05 else float(v) for v in rng.normal(size=3) * loud]
        rows.append((str(name), clock[name], values))
    return rows
