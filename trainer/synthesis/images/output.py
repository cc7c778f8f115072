"""Made images as one ``.npz``, as the trainer and the detector read it, and what is wrong with them beside it."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from detector.adapters.aside import aside, aside_bytes
from schemas.errors import UserError
from trainer.synthesis.images.feed import ImageFeed
from trainer.synthesis.images.records import fit_bytes
from trainer.synthesis.planted import text_of

#: Numbers in one file, at most: 4 GiB of them.
MOST_VALUES = 1 << 30


def write_images(feed: ImageFeed, count: int, out: str, truth: str | None) -> tuple[int, int]:
    """``count`` images of each stream, in the order of time; returns how many should have a fault, and how many have.

    Raises UserError where they cannot be written, or are too many.
    """
    manifest = feed.manifest
    if not out.lower().endswith(".npz"):
        raise UserError(f"{out}: images are written as one .npz: name a file that ends so")
    if len(feed.names) * count * manifest.frame.values > MOST_VALUES:
        most = MOST_VALUES // (len(feed.names) * manifest.frame.values)
        raise UserError(
            f"{count} images of {len(feed.names)} streams are too many for one file: ask for {most} at most"
        )
    stretches = list(feed.of_all(count))
    x = np.concatenate([stretch.values.swapaxes(0, 1) for stretch in stretches]).reshape(-1, *manifest.frame)
    times = np.concatenate([stretch.times for stretch in stretches])
    told = [one for stretch in stretches for one in stretch.told]
    with ExitStack() as stack:
        file = stack.enter_context(aside_bytes(out))
        np.savez_compressed(
            file, x=x.astype(np.uint8) if fit_bytes(manifest) else x, stream=np.tile(feed.names, count),
            timestamp=np.repeat(times, len(feed.names)).astype("datetime64[ns]"),
        )  # fmt: skip
        if truth is not None:
            stack.enter_context(aside(truth)).write(text_of(told))
    return sum(stretch.asked for stretch in stretches), len(told)
