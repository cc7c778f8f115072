"""How good made readings are, beside real ones of another time and a Gaussian: generators fitted with several seeds.

    python tests/bench/synthesis.py [--sets omi-1,omi-4,stock] [--seeds 3] [--data DIR] [--set steps=2500]

Windows of 24 readings; every third of some twenty stretches of time is held out. Share prices are taken as the
differences of their logarithms. A line per set, row and seed, then what the rows mean for the best generator:

* excess: told apart beyond real readings, as a share of the Gaussian's excess (at most half is wanted);
* recall: as a share of real readings' (at least .9 is wanted);
* forecast: error as a share of what learning from real readings gives (at most 1.15 is wanted);
* copied: as `copied` in the report; of real readings it is .05.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

from detector.adapters.files import Table, read_table  # noqa: E402
from trainer.synthesis.page import ROWS  # noqa: E402
from trainer.synthesis.pipeline import fit_generator  # noqa: E402
from trainer.synthesis.quality import Quality  # noqa: E402
from trainer.synthesis.settings import SynthSettings  # noqa: E402

STOCK = "stock"


def load(name: str, data: Path) -> Table:
    """Normal readings of a server, or log-returns of prices."""
    if name != STOCK:
        return read_table([str(data / "asd" / name / "train.csv.gz")])
    prices = read_table([str(data / "synthetic" / "stock_data.csv")])
    returns = np.diff(np.log(np.maximum(prices.values.astype(np.float64), 1e-9)), axis=0).astype(np.float32)
    return Table(prices.streams[1:], prices.times[1:], returns, prices.timestamps[1:], prices.channels)


def line(name: str, row: str, quality: Quality) -> str:
    """One row of the table."""
    network, trees = quality.by_classifier
    return (
        f"{name:8} {ROWS[row]:20} told apart {quality.discriminative:.3f} (network {network:.3f}, trees {trees:.3f})  "
        f"forecast {quality.tstr:.3f}  MMD² {quality.mmd:.4f}  precision {quality.precision:.3f}  "
        f"recall {quality.recall:.3f}  nearest {quality.nearest:.2f}  copied {quality.copied:.3f}  "
        f"autocorrelation {quality.autocorrelation:.3f}  correlation {quality.crosscorrelation:.3f}"
    )


def judged(name: str, seeds: list[dict[str, Quality]]) -> str:
    """What the rows mean, means over seeds."""
    best = [min((q[row] for row in ("gan", "vae") if row in q), key=lambda one: one.discriminative) for q in seeds]
    real, cheap = ([q[row] for q in seeds] for row in ("real", "gaussian"))

    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    floor = mean([q.discriminative for q in real])
    spread = statistics.pstdev([q.discriminative for q in real])
    excess = mean([q.discriminative for q in best]) - floor
    theirs = mean([q.discriminative for q in cheap]) - floor
    recall = mean([q.recall for q in best]) / mean([q.recall for q in real])
    forecast = mean([q.tstr for q in best]) / mean([q.tstr for q in real])
    return (
        f"{name}: excess {excess:.3f}, {excess / theirs:.0%} of the Gaussian's {theirs:.3f} (spread over seeds "
        f"{spread:.3f}); recall {recall:.0%} of real readings'; forecast error {forecast:.0%}; copied "
        f"{mean([q.copied for q in best]):.3f}, nearest {mean([q.nearest for q in best]):.2f}"
    )


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="omi-1,omi-4,stock")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs")
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR")
    chosen = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in chosen.pairs)
    for name in chosen.sets.split(","):
        table, found = load(name, chosen.data), []
        for seed in range(chosen.seeds):
            began = time.monotonic()
            fitted = fit_generator(table, SynthSettings.load({**given, "seed": seed}))
            quality = dict(fitted.recipe.manifest.quality)
            found.append(quality)
            for row in ROWS:
                if row in quality:
                    print(f"seed {seed} " + line(name, row, quality[row]), flush=True)
            print(f"seed {seed} {name}: {time.monotonic() - began:.0f} s", flush=True)
        print(judged(name, found), flush=True)


if __name__ == "__main__":
    main()
