"""How well image models tell one kind of picture from all others, and what a camera that trembles does to them.

    python tests/bench/images.py [--models pca,conv,vae] [--sets digits,fashion] [--seeds 3] [--data DIR] [--page FILE]
                                 [--still]

One kind is normal: a model is fitted on the first 42 % of its pictures, its normal error taken from the next 18 %, and
the rest of it is told from all pictures of all other kinds (area under ROC). No label is seen before that. ``plain``
is the mean squared error; ``score`` is the product's. Jitter: normal test pictures moved by one or two pixels in each
of eight directions, the share of them above the threshold that 5 % of the unmoved ones exceed. ``--page`` writes error
maps as HTML. ``--still``: nothing is moved in training, smoothed or forgiven in the score, to see what that is for.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import time
from collections import defaultdict
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

from detector.adapters.images import read_images  # noqa: E402
from detector.engine.pictures import error_png  # noqa: E402
from schemas.frame import Frame  # noqa: E402
from trainer.images.architecture import as_images  # noqa: E402
from trainer.images.augmentation import Augmentation, shifted  # noqa: E402
from trainer.images.autoencoder import ConvAutoencoder, VariationalConvAutoencoder  # noqa: E402
from trainer.images.score import PixelScore, Reduction, tolerance  # noqa: E402
from trainer.models.architecture import Size  # noqa: E402

TRAIN, FIT = 0.6, 0.7
#: One setting for every set.
STEPS, BATCH, RATE, DECAY, BETA = 1000, 32, 3e-3, 1e-4, 0.005
VARIANCE = 0.9
QUANTILE = 0.95
#: Pictures scored at once: what is more does not stay in the cache.
CHUNK = 64

Reconstruct = Callable[[Tensor], Tensor]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One kind of picture as the normal one; images ``[n, bands, H, W]`` scaled to [0, 1]."""

    kind: int
    fit: Tensor
    held_out: Tensor
    test: Tensor
    other: NDArray[np.bool_]
    """``[n]``: the test picture is of another kind."""


@dataclass
class Row:
    """Of one scorer: AUROC by kind and seed; share of jittered normal pictures above the threshold, by pixels moved."""

    auroc: dict[tuple[int, int], float] = field(default_factory=dict)
    alarms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    fit_s: list[float] = field(default_factory=list)


def pictures(name: str, data: Path) -> tuple[Tensor, NDArray[np.int64]]:
    """Images and their kinds."""
    if name == "digits":
        digits = load_digits()
        return torch.from_numpy(digits.images.astype(np.float32))[:, None] / 16, digits.target
    path = data / "images" / "fashion-mini900.npz"
    images = read_images([str(path)])
    with np.load(path) as arrays:
        kinds = arrays["y"].astype(np.int64)
    return as_images(torch.from_numpy(images.table.values), images.frame) / 255, kinds


def tasks(images: Tensor, kinds: NDArray[np.int64]) -> Iterator[Task]:
    """One for each kind, its pictures in their order."""
    for kind in np.unique(kinds).tolist():
        own = np.flatnonzero(kinds == kind)
        train = round(TRAIN * len(own))
        fit = round(FIT * train)
        test = np.concatenate([own[train:], np.flatnonzero(kinds != kind)])
        yield Task(kind, images[own[:fit]], images[own[fit:train]], images[test], kinds[test] != kind)


# Models


def fit_pca(fit: Tensor, seed: int, shift: int) -> Reconstruct:
    """Principal components of 90 % of the variance."""
    flat = fit.flatten(1).double()
    mean = flat.mean(0)
    _, spread, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    share = spread.square().cumsum(0) / spread.square().sum()
    kept = axes[: int((share < VARIANCE - 1e-12).sum()) + 1]
    return lambda z: (((z.flatten(1).double() - mean) @ kept.T @ kept) + mean).float().reshape(z.shape)


def fit_conv(fit: Tensor, seed: int, shift: int) -> Reconstruct:
    """The convolutional autoencoder."""
    torch.manual_seed(seed)
    return _descend(ConvAutoencoder(_frame(fit), Size()), fit, shift)


def fit_vae(fit: Tensor, seed: int, shift: int) -> Reconstruct:
    """The same with a distributed code."""
    torch.manual_seed(seed)
    return _descend(VariationalConvAutoencoder(_frame(fit), Size()), fit, shift)


def _frame(images: Tensor) -> Frame:
    return Frame(images.shape[2], images.shape[3], images.shape[1])


def _descend(network: ConvAutoencoder, fit: Tensor, shift: int) -> Reconstruct:
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    augment = Augmentation(shift)
    for _ in range(STEPS):
        z = augment(fit[torch.randint(0, len(fit), (BATCH,))])  # [b, bands, H, W]
        if isinstance(network, VariationalConvAutoencoder):
            expected, divergence = network.sample(z)
            loss = (expected - z).square().mean() + 2 * BETA / z[0].numel() * divergence.mean()
        else:
            loss = (network(z) - z).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


FITS: dict[str, Callable[[Tensor, int, int], Reconstruct]] = {"pca": fit_pca, "conv": fit_conv, "vae": fit_vae}


# Scores


def plain(reconstruct: Reconstruct) -> Callable[[Tensor], Floats]:
    """Mean squared error."""
    return lambda z: (z - reconstruct(z)).square().flatten(1).mean(1).double().numpy()


def product(task: Task, reconstruct: Reconstruct, still: bool) -> Callable[[Tensor], Floats]:
    """As the product scores."""
    scorer = scorer_of(task, reconstruct, still)
    return lambda z: torch.cat([scorer(part, reconstruct(part))[0] for part in z.split(CHUNK)]).double().numpy()


def scorer_of(task: Task, reconstruct: Reconstruct, still: bool) -> PixelScore:
    """The normal error from the pictures held out."""
    reduction = Reduction(blur=0, reach=0) if still else Reduction(reach=tolerance(_frame(task.fit)))
    return PixelScore(reduction, reduction.maps(task.held_out, reconstruct(task.held_out)).mean(0))


@torch.no_grad()
def judge(row: Row, task: Task, seed: int, score: Callable[[Tensor], Floats]) -> None:
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


def measure(name: str, models: Sequence[str], seeds: int, data: Path, still: bool) -> tuple[dict[str, Row], list[str]]:
    """A row for each scorer, and HTML of one page of error maps of the last seed."""
    rows: dict[str, Row] = defaultdict(Row)
    pages = []
    for task in tasks(*pictures(name, data)):
        shift = 0 if still else tolerance(_frame(task.fit))
        kept: dict[tuple[str, int], Callable[[Tensor], Floats]] = {}
        for model in models:
            for seed in range(1 if model == "pca" else seeds):
                began = time.perf_counter()
                reconstruct = FITS[model](task.fit, seed, shift)
                fit_s = time.perf_counter() - began
                with torch.no_grad():
                    kept[model, seed] = product(task, reconstruct, still)
                    for label, score in {"plain": plain(reconstruct), "score": kept[model, seed]}.items():
                        rows[f"{model} {label}"].fit_s.append(fit_s)
                        judge(rows[f"{model} {label}"], task, seed, score)
            if model != "pca":
                pages.append(strip(f"{name} {task.kind}, {model}", task, reconstruct, still))
        for model, seed in kept:
            if model != "pca" and ("pca", 0) in kept:
                both = (kept["pca", 0], kept[model, seed])
                judge(rows[f"pca+{model} score"], task, seed, lambda z, both=both: both[0](z) + both[1](z))
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


@torch.no_grad()
def strip(title: str, task: Task, reconstruct: Reconstruct, still: bool) -> str:
    """Four normal test pictures and eight others: the picture, its reconstruction, its error map."""
    normal, other = np.flatnonzero(~task.other), np.flatnonzero(task.other)
    chosen = np.concatenate([normal[:4], other[:: max(len(other) // 8, 1)][:8]])
    z = task.test[torch.from_numpy(chosen)]
    expected = reconstruct(z)
    score, error = scorer_of(task, reconstruct, still)(z, expected)
    cells = []
    for i in range(len(chosen)):
        images = [_grey(z[i]), _grey(expected[i]), error_png(error[i].numpy(), most=8.0)]
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
    parser.add_argument("--models", default="pca,conv,vae")
    parser.add_argument("--sets", default="digits,fashion")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("RESIDUAL_DATA", "../shared/data"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--still", action="store_true")
    flags = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pages = ["<style>img{width:84px;image-rendering:pixelated}td{text-align:center;font:12px sans-serif}</style>"]
    for name in flags.sets.split(","):
        rows, strips = measure(name, flags.models.split(","), flags.seeds, flags.data, flags.still)
        print("\n".join(table(name, rows)), flush=True)
        pages += strips
    if flags.page:
        flags.page.write_text("\n".join(pages), encoding="utf-8")


if __name__ == "__main__":
    main()
