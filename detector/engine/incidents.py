"""Incidents: from flags of single readings to what an operator sees opened and resolved.

An incident opens at an anomalous reading when at least ``k`` of the stream's last ``n`` readings were anomalous, and
resolves when the last ``quiet`` readings were all scored and normal. Readings without a score (warm-up) count for
neither side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from detector.engine.segments import Ints, Segments
from schemas.frozen import Frozen

NORMAL, ANOMALOUS, UNSCORED = 0, 1, 2

Flags = NDArray[np.uint8]


class Policy(Frozen):
    """When an incident opens and resolves, in readings of a stream."""

    k: int = Field(2, ge=1, le=64, description="anomalous readings that open an incident …")
    n: int = Field(3, ge=1, le=64, description="… among this many newest ones")
    quiet: int = Field(5, ge=1, le=64, description="normal readings in a row that resolve it")
    unseen: int = Field(300, ge=0, description="first readings of a stream never seen that publish nothing")

    @model_validator(mode="after")
    def _can_be_reached(self) -> Policy:
        if self.k > self.n:
            raise ValueError(f"{self.k} of {self.n} readings can never be anomalous")
        return self

    @property
    def memory(self) -> int:
        """Flags that must be remembered of each stream."""
        return max(self.n, self.quiet)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``open`` ``[n]``: an incident is open after the row; ``opens``, ``resolves``: it began or ended with it."""

    open: NDArray[np.bool_]
    opens: NDArray[np.bool_]
    resolves: NDArray[np.bool_]


def decide(policy: Policy, segments: Segments, history: Flags, was_open: NDArray[np.bool_]) -> Verdict:
    """Follow each stream through its rows.

    ``history`` ``[n, policy.memory]``: flags up to and with each row, newest last; ``was_open`` ``[U]``: before the
    first row of each segment.
    """
    newest = history[:, -1]
    opening = (newest == ANOMALOUS) & ((history[:, -policy.n :] == ANOMALOUS).sum(axis=1) >= policy.k)
    closing = (history[:, -policy.quiet :] == NORMAL).all(axis=1)
    decided: Ints = segments.latest(opening | closing)
    is_open = np.where(decided >= 0, opening[decided], was_open[segments.of_row])
    before = segments.previous(is_open, was_open)
    return Verdict(is_open, is_open & ~before, before & ~is_open)
