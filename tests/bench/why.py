"""Whether the channels that an alert names are those that are wrong, beside other ways to find them.

    python tests/bench/why.py [--sets generated,asd,smd] [--model pca] [--streams 12] [--most 40] [--data DIR]

Faults of one and of two channels are planted into normal readings that follow those which were learned from. Where an
incident opens during one, the window of that reading is attributed to its channels: by their errors, as alerts do; by
their errors smoothed as the score is; by occlusion, the fall of the score where a channel is hidden (missing, or
replaced by what was expected of it); and by Shapley values of hidden channels, sampled (64 permutations).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from bench.proving import Event, Floats, Ground, generated, play, real  # noqa: E402

from detector.engine.alerts import Published  # noqa: E402
from detector.engine.attribution import smoothed_error  # noqa: E402
from detector.engine.engine import Engine  # noqa: E402
from detector.engine.incidents import Change  # noqa: E402
from detector.engine.reporter import Reporter, Seen  # noqa: E402
from detector.engine.scorer import Scorer  # noqa: E402
from detector.engine.smoothing import smoothing_weights  # noqa: E402
from schemas.alert import EventType, Kind  # noqa: E402

#: Standard deviations of what has a size; days of everything but a spike.
SIZES = (3.0, 5.0, 8.0)
FAULT_DAYS = 3 / 24

#: Readings after a fault in which an incident is still its own: the score is smoothed, and two readings open one.
LATE = 3

PERMUTATIONS = 64

Doubles = NDArray[np.float64]
Fault = Callable[[Floats, Floats, float, np.random.Generator], None]
"""Into readings ``[n]`` of a channel, those of a day before ``[n]``: by so much, engineering units."""


def _spike(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values[:1] += size


def _shift(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values += size


def _drift(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values += size * np.linspace(0, 1, len(values), dtype=np.float32)


def _noise(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values += size * rng.standard_normal(len(values)).astype(np.float32)


def _stuck(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values[:] = values[0]


def _alone(values: Floats, before: Floats, size: float, rng: np.random.Generator) -> None:
    values[:] = before


#: With a size, and without.
SIZED: dict[str, Fault] = {"spike": _spike, "shift": _shift, "drift": _drift, "noise": _noise}
UNSIZED: dict[str, Fault] = {"stuck": _stuck, "correlation": _alone}


@dataclass(frozen=True)
class Plan:
    """A fault a day and stream: where, in which channels."""

    kind: str
    size: float
    channels: int
    at: NDArray[np.int64]
    """``[D, S]``."""
    which: NDArray[np.int64]
    """``[D, S, channels]``."""


@dataclass(frozen=True)
class Opening:
    """An incident opened: what the engine knew."""

    x: Floats
    """``[W, C]``."""
    loc: Floats
    scale: Floats
    context: Floats | None
    error: Floats


class Witness(Reporter):
    """A reporter that remembers the openings of anomalies, by partition, stream and time."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(
            engine.model, engine.scorer, engine.streams, engine.state,
            smoothing_weights(engine.model.manifest.smoothing_span), engine._gates,
        )  # fmt: skip
        self._window = engine.model.manifest.window
        self.seen: dict[tuple[int, str, int], Opening] = {}

    def of_reading(self, seen: Seen, change: Change, which: NDArray[np.bool_] | None) -> Published:
        """As ever."""
        if change.kind is Kind.ANOMALY and change.type is EventType.OPENED:
            row, u = change.row, int(seen.arrived.segments.of_row[change.row])
            slot = int(seen.arrived.segments.slots[u])
            key = self._streams.partitions[slot], self._streams.names[slot], int(seen.arrived.times[row])
            context = None if seen.context is None else seen.context[row]
            x = seen.arrived.window(np.array([row]), self._window)[0].copy()
            self.seen[key] = Opening(x, seen.loc[u], seen.scale[u], context, seen.error[row])
        return super().of_reading(seen, change, which)


# Ways to attribute


def scored(scorer: Scorer, opening: Opening, hidden: NDArray[np.bool_], fill: Floats | None) -> Doubles:
    """The score ``[N]`` with channels hidden, ``hidden`` ``[N, C]``; ``fill`` ``[W, C]``: by what, None: missing."""
    N = len(hidden)
    x = np.where(hidden[:, None], np.nan if fill is None else fill, opening.x).astype(np.float32)
    context = opening.context
    if context is not None:
        context = np.where(hidden & (fill is None), np.nan, context).astype(np.float32)
    loc, scale = (np.repeat(one[None], N, axis=0) for one in (opening.loc, opening.scale))
    return scorer.score(x, loc, scale, context)[0].astype(np.float64)


def expected_window(scorer: Scorer, opening: Opening) -> Floats:
    """What was expected of the window, ``[W, C]``, the newest reading as the score expects it."""
    context = None if opening.context is None else opening.context[None]
    given = opening.x[None], opening.loc[None], opening.scale[None], context
    expected: Floats = np.concatenate([scorer.window(*given)[0][:-1], scorer.score(*given)[2]])
    return expected


def occlusion(scorer: Scorer, opening: Opening, fill: Floats | None) -> Doubles:
    """The fall of the score where each channel is hidden, ``[C]``."""
    C = opening.x.shape[1]
    score = scored(scorer, opening, np.concatenate([np.zeros((1, C), bool), np.eye(C, dtype=bool)]), fill)
    fall: Doubles = score[0] - score[1:]
    return fall


def shapley(scorer: Scorer, opening: Opening, fill: Floats | None, rng: np.random.Generator) -> Doubles:
    """Shapley values of the channels, ``[C]``: what each adds to the score of those before it, in random orders
    (Štrumbelj & Kononenko 2014).
    """
    C = opening.x.shape[1]
    orders = np.array([rng.permutation(C) for _ in range(PERMUTATIONS)])  # [P, C]
    place = np.argsort(orders, axis=1)
    hidden = place[:, None] >= np.arange(C + 1)[None, :, None]  # [P, C + 1, C]: the first 0 … C are shown
    score = scored(scorer, opening, hidden.reshape(-1, C), fill).reshape(PERMUTATIONS, C + 1)
    gain = np.diff(score, axis=1)  # [P, C], of the channel at each place
    values: Doubles = np.take_along_axis(gain, place, axis=1).mean(axis=0)
    return values


# The experiment


def plans(ground: Ground, rng: np.random.Generator, sizes: Sequence[float] = SIZES) -> list[Plan]:
    """Every kind and size of fault, in one and in two channels; the first day is for warming up."""
    day, S = ground.day, len(ground.names)
    days = len(ground.watched) // day - 1
    found = []
    for kind in (*SIZED, *UNSIZED):
        for size in sizes if kind in SIZED else (0.0,):
            for channels in (1, 2):
                at = day * np.arange(1, days + 1)[:, None] + rng.integers(day // 8, day * 3 // 4, (days, S))
                which = np.array([[rng.permutation(ground.moving)[:channels] for _ in range(S)] for _ in range(days)])
                found.append(Plan(kind, size, channels, at, which))
    return found


def planted(ground: Ground, plan: Plan, rng: np.random.Generator) -> Floats:
    """What is watched, with the plan's faults."""
    values = ground.watched.copy()
    length = round(FAULT_DAYS * ground.day)
    fault = {**SIZED, **UNSIZED}[plan.kind]
    for d, s in np.ndindex(plan.at.shape):
        rows = slice(plan.at[d, s], plan.at[d, s] + length)
        before = slice(plan.at[d, s] - ground.day, plan.at[d, s] - ground.day + length)
        for c in plan.which[d, s]:
            size = plan.size * ground.sd[s, c] * rng.choice([-1, 1])
            fault(values[rows, s, c], ground.watched[before, s, c], float(size), rng)
    return values


@dataclass
class Tally:
    """How often an attribution was right, of some faults."""

    first: int = 0
    """The first channel is a true one."""
    three: int = 0
    """All true ones are among the first three."""
    seconds: float = 0.0


Tallies = dict[tuple[str, int], dict[str, Tally]]
"""By kind and number of channels, and by attribution."""


@dataclass
class Counted:
    """What was planted and found, and how it was attributed."""

    planted: dict[tuple[str, int], int]
    opened: dict[tuple[str, int], int]
    judged: dict[tuple[str, int], int]
    tallies: Tallies


def nothing() -> Counted:
    """Before the first."""
    return Counted(defaultdict(int), defaultdict(int), defaultdict(int), defaultdict(lambda: defaultdict(Tally)))


def measure(ground: Ground, counted: Counted, most: int, seed: int = 0, sizes: Sequence[float] = SIZES) -> None:
    """Plant, watch, and attribute at most so many openings of each plan."""
    rng = np.random.default_rng(seed)
    chosen = plans(ground, rng, sizes)
    engine = Engine(ground.model)
    witness = Witness(engine)
    engine._reporter = witness
    played = play(ground, [planted(ground, plan, rng) for plan in chosen], engine=engine, errors=True)
    weights = np.asarray(smoothing_weights(ground.model.manifest.smoothing_span))
    for k, plan in enumerate(chosen):
        cell = plan.kind, plan.channels
        found = list(openings(ground, plan, k, played.events))
        counted.planted[cell] += plan.at.size
        counted.opened[cell] += len(found)
        for row, s, true in [found[i] for i in rng.permutation(len(found))[:most]]:
            opening = witness.seen[k, ground.names[s], int(ground.times[ground.start + row])]
            past = np.nan_to_num(played.error[k, row - len(weights) + 1 : row + 1, s])  # [L, C]
            counted.judged[cell] += 1
            for name, attribute in ways(engine.scorer, opening, past, weights, rng).items():
                began = time.perf_counter()
                share = attribute()
                tally = counted.tallies[cell][name]
                tally.seconds += time.perf_counter() - began
                top = np.argsort(-np.nan_to_num(share), kind="stable")[:3]
                tally.first += top[0] in true
                tally.three += bool(np.isin(true, top).all())


def openings(
    ground: Ground, plan: Plan, k: int, events: dict[tuple[int, int], list[Event]]
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """The first incident of the model that opened in each fault: its reading, its stream, the true channels."""
    length = (1 if plan.kind == "spike" else round(FAULT_DAYS * ground.day)) + LATE
    for s in range(plan.at.shape[1]):
        rows = np.array(
            [e.row for e in events[k, s] if e.type is EventType.OPENED and e.kind is Kind.ANOMALY], np.int64
        )
        for d in range(plan.at.shape[0]):
            inside = rows[(rows >= plan.at[d, s]) & (rows < plan.at[d, s] + length)]
            if len(inside):
                yield int(inside[0]), s, plan.which[d, s]


def ways(
    scorer: Scorer, opening: Opening, past: Floats, weights: Doubles, rng: np.random.Generator
) -> dict[str, Callable[[], Doubles]]:
    """Each attribution of an opening, by name, in the order of the table."""
    expected = expected_window(scorer, opening)
    return {
        "error": lambda: opening.error.astype(np.float64),
        "smoothed": lambda: weights @ past,
        "recomputed": lambda: smoothed_error(
            scorer, opening.x, opening.loc, opening.scale, opening.context, weights
        ).astype(np.float64),
        "hidden": lambda: occlusion(scorer, opening, None),
        "replaced": lambda: occlusion(scorer, opening, expected),
        "shapley, hidden": lambda: shapley(scorer, opening, None, rng),
        "shapley, replaced": lambda: shapley(scorer, opening, expected, rng),
    }


WAYS = ("error", "smoothed", "recomputed", "hidden", "replaced", "shapley, hidden", "shapley, replaced")
HEADER = f"{'set':9} {'fault':11} {'channels':>8} {'caught':>7} {'judged':>6}  " + "  ".join(
    f"{name:>17}" for name in WAYS
)
EXPLAINED = """
Of faults in which an incident of the model opened: how often the first channel is a true one / how often all true ones
are among the first three. error: as alerts name them. The last row: milliseconds per incident."""


def print_rows(label: str, counted: Counted) -> None:
    """The rows of a set."""
    cells = sorted(counted.planted, key=lambda cell: (cell[1], [*SIZED, *UNSIZED].index(cell[0])))
    for kind, channels in [*cells, ("all", 1), ("all", 2)]:
        some = [c for c in cells if c[1] == channels and kind in (c[0], "all")]
        judged = sum(counted.judged[c] for c in some)
        caught = sum(counted.opened[c] for c in some) / sum(counted.planted[c] for c in some)
        shares = []
        for name in WAYS:
            first, three = (
                sum(getattr(counted.tallies[c][name], what) for c in some) / max(judged, 1)
                for what in ("first", "three")
            )
            shares.append(f"{first:9.0%} / {three:5.0%}")
        print(f"{label:9} {kind:11} {channels:8} {caught:7.0%} {judged:6}  " + "  ".join(shares), flush=True)
    total = sum(counted.judged.values())
    cost = [sum(counted.tallies[c][name].seconds for c in cells) / max(total, 1) * 1000 for name in WAYS]
    print(f"{label:9} {'ms':11} {'':8} {'':7} {total:6}  " + "  ".join(f"{ms:17.2f}" for ms in cost), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["generated", "asd", "smd"], metavar="A,B")
    parser.add_argument("--model", default="pca")
    parser.add_argument("--streams", type=int, default=12, help="of generated data")
    parser.add_argument("--most", type=int, default=40, help="openings of each fault, size and series to attribute")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR")
    given = parser.parse_args(arguments)
    print(HEADER, flush=True)
    for name in given.sets:
        counted = nothing()
        if name == "generated":
            measure(generated(given.streams, watch_days=11, shared=0.5, model=given.model), counted, given.most)
        elif given.data.is_dir():
            for folder in sorted(path for path in (given.data / name).iterdir() if path.is_dir()):
                measure(real(folder, model=given.model), counted, max(given.most // 4, 1))
        else:
            print(f"{name}: no data at {given.data}: name its folder with --data", file=sys.stderr)
            continue
        print_rows(name, counted)
    print(EXPLAINED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
