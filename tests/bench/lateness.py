"""What a lateness costs: the engine alone, fed decoded arrays in the order of time and in disorder. Prints JSON.

python lateness.py MODEL READINGS BATCH [LATENESS …]

Each lateness is given in intervals of the model; in disorder a reading comes up to that much after its time. The runs
take turns, so that what else the machine does falls on all of them. Readings per CPU-second, the best of the rounds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import load
import numpy as np

from detector.adapters.files import Table
from detector.adapters.folder import read_model
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.readings import Readings

ROUNDS = 3


def disordered(table: Table, seconds: float) -> Table:
    """The same readings, each up to so many seconds after its time."""
    arrival = table.times + np.random.default_rng(0).uniform(0, seconds * 1e9, len(table))
    order = np.argsort(arrival, kind="stable")
    names = [table.streams[n] for n in order.tolist()]
    return Table(names, table.times[order], table.values[order], table.timestamps, table.channels)


def runs(model: str, readings: int, batch: int, latenesses: list[float]) -> Iterator[tuple[str, Engine, list]]:
    """(name, engine, batches): without a lateness, and with each, in order and in disorder."""
    loaded = read_model(model)
    usual = Policy.usual(loaded.manifest.smoothing_span)
    table = load.table(load.FIT_STEPS, -(-readings // load.STREAMS))
    ordered = list(table.batches(batch))
    for lateness in latenesses:
        seconds = lateness * loaded.manifest.interval_s
        policy = usual.model_copy(update={"lateness": seconds})
        yield f"{lateness:g}, ordered", Engine(loaded, policy), ordered
        if lateness:
            yield f"{lateness:g}, disordered", Engine(loaded, policy), list(disordered(table, seconds).batches(batch))


def rate(engine: Engine, batches: list[list[Readings]]) -> float:
    """Readings per CPU-second."""
    engine.clear()
    began = time.process_time()
    count = sum(engine.process(batch).counts["received"] for batch in batches)
    return count / (time.process_time() - began)


def main(model: str, readings: int, batch: int, latenesses: list[float]) -> None:
    """Rates, the share of the buffer, and bytes of state per stream."""
    kept = list(runs(model, readings, batch, latenesses))
    rates = {name: [0.0] * ROUNDS for name, _, _ in kept}
    for number in range(ROUNDS):
        for name, engine, batches in kept:
            rates[name][number] = rate(engine, batches)
    found = {
        name: {
            "rate": round(max(rates[name])),
            "share of the buffer": engine.seconds["reorder"] / sum(engine.seconds.values()),
            "waiting per stream": engine.waiting / load.STREAMS,
            "bytes per stream": sum(len(engine.dump(0, bucket)) for bucket in range(BUCKETS)) / load.STREAMS,
        }
        for name, engine, _ in kept
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), [float(text) for text in sys.argv[4:]] or [0.0, 5.0])
