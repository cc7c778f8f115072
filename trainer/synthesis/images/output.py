"""Made images as one ``.npz``, as the trainer and the detector read it, and what is wrong with them beside it."""

from __future__ import annotations

import csv
from contextlib import ExitStack

import numpy as np

from detector.adapters.aside import aside, aside_bytes
from schemas.errors import UserError
from schemas.moment import format_time
from trainer.synthesis.feed import name_of
from trainer.synthesis.images.sampler import ImageSampler, spoil_images
from trainer.synthesis.planted import COLUMNS, Faults

#: Numbers in one file, at most: 4 GiB of them.
MOST_VALUES = 1 << 30


def write_images(
    sampler: ImageSampler, each: int, count: int, start_ns: int, faults: Faults | None, out: str, truth: str | None
) -> int:
    """``count`` images of ``each`` streams of every group, in the order of time; returns how many have a fault.

    Raises UserError where they cannot be written, or are too many.
    """
    manifest = sampler.recipe.manifest
    if not out.lower().endswith(".npz"):
        raise UserError(f"{out}: images are written as one .npz: name a file that ends so")
    names = [name_of(pattern, n, each) for pattern in manifest.groups for n in range(each)]
    if len(names) * count * manifest.frame.values > MOST_VALUES:
        most = MOST_VALUES // (len(names) * manifest.frame.values)
        raise UserError(f"{count} images of {len(names)} streams are too many for one file: ask for {most} at most")
    parts, told = [], []
    for number, name in enumerate(names):
        times, images = sampler.images(number, number // each, start_ns, count)
        if faults is not None:
            images, found = spoil_images(sampler.recipe, images, faults, number)
            told += [(int(times[one.place]), name, one.kind) for one in found]
        parts.append(images)
    x = np.stack(parts, axis=1).reshape(-1, *manifest.frame)
    whole = manifest.whole and manifest.low >= 0 and manifest.high <= 255
    with ExitStack() as stack:
        file = stack.enter_context(aside_bytes(out))
        np.savez_compressed(
            file, x=x.astype(np.uint8) if whole else x, stream=np.tile(names, count),
            timestamp=np.repeat(times, len(names)).astype("datetime64[ns]"),
        )  # fmt: skip
        if truth is not None:
            lines = csv.writer(stack.enter_context(aside(truth)), lineterminator="\n")
            lines.writerow(COLUMNS)
            lines.writerows((name, kind, *[format_time(at)] * 2, "", "") for at, name, kind in sorted(told))
    return len(told)
