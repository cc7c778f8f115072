"""How well each model finds labelled anomalies, through the real command line, beside yardsticks without a model.

    python tests/bench/quality.py [--models default,pca,conv] [--sets asd,smd,nab] [--seeds 1] [--data DIR]

Per series: ``trainer fit train``, then ``detector score test --history train``. Nothing is chosen by test labels. A
series of the Numenta benchmark has no train part: its first 15 %, the probation stretch, is it.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from bench.metrics import Quality, mean, measure  # noqa: E402
from bench.yardsticks import RATE, YARDSTICKS, threshold  # noqa: E402

from detector.adapters.files import read_table  # noqa: E402
from detector.adapters.folder import read_model  # noqa: E402
from detector.cli import main as detector  # noqa: E402
from trainer.models import MODELS  # noqa: E402

#: The model that the trainer chooses where none is named.
DEFAULT = "default"
#: Solved in closed form: the seed changes nothing.
CLOSED = ("pca", "pca-aer", "linear", "pca+linear")
SETS = {"asd": "ASD", "smd": "SMD", "nab": "NAB"}
PROBATION = 0.15


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
    model: str = ""
    """What was fitted, where the trainer chose."""
    parity: float = float("nan")
    """Largest |PyTorch - ONNX Runtime| of a score, relative."""


def series_of(folder: Path, parts: Path) -> list[Series]:
    """The series of a set, in the order of their names; ``parts``: where to write those that have to be split."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        labels = read_table([str(place / "labels.csv.gz")], channels=("label",))
        interval = float(np.median(np.diff(labels.times))) / 1e9
        label = labels.values[:, 0] > 0
        train, test = place / "train.csv.gz", place / "test.csv.gz"
        if not train.exists():
            train, test, start = split(place / "series.csv.gz", parts / place.name)
            label = label[start:]
        found.append(Series(place.name, train, test, label, interval))
    return found


def split(series: Path, out: Path) -> tuple[Path, Path, int]:
    """The probation stretch and the rest as files of their own, and the row at which the rest starts."""
    header, *rows = gzip.decompress(series.read_bytes()).decode().splitlines()
    start = round(len(rows) * PROBATION)
    out.mkdir()
    paths = out / "train.csv", out / "test.csv"
    for path, part in zip(paths, (rows[:start], rows[start:]), strict=True):
        path.write_text("\n".join([header, *part]) + "\n")
    return *paths, start


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
    manifest = read_model(out).manifest
    quality = measure(series.label, score, score > 1, alert, series.interval_s)
    return Result(quality, fit_s, manifest.model, manifest.metrics.get("parity", float("nan")))


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
    f"{'worst':>6} {'caught':>6} | {'F1':>5} {'FPR':>6} {'worst':>6} {'false/wk':>8} {'worst':>6} {'caught':>6} "
    f"{'delay':>5} | {'fit s':>6} {'parity':>7}"
)
EXPLAINED = f"""
Macro means over the series of a set. Left of the bar: single readings, a reading being anomalous where its score is
above the threshold (of yardsticks: calibrated to a false-positive rate of {RATE:g}; ours promises one false incident a
week). "med" and "worst" are over series; best-F1 is an oracle: the threshold that the labels like best. Right of the
bar: incidents (F1 of the readings under one, share of normal readings under one, false episodes a week, both also of
the worst series, share of segments alerted, median readings from a segment's start to the alert). No point adjustment.
± is the standard deviation of the macro AUC-PR over seeds. parity: the largest difference between PyTorch and ONNX
Runtime, relative to a score. Yardsticks have no incidents."""


def line(label: str, scorer: str, by_seed: Sequence[Sequence[Result]]) -> str:
    """A row of the table; ``by_seed``: for each seed the results of all series."""
    macro = [mean([result.quality for result in results]) for results in by_seed]
    quality = mean(macro)
    rates = np.array([[result.quality.false_positives for result in results] for results in by_seed])
    ranking = f"{quality.auc_pr:.3f}"
    if len(macro) > 1:
        ranking += f"±{statistics.stdev(one.auc_pr for one in macro):.3f}"

    def worst(name: str) -> float:
        return max(float(getattr(result.quality, name)) for results in by_seed for result in results)

    parity = max(result.parity for results in by_seed for result in results)
    seconds = np.mean([result.fit_s for results in by_seed for result in results])
    return (
        f"{label:4} {scorer:22} {ranking:>11} {quality.roc:5.3f} {quality.vus_pr:6.3f} {quality.best_f1:7.3f} "
        f"{quality.f1:5.3f} {np.median(rates):8.4f} {rates.max():6.3f} {quality.caught:6.2f} | {quality.alert_f1:5.3f} "
        f"{quality.alarmed:6.4f} {worst('alarmed'):6.4f} {7 * quality.episodes_per_day:8.2f} "
        f"{7 * worst('episodes_per_day'):6.2f} {quality.alerted:6.2f} {quality.delay:5.1f} | "
        f"{seconds:6.1f} {parity:7.0e}"
    )


def print_table(data: Path, sets: Sequence[str], models: Sequence[str], seeds: int) -> None:
    """Measure and print, a row as soon as it is there."""
    print(HEADER, flush=True)
    for name in sets:
        with tempfile.TemporaryDirectory() as parts:
            found = series_of(data / name, Path(parts))
            for yardstick in YARDSTICKS:
                results = [[run_yardstick(series, yardstick, 0) for series in found]]
                print(line(SETS[name], yardstick, results), flush=True)
            for model in models:
                by_seed = []
                for seed in range(1 if model in CLOSED else seeds):
                    with tempfile.TemporaryDirectory() as folder:
                        chosen = None if model == DEFAULT else model
                        by_seed.append([run_model(series, chosen, seed, Path(folder)) for series in found])
                print(line(SETS[name], model, by_seed), flush=True)
                if model == DEFAULT:
                    picks = Counter(result.model for results in by_seed for result in results)
                    print(f"{'':4} chosen: {', '.join(f'{n} {m}' for m, n in picks.most_common())}", flush=True)
    print(EXPLAINED)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (DEFAULT, *MODELS, "pca+linear", "pca+mlp")
    parser.add_argument("--models", type=_names(known), default=list(known), metavar="A,B", help=",".join(known))
    parser.add_argument("--sets", type=_names(tuple(SETS)), default=["asd", "smd"], metavar="A,B", help=",".join(SETS))
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
