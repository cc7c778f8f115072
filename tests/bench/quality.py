"""How well each model finds labelled anomalies, through the real command line, beside yardsticks without a model.

    python tests/bench/quality.py [--models pca,dense,conv] [--sets asd,smd] [--seeds 1] [--data DIR]

Per series: ``trainer fit train``, then ``detector score test --history train``. Nothing is chosen by test labels.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from bench.metrics import Quality, mean, measure  # noqa: E402
from bench.yardsticks import RATE, YARDSTICKS, threshold  # noqa: E402

from detector.adapters.files import read_table  # noqa: E402
from detector.cli import main as detector  # noqa: E402

#: One closed-form, two neural: the latter depend on the seed.
NEURAL = ("dense", "conv")
MODELS = ("pca", *NEURAL)
SETS = {"asd": "ASD", "smd": "SMD"}


@dataclass(frozen=True)
class Series:
    """One stream with a normal stretch to learn from and a labelled one after it."""

    name: str
    train: Path
    test: Path
    label: NDArray[np.bool_]
    interval_s: float


@dataclass(frozen=True)
class Result:
    """One scorer on one series."""

    quality: Quality
    fit_s: float


def series_of(folder: Path) -> list[Series]:
    """The series of a set, in the order of their names."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        labels = read_table([str(place / "labels.csv.gz")], channels=("label",))
        interval = float(np.median(np.diff(labels.times))) / 1e9
        label = labels.values[:, 0] > 0
        found.append(Series(place.name, place / "train.csv.gz", place / "test.csv.gz", label, interval))
    return found


def run_model(series: Series, model: str | None, seed: int, folder: Path) -> Result:
    """Fit and score by the commands a user would type; ``model`` None: the one that they take by themselves."""
    from trainer.cli import main as trainer

    out, scores = folder / "model", folder / "scores.csv"
    source = f"{series.name}={series.train}"
    test = f"{series.name}={series.test}"
    chosen = ["--model", model] if model else []
    with contextlib.redirect_stdout(sys.stderr):  # our own standard output is the table
        began = time.perf_counter()
        _done(trainer(["fit", source, "--out", str(out), "--seed", str(seed), *chosen]))
        fit_s = time.perf_counter() - began
        _done(detector(["score", "--model", str(out), test, "--history", source, "--out", str(scores)]))
    score, alert = read_scores(scores)
    return Result(measure(series.label, score, score > 1, alert, series.interval_s), fit_s)


def read_scores(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(score, NaN where there is none; alert) of scores.csv, ``[N]`` each."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["score"] or "nan"), row["alert"] == "1") for row in csv.DictReader(file)]
    return np.array([score for score, _ in rows]), np.array([alert for _, alert in rows])


def run_yardstick(series: Series, name: str, seed: int) -> Result:
    """A yardstick has no incidents: its alert is its score above the threshold."""
    train, test = _values(series.train), _values(series.test)
    began = time.perf_counter()
    calibration, score = YARDSTICKS[name](train, test, seed)
    over = score > threshold(calibration)
    return Result(measure(series.label, score, over, over, series.interval_s), time.perf_counter() - began)


def _values(path: Path) -> NDArray[np.float64]:
    return read_table([str(path)]).values.astype(np.float64)


def _done(code: int) -> None:
    if code:
        raise SystemExit(code)


# The table

HEADER = (
    f"{'set':4} {'scorer':22} {'AUC-PR':>11} {'ROC':>5} {'VUS-PR':>6} {'best-F1':>7} {'F1':>5} {'FPR med':>8} "
    f"{'worst':>6} {'caught':>6} | {'FPR':>6} {'false/day':>9} {'caught':>6} {'delay':>5} | {'fit s':>6}"
)
EXPLAINED = f"""
Macro means over the series of a set. Left of the bar: single readings, a reading being anomalous where its score is
above the calibrated threshold (promised false-positive rate {RATE:g}; "med" and "worst" are over the series). best-F1
is an oracle: the threshold that the labels like best. Right of the bar: incidents (share of normal readings under one,
false episodes a day, share of segments alerted, median readings from a segment's start to the alert). No point
adjustment. ± is the standard deviation of the macro AUC-PR over seeds. Yardsticks have no incidents."""


def line(label: str, scorer: str, by_seed: Sequence[Sequence[Result]]) -> str:
    """A row of the table; ``by_seed``: for each seed the results of all series."""
    macro = [mean([result.quality for result in results]) for results in by_seed]
    quality = mean(macro)
    rates = np.array([[result.quality.false_positives for result in results] for results in by_seed])
    ranking = f"{quality.auc_pr:.3f}"
    if len(macro) > 1:
        ranking += f"±{statistics.stdev(one.auc_pr for one in macro):.3f}"
    seconds = np.mean([result.fit_s for results in by_seed for result in results])
    return (
        f"{label:4} {scorer:22} {ranking:>11} {quality.roc:5.3f} {quality.vus_pr:6.3f} {quality.best_f1:7.3f} "
        f"{quality.f1:5.3f} {np.median(rates):8.4f} {rates.max():6.3f} {quality.caught:6.2f} | {quality.alarmed:6.4f} "
        f"{quality.episodes_per_day:9.2f} {quality.alerted:6.2f} {quality.delay:5.1f} | {seconds:6.1f}"
    )


def print_table(data: Path, sets: Sequence[str], models: Sequence[str], seeds: int) -> None:
    """Measure and print, a row as soon as it is there."""
    print(HEADER, flush=True)
    for name in sets:
        found = series_of(data / name)
        for yardstick in YARDSTICKS:
            print(line(SETS[name], yardstick, [[run_yardstick(series, yardstick, 0) for series in found]]), flush=True)
        for model in models:
            by_seed = []
            for seed in range(seeds if model in NEURAL else 1):
                with tempfile.TemporaryDirectory() as folder:
                    by_seed.append([run_model(series, model, seed, Path(folder)) for series in found])
            print(line(SETS[name], model, by_seed), flush=True)
    print(EXPLAINED)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_names(MODELS), default=list(MODELS), metavar="A,B", help=",".join(MODELS))
    parser.add_argument("--sets", type=_names(tuple(SETS)), default=list(SETS), metavar="A,B", help=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each neural model; 3 to publish")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR",
        help="folder of the sets; RESIDUAL_DATA, or shared/data beside the checkout",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"no data at {given.data}: name its folder with --data")
    print_table(given.data, given.sets, given.models, given.seeds)
    return 0


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A reader of comma-separated names."""

    def names(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


if __name__ == "__main__":
    sys.exit(main())
