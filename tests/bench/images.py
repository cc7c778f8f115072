"""How well image models tell one kind of picture from all others, and what a camera that trembles does to them.

    python tests/bench/images.py [--models default,pca,conv,conv-vae] [--sets digits,fashion] [--seeds 3] [--data DIR]
                                 [--page FILE] [--set KEY=VALUE ...]

One kind is normal: a model is fitted as ``trainer fit`` does on the first 60 % of its pictures, and the rest of it is
told from all pictures of all other kinds by the exported graph (area under ROC). No label is seen before that. The
yardstick is PCA with 90 % of the variance, fitted on all of these 60 %, and its mean squared error. Jitter: normal test
pictures moved by one or two pixels in each of eight directions, the share of them above the threshold that 5 % of the
unmoved ones exceed. ``--page`` writes error maps as HTML.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from detector.adapters.files import Table  # noqa: E402
from detector.adapters.images import Images, read_images  # noqa: E402
from detector.engine.model import Model  # noqa: E402
from detector.engine.pictures import error_png  # noqa: E402
from detector.engine.scorer import Scorer  # noqa: E402
from schemas.frame import Frame  # noqa: E402
from schemas.moment import SECOND_NS  # noqa: E402
from trainer.images.architecture import as_images, as_readings  # noqa: E402
from trainer.images.augmentation import shifted  # noqa: E402
from trainer.images.pipeline import learn_images  # noqa: E402
from trainer.settings import FitSettings  # noqa: E402

TRAIN = 0.6
VARIANCE = 0.9
QUANTILE = 0.95
#: The model that the trainer chooses where none is named.
DEFAULT = "default"
YARDSTICK = "yardstick"

Floats = NDArray[np.float64]
Score = Callable[[Tensor], Floats]
"""Images ``[n, bands, H, W]`` in their own units → scores ``[n]``."""


@dataclass(frozen=True)
class Task:
    """One kind of picture as the normal one; images ``[n, bands, H, W]``."""

    kind: int
    train: Tensor
    test: Tensor
    other: NDArray[np.bool_]
    """``[n]``: the test picture is of another kind."""


@dataclass
class Row:
    """Of one scorer: AUROC by kind and seed; share of jittered normal pictures above the threshold, by pixels moved."""

    auroc: dict[tuple[int, int], float] = field(default_factory=dict)
    alarms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    fit_s: list[float] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    """What was fitted, where the trainer chose."""


def pictures(name: str, data: Path) -> tuple[Tensor, NDArray[np.int64]]:
    """Images and their kinds."""
    if name == "digits":
        digits = load_digits()
        return torch.from_numpy(digits.images.astype(np.float32))[:, None], digits.target
    path = data / "images" / "fashion-mini900.npz"
    images = read_images([str(path)])
    with np.load(path) as arrays:
        kinds = arrays["y"].astype(np.int64)
    return as_images(torch.from_numpy(images.table.values), images.frame), kinds


def tasks(images: Tensor, kinds: NDArray[np.int64]) -> Iterator[Task]:
    """One for each kind, its pictures in their order."""
    for kind in np.unique(kinds).tolist():
        own = np.flatnonzero(kinds == kind)
        train = round(TRAIN * len(own))
        test = np.concatenate([own[train:], np.flatnonzero(kinds != kind)])
        yield Task(kind, images[own[:train]], images[test], kinds[test] != kind)


# Models


def yardstick(train: Tensor) -> Score:
    """Mean squared error of the reconstruction from principal components of 90 % of the variance."""
    flat = train.flatten(1).double()
    mean = flat.mean(0)
    _, spread, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    share = spread.square().cumsum(0) / spread.square().sum()
    kept = axes[: int((share < VARIANCE - 1e-12).sum()) + 1]

    def score(z: Tensor) -> Floats:
        centred = z.flatten(1).double() - mean
        return (centred - centred @ kept.T @ kept).square().mean(1).numpy()

    return score


def product(train: Tensor, model: str, seed: int, pairs: Sequence[str]) -> Model:
    """As ``trainer fit`` would make it of these pictures."""
    values = as_readings(train).numpy()
    times = np.arange(len(values), dtype=np.int64) * SECOND_NS
    table = Table(["camera"] * len(values), times, values, [""] * len(values), ())
    given = dict(pair.split("=", 1) for pair in pairs)
    settings = FitSettings.load({"seed": seed, **({} if model == DEFAULT else {"model": model}), **given})
    return learn_images(Images(Frame(train.shape[2], train.shape[3], train.shape[1]), table), settings).model


def scorer_of(model: Model) -> Score:
    """Raw scores by the exported graph."""
    scorer = Scorer(model.graph, model.manifest.batching)

    def score(z: Tensor) -> Floats:
        given = as_given(z, model)
        return scorer.score(*given)[0].astype(np.float64)

    return score


def as_given(z: Tensor, model: Model) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Images as the graph is given them."""
    streams = model.streams
    loc, scale = (np.tile(row, (len(z), 1)) for row in (streams.group_loc, streams.group_scale))
    return as_readings(z).numpy()[:, None], loc, scale


# Scores


@torch.no_grad()
def judge(row: Row, task: Task, seed: int, score: Score) -> None:
    """Fill in one kind and seed."""
    scores = score(task.test)
    row.auroc[task.kind, seed] = float(roc_auc_score(task.other, scores))
    threshold = np.quantile(scores[~task.other], QUANTILE)
    normal = task.test[torch.from_numpy(~task.other)]
    for pixels in (1, 2):
        for down, right in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            each = torch.ones(len(normal), dtype=torch.int64)
            moved = score(shifted(normal, each * down * pixels, each * right * pixels))
            row.alarms[pixels].append(float((moved > threshold).mean()))


def measure(
    name: str, models: Sequence[str], seeds: int, data: Path, pairs: Sequence[str]
) -> tuple[dict[str, Row], list[str]]:
    """A row for each scorer, and HTML of one page of error maps of the last seed."""
    rows: dict[str, Row] = defaultdict(Row)
    pages = []
    for task in tasks(*pictures(name, data)):
        judge(rows[YARDSTICK], task, 0, yardstick(task.train))
        for model in models:
            for seed in range(seeds):
                began = time.perf_counter()
                fitted = product(task.train, model, seed, pairs)
                rows[model].fit_s.append(time.perf_counter() - began)
                rows[model].models[fitted.manifest.model] += 1
                judge(rows[model], task, seed, scorer_of(fitted))
            pages.append(strip(f"{name} {task.kind}, {fitted.manifest.model}", task, fitted))
        print(f"{name} {task.kind} done", file=sys.stderr)
    return rows, pages


# Output


def table(name: str, rows: dict[str, Row]) -> Iterator[str]:
    """Lines of text."""
    kinds = sorted({kind for row in rows.values() for kind, _ in row.auroc})
    yield f"{name:16}{'mean':>7}{'±':>6} {''.join(f'{kind:>6}' for kind in kinds)}   1 px   2 px  fit s"
    for label, row in rows.items():
        seeds = sorted({seed for _, seed in row.auroc})
        means = [np.mean([row.auroc[kind, seed] for kind in kinds]) for seed in seeds]
        each = [np.mean([row.auroc[kind, seed] for seed in seeds]) for kind in kinds]
        alarms = "".join(f"{np.mean(row.alarms[pixels]):7.2f}" for pixels in (1, 2))
        fit_s = f"{np.mean(row.fit_s):7.2f}" if row.fit_s else ""
        columns = "".join(f"{value:6.3f}" for value in each)
        yield f"{label:16}{np.mean(means):7.4f}{np.std(means):6.4f} {columns}{alarms}{fit_s}"
        if label == DEFAULT:
            yield f"{'':16}chosen: {', '.join(f'{count} {model}' for model, count in row.models.most_common())}"


def strip(title: str, task: Task, model: Model) -> str:
    """Four normal test pictures and eight others: the picture, its reconstruction, its error map, its score."""
    normal, other = np.flatnonzero(~task.other), np.flatnonzero(task.other)
    chosen = np.concatenate([normal[:4], other[:: max(len(other) // 8, 1)][:8]])
    z = task.test[torch.from_numpy(chosen)]
    scorer, given = Scorer(model.graph, model.manifest.batching), as_given(z, model)
    score, error = scorer.score(*given)[0], scorer.map(*given)
    expected = as_images(torch.from_numpy(scorer.window(*given)[:, 0]), Frame(z.shape[2], z.shape[3], z.shape[1]))
    most = float(task.train.max())
    cells = []
    for i in range(len(chosen)):
        images = [_grey(z[i] / most), _grey(expected[i] / most), error_png(error[i], most=8.0)]
        tags = "<br>".join(f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">' for png in images)
        cells.append(f"<td>{tags}<br>{float(score[i]):.2f}</td>")
    return f"<h3>{title}: 4 normal, {len(chosen) - 4} of other kinds</h3><table><tr>{''.join(cells)}</tr></table>"


def _grey(image: Tensor) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray((image[0].clamp(0, 1) * 255).byte().numpy()).save(out, "PNG")
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="default,pca,conv,conv-vae")
    parser.add_argument("--sets", default="digits,fashion")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("RESIDUAL_DATA", "../shared/data"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs")
    flags = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pages = ["<style>img{width:84px;image-rendering:pixelated}td{text-align:center;font:12px sans-serif}</style>"]
    for name in flags.sets.split(","):
        rows, strips = measure(name, flags.models.split(","), flags.seeds, flags.data, flags.pairs)
        print("\n".join(table(name, rows)), flush=True)
        pages += strips
    if flags.page:
        flags.page.write_text("\n".join(pages), encoding="utf-8")


if __name__ == "__main__":
    main()
