"""A poisoned night: 5 % of the span are faults that nobody labelled. What is trimmed, and what comes of the contest.

    python tests/bench/poison.py [--data ../shared/data/asd] [--model pca]

For each server: the champion is fitted on the first half of its training days; the night reads the second half, where
the faults lie in one stretch, two thirds of the way: levels that moved, noise, drift, by 3 to 8 standard deviations, in
a third of the channels. Three nights are compared on the same clean held-out readings: the poisoned one as it is run,
one that trims nothing, and one of the clean data.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import numpy as np  # noqa: E402

from detector.adapters.files import Table, read_table  # noqa: E402
from detector.adapters.folder import read_model, write_model  # noqa: E402
from schemas.contest import Contest  # noqa: E402
from trainer.faults import Fault, Kind, plant  # noqa: E402
from trainer.pipeline import learn  # noqa: E402
from trainer.retrain.contest import decide  # noqa: E402
from trainer.retrain.ground import Ground  # noqa: E402
from trainer.retrain.night import Field, Material, Served, select  # noqa: E402
from trainer.retrain.past import Past  # noqa: E402
from trainer.retrain.settings import RetrainSettings  # noqa: E402
from trainer.settings import FitSettings  # noqa: E402
from trainer.warm import WEIGHTS  # noqa: E402

SHARE = 0.05


def part(table: Table, first: float, last: float) -> Table:
    """From one share of the rows to another."""
    rows = np.arange(round(first * len(table)), round(last * len(table)))
    return replace(
        table, streams=[table.streams[n] for n in rows], times=table.times[rows], values=table.values[rows],
        timestamps=[""] * len(rows),
    )  # fmt: skip


def poisoned(table: Table, seed: int) -> tuple[Table, np.ndarray]:
    """With the faults, and their rows."""
    rng = np.random.default_rng(seed)
    count = len(table)
    length = round(SHARE * count)
    start = round(0.65 * count)
    scale = np.nan_to_num(np.nanstd(table.values, axis=0)) + 1e-6
    faults = []
    for channel in rng.choice(table.values.shape[1], max(table.values.shape[1] // 3, 1), replace=False).tolist():
        kind = Kind(rng.choice(["shift", "noise", "drift"]))
        faults.append(Fault(kind, start, length, (channel,), float(rng.choice([-1, 1]) * rng.uniform(3, 8))))
    faults = [replace(f, size=abs(f.size)) if f.kind is Kind.NOISE else f for f in faults]
    return replace(table, values=plant(table.values, faults, scale, seed).values), np.arange(start, start + length)


def night(
    table: Table, served: Served, settings: RetrainSettings, fitting: FitSettings, ground: Ground | None
) -> tuple[Material, Contest, Ground]:
    """Steps 2 to 4 of a night."""
    past = Past(table, [], [], [], [])
    material = select(past, served.model, settings, fitting)
    ground = ground or Ground(material.learned, material.held_out, table, [])
    entered = Field(served, fitting, lambda _: None).enter(material.learned, ground)
    return material, decide(ground, [one.entrant for one in entered], {}), ground


def main() -> None:
    """Every server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "asd")
    parser.add_argument("--model", default="pca")
    parser.add_argument("--only", nargs="*")
    flags = parser.parse_args()
    fitting = FitSettings.load({"model": flags.model})
    heads = (
        "server",
        "night",
        "bad trimmed",
        "good trimmed",
        "promoted",
        "found before",
        "after",
        "episodes",
        "promised",
    )
    print("".join(f"{head:>14}" for head in heads))
    for folder in sorted(p for p in flags.data.iterdir() if p.is_dir() and (not flags.only or p.name in flags.only)):
        whole = read_table([str(next(folder.glob("train*")))], default_stream=folder.name)
        champion = learn(part(whole, 0, 0.5), fitting)
        clean = part(whole, 0.5, 1.0)
        bad, rows = poisoned(clean, 1)
        with tempfile.TemporaryDirectory() as name:
            write_model(champion.model, Path(name) / "champion", {WEIGHTS: champion.weights})
            served = Served("champion", Path(name) / "champion", read_model(Path(name) / "champion"))
            ground = None
            for label, table, trim in (("clean", clean, 0.1), ("poisoned", bad, 0.1), ("untrimmed", bad, 0.0)):
                settings = RetrainSettings.load({"trim": trim})
                material, contest, ground = night(table, served, settings, fitting, ground)
                kept = np.isin(table.times, np.concatenate([material.learned.times, material.held_out.times]))
                winner, old = contest.contenders[contest.winner].rows[0], contest.contenders[0].rows[0]
                cells = (
                    folder.name, label, f"{1 - kept[rows].mean():.0%}", f"{1 - np.delete(kept, rows).mean():.1%}",
                    contest.decision.promote, f"{old.share:.3f}", f"{winner.share:.3f}", winner.episodes,
                    f"{winner.promised:.1f}",
                )  # fmt: skip
                print("".join(f"{cell!s:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
