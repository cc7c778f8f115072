"""What may happen to a stream: a script that goes from trouble to trouble, so that every kind of incident occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.manifest import Channel

C = 3
KNOWN = (
    Channel(name="c0", stuck_after=5, missing_after=4, lowest=-30, highest=30),
    Channel(name="c1", stuck_after=6, missing_after=4),
    Channel(name="c2", stuck_after=0, missing_after=0),
)

#: What may happen to a stream, and how many readings it takes: at least, at most.
TROUBLES = {
    "normal": (5, 40), "moves": (10, 80), "returns": (5, 40), "hovers": (10, 60), "wider": (10, 60), "spikes": (1, 5),
    "stuck": (8, 20), "missing": (6, 15), "outside": (3, 8), "pause": (5, 40), "set back": (6, 12), "creeps": (30, 80),
    "wild": (1, 3),
}  # fmt: skip


@dataclass
class Script:
    """Readings of one stream: seconds, NaN where it says nothing; values ``[T, C]``."""

    times: NDArray[np.float64]
    values: NDArray[np.float32]


def script(rng: np.random.Generator, steps: int) -> Script:
    """From trouble to trouble."""
    times, values = np.arange(1000.0, 1000 + steps), rng.normal(0, 0.3, (steps, C))
    level, at = np.zeros(C), int(rng.integers(20, 40))
    while at < steps:
        what = str(rng.choice(list(TROUBLES)))
        low, high = TROUBLES[what]
        rows = np.arange(at, min(at + int(rng.integers(low, high)), steps))
        one = int(rng.integers(0, C))
        level = moved(level, what, one, rng)
        spoil(what, one, times, values, rows, rng)
        values[rows] += level
        at = int(rows[-1]) + 1
    return Script(times, values.astype(np.float32))


def moved(level: NDArray[np.float64], what: str, one: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The level from now on, ``[C]``."""
    if what == "moves":
        level = level.copy()
        level[one] = rng.choice([-12, 8, 12, 20])
    return np.zeros(C) if what == "returns" else level


def spoil(
    what: str,
    one: int,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Make a trouble of these rows, of channel ``one`` where it is one channel's."""
    match what:
        case "hovers":
            values[rows, one] += 5.5
        case "wider":
            values[rows, one] *= 30
        case "spikes":
            values[rows, one] += 20
        case "stuck":
            values[rows, one] = 0.25
        case "missing":
            values[rows, one] = np.nan
        case "outside":
            values[rows, 0] = 40
        case "pause":
            times[rows] = np.nan
        case "set back":
            times[rows] -= 25
        case "creeps":
            values[rows, one] += np.linspace(0, 2, len(rows))
        case "wild":
            values[rows, one] = rng.choice([1e25, -1e38, 1e10])
