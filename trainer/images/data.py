"""Training data of images: one log of them becomes a part for the weights and one for the threshold.

Per stream, in time order: fit | validation | calibration, as for sensors. Nothing is copied: images are large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.images import Images, read_images
from detector.engine.assembly import judge
from detector.engine.readings import at_once
from detector.engine.scorer import IMAGE_SHARE
from detector.engine.segments import Segments
from schemas.errors import DataError
from schemas.frame import Frame
from schemas.manifest import Season
from schemas.moment import SECOND_NS
from trainer.data import Given, rows_by_stream, split_times, topic_of
from trainer.settings import FitSettings
from trainer.source import SourceSettings

#: Images, of all parts together, below which no model is worth its name.
LEAST_IMAGES = 30

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some of the images, by their rows in the log."""

    data: PreparedImages
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self, chosen: Ints | slice) -> Given:
        """Images as the graph is given them: ``x`` ``[b, 1, V]``, ``loc`` and ``scale`` ``[b, bands]``."""
        rows = self.rows[chosen]
        return Given(self.data.table.values[rows][:, None], *self.data.scaling(len(rows)), None)

    def scaled(self, chosen: Ints | slice) -> Floats:
        """Images ``[b, V]`` scaled to about [0, 1], 0 where a pixel is missing."""
        z = (self.data.table.values[self.rows[chosen]] - self.data.low) / self.data.span
        return np.where(np.isnan(z), np.float32(0), z)

    def batches(self, size: int = 256) -> Iterator[slice]:
        """Slices that cover all images in order, of as many as fit into memory easily."""
        size = at_once(size, IMAGE_SHARE * self.data.frame.values)
        return (slice(at, at + size) for at in range(0, len(self.rows), size))


@dataclass(frozen=True)
class PreparedImages:
    """The images of S streams and what each is for; values are scaled as ``(x - low) / span``."""

    frame: Frame
    table: Table
    names: tuple[str, ...]
    interval_ns: int
    low: np.float32
    span: np.float32
    fit_rows: Ints
    validation_rows: Ints
    calibration_rows: Ints
    calibration_start: Ints
    """``[S]``, ns: images from here on are of the calibration stretch."""

    window: ClassVar[int] = 1
    season: ClassVar[Season | None] = None

    def scaling(self, count: int) -> tuple[Floats, Floats]:
        """``loc`` and ``scale`` of ``count`` images or streams, ``[count, bands]`` each: the same for all."""
        each = np.ones((count, self.frame.bands), np.float32)
        return self.low * each, self.span * each

    @property
    def fit(self) -> Part:
        """What the weights are fitted on."""
        return Part(self, self.fit_rows)

    @property
    def validation(self) -> Part:
        """What shows how the fit goes."""
        return Part(self, self.validation_rows)

    @property
    def calibration(self) -> Part:
        """What says which error is normal, and sets the threshold."""
        return Part(self, self.calibration_rows)


def load_images(sources: Sequence[str], settings: SourceSettings) -> Images:
    """The images of files and folders, or of one Kafka topic written as ``kafka://HOST:PORT/TOPIC``."""
    topic = topic_of(sources)
    if topic is None:
        return read_images(sources, settings.stream)
    from detector.adapters.kafka_security import client_settings  # here: files need no Kafka client
    from detector.history import read_image_topic

    frame = Frame(*map(int, settings.frame.split("x"))) if settings.frame else None
    client = client_settings(settings)
    return read_image_topic(*topic, settings.span, frame, timeout_s=settings.startup_timeout, client=client)


def prepare_images(images: Images, settings: FitSettings) -> PreparedImages:
    """The parts and the scaling. Raises DataError where there is too little."""
    table = images.table
    by_stream = rows_by_stream(table)
    parts: tuple[list[Ints], list[Ints], list[Ints]] = ([], [], [])
    starts = np.empty(len(by_stream), np.int64)
    steps: list[float] = []
    for index, rows in enumerate(by_stream.values()):
        times = table.times[rows]
        accepted = judge(Segments.of(np.zeros(len(rows), np.int64)), times, np.array([-1])).accepted
        rows, times = rows[accepted], times[accepted]  # late ones and duplicates are not scored either
        validation, starts[index] = split_times(times, settings)
        part = np.searchsorted([validation, starts[index]], times, side="right")
        for number, chosen in enumerate(parts):
            chosen.append(rows[part == number])
        steps += [float(np.median(np.diff(times)))] if len(times) > 1 else []
    fit, validation_rows, calibration = (np.concatenate(rows) for rows in parts)
    total = len(fit) + len(validation_rows) + len(calibration)
    if total < LEAST_IMAGES or not len(fit):
        raise DataError(
            f"{total} of {len(table)} images can be used, {len(fit)} of them to fit (some may repeat a time): "
            f"{LEAST_IMAGES} are needed at least, and some hundreds to know what is normal"
        )
    low, span = _range(table.values, fit)
    interval = round(float(np.median(steps))) if steps else SECOND_NS
    return PreparedImages(
        images.frame, table, tuple(by_stream), max(interval, 1), low, span, fit, validation_rows, calibration, starts
    )


def _range(values: Floats, rows: Ints) -> tuple[np.float32, np.float32]:
    """The least value, and how far above it the largest is: one pair for all, or dark pictures would be lit up."""
    low, high = np.inf, -np.inf
    size = at_once(256, values.shape[1])
    for at in range(0, len(rows), size):
        part = values[rows[at : at + size]]
        low = min(low, float(np.fmin.reduce(part, axis=None, initial=np.inf)))
        high = max(high, float(np.fmax.reduce(part, axis=None, initial=-np.inf)))
    if not low <= high:
        raise DataError("the images hold no pixel with a value")
    return np.float32(low), np.float32(high - low if high > low else max(abs(low), 1.0))
