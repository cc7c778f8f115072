"""Progress of long work: a bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

#: Seconds between lines in a log.
LINE_S = 10.0

T = TypeVar("T")


def progress(batches: Iterable[T], total: int, size: int, what: str) -> Iterator[T]:
    """Hand the batches on, ``size`` things in each of ``total`` in all, and say how far it has come."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=" readings", unit_scale=True) as bar:
            for batch in batches:
                yield batch
                bar.update(size)
        return
    said = time.monotonic()
    for number, batch in enumerate(batches):
        yield batch
        if time.monotonic() - said >= LINE_S:
            said = time.monotonic()
            log.info("%s: %d of %d readings", what, min((number + 1) * size, total), total)
