"""How good made images are: handwritten digits, each a group of its own; and whether a detector can learn from them.

    python tests/bench/synthesis_images.py [--seeds 1] [--model pca] [--sheets DIR] [--set steps=2500]

The digits are those of scikit-learn, 1,797 images of 8×8; every third of some stretches is held out. After the table of
measures, one-class detection: for each digit a model learns from real images of it, another from made ones alone, and
each tells held-out images of it from those of all other digits. Area under the ROC curve, mean over digits; wanted is a
difference of at most .03.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from detector.adapters.files import Table  # noqa: E402
from detector.adapters.images import Images, read_images  # noqa: E402
from detector.engine.scorer import Scorer  # noqa: E402
from trainer.images.pipeline import learn_images  # noqa: E402
from trainer.settings import FitSettings  # noqa: E402
from trainer.synthesis.images.page import sheet  # noqa: E402
from trainer.synthesis.images.pipeline import FittedImages, fit_image_generator  # noqa: E402
from trainer.synthesis.images.sampler import ImageSampler  # noqa: E402
from trainer.synthesis.page import ROWS  # noqa: E402
from trainer.synthesis.pipeline import split  # noqa: E402
from trainer.synthesis.settings import SynthSettings  # noqa: E402

Floats = NDArray[np.float32]

DIGITS = 10


def digits() -> Images:
    """Each digit a stream."""
    found = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        streams = np.array([f"digit-{digit}" for digit in found.target])
        np.savez(path, x=found.images.astype(np.uint8), stream=streams)
        return read_images([str(path)])


def area(images: Images, learned: Floats, held_out: Table, digit: int, settings: FitSettings) -> float:
    """Of a model that learned from images of one digit ``[n, V]``."""
    n = len(learned)
    times = np.arange(n, dtype=np.int64) * 10**9
    table = Table([f"digit-{digit}"] * n, times, learned, [""] * n, images.table.channels)
    model = learn_images(Images(images.frame, table), settings).model
    scorer = Scorer(model.graph, model.manifest.batching)
    count = len(held_out)
    loc, scale = (np.repeat(own[None], count, axis=0) for own in (model.streams.group_loc, model.streams.group_scale))
    score, _, _ = scorer.score(held_out.values[:, None], loc, scale)
    return float(roc_auc_score(np.array(held_out.streams) != f"digit-{digit}", score))


def detection(images: Images, fitted: FittedImages, settings: FitSettings, seed: int) -> tuple[float, float]:
    """(learned from real images, learned from made ones), means over digits."""
    learned, held_out = split(images.table)
    sampler = ImageSampler(fitted.recipe, seed + 100)
    areas = []
    for digit in range(DIGITS):
        own = learned.values[np.array(learned.streams) == f"digit-{digit}"]
        group = fitted.recipe.manifest.groups.index(f"digit-{digit}")
        _, made = sampler.images(digit, group, 0, 2 * len(own))
        pair = tuple(area(images, x, held_out, digit, settings) for x in (own, made.reshape(len(made), -1)))
        print(f"  digit {digit}: real {pair[0]:.3f}, made {pair[1]:.3f}", flush=True)
        areas.append(pair)
    return statistics.fmean(real for real, _ in areas), statistics.fmean(made for _, made in areas)


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="pca", help="of the detector: pca, conv, conv-vae")
    parser.add_argument("--sheets", type=Path, help="folder for a PNG of each row's images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs")
    chosen = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in chosen.pairs)
    images = digits()
    groups = ";".join(f"digit-{digit}" for digit in range(DIGITS))
    for seed in range(chosen.seeds):
        settings = SynthSettings.load({"groups": groups, **given, "seed": seed})
        fitted = fit_image_generator(images, settings, lambda line: print(f"  {line}", flush=True))
        for row in ROWS:
            if (q := fitted.recipe.manifest.quality.get(row)) is not None:
                print(
                    f"seed {seed} {ROWS[row]:20} told apart {q.discriminative:.3f}  MMD² {q.mmd:.4f}  precision "
                    f"{q.precision:.3f}  recall {q.recall:.3f}  nearest {q.nearest:.2f}  copied {q.copied:.3f}"
                )
        if chosen.sheets is not None:
            for row, own in fitted.sheets.items():
                (chosen.sheets / f"{seed}-{row}.png").write_bytes(sheet(own, fitted.recipe.pixels))
        fit = FitSettings.load({"model": chosen.model, "seed": seed})
        real, made = detection(images, fitted, fit, seed)
        print(
            f"seed {seed}: one-class detection, learned from real images {real:.3f}, from made ones {made:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
