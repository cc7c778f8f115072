"""Which generator is kept: the one that is told from measured data least, of those that are of use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError, ResidualError
from trainer.synthesis.gaussian import Gaussian
from trainer.synthesis.quality import Quality, faults_of_quality, judge
from trainer.synthesis.settings import SynthSettings

Floats = NDArray[np.float32]

#: Windows, or images, of each kind below which nothing can be compared.
LEAST = 100


def check_enough(known: Floats, real: Floats, what: str) -> None:
    """Raises DataError where there is too little to compare. ``known`` was learned from, ``real`` was not."""
    count = min(len(known), len(real))
    if count < LEAST:
        raise DataError(f"too few {what} to compare: {count}; {LEAST} are needed at least: take more data")


def chosen(
    made: Mapping[str, Floats], known: Floats, real: Floats, settings: SynthSettings, say: Callable[[str], None]
) -> tuple[str, dict[str, Quality], dict[str, Floats]]:
    """(its name, the measures of every row, the windows of every row that is made) of windows ``[N, W, C]``.

    Raises ResidualError where the one that is wanted is of no use.
    """
    drawn = {"gaussian": Gaussian.of(known).drawn(len(real), settings.seed), **made}
    quality = {"real": judge(known, real, known, settings.seed, whole=False)}
    for name, windows in drawn.items():
        say(f"compares what {name} makes with what was measured")
        quality[name] = judge(windows, real, known, settings.seed)
    name = _better(quality) if settings.model == "auto" else settings.model
    refused = faults_of_quality(quality[name], quality["real"])
    if refused:
        raise ResidualError(f"the generator is of no use ({name}): {'; '.join(refused)}: nothing was written")
    say(f"the generator is the {name}")
    return name, quality, drawn


def _better(quality: Mapping[str, Quality]) -> str:
    names = [name for name in ("gan", "vae") if name in quality]
    fit = [name for name in names if not faults_of_quality(quality[name], quality["real"])] or names
    return min(fit, key=lambda name: quality[name].discriminative)
