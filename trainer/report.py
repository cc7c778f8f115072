"""report.json: what the report of a model shows beyond what the model folder holds anyway."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from detector.adapters.files import Table
from detector.engine.model import Model
from schemas.frozen import Frozen
from schemas.moment import SECOND_NS
from schemas.promise import DAY_S
from schemas.security import Security
from trainer.calibrate import Calibrated
from trainer.data import Prepared, rows_by_stream
from trainer.detectability.result import Detectability
from trainer.fit import Curve
from trainer.images.architecture import ImageAutoencoder
from trainer.images.data import PreparedImages
from trainer.images.pictured import Pictured, image_codes, pictured
from trainer.latent import Decoded, Latent, latent_space
from trainer.models import Architecture
from trainer.settings import FitSettings
from trainer.stretch import fared, mean_error
from trainer.worst import Worst, worst_places, worst_windows

DATA_FILE = "report.json"

#: Streams whose scores are drawn: those that came nearest to the threshold.
DRAWN = 6
#: Points of a drawn line: about one per pixel; each is the largest score of its span, so that no peak is lost.
POINTS = 1200
#: Peaks of episodes that are drawn: the largest, and fewer and fewer of the others.
PEAKS = 400
#: Streams that are listed.
LISTED = 50


class Line(Frozen):
    """Scores of one stream over its calibration stretch."""

    stream: str
    times: list[float]
    """Seconds since 1970."""
    scores: list[float]
    """In thresholds."""


class StreamRow(Frozen):
    """One stream in the table; None: not measured, or nothing to measure. Scores are in thresholds."""

    name: str
    readings: int
    scores: int
    threshold: float
    factor: float
    """By which the group's tail is stretched for it."""
    median: float | None = None
    largest: float | None = None
    above: float | None = None
    """Share of the scores of its calibration stretch above 1."""
    episodes: float | None = None
    """Incidents that the detector would have opened there, a day."""
    error: float | None = None
    """Mean absolute error of the newest reading over the channels, in spreads."""


class ReturnLevels(Frozen):
    """How often normal data reach which level: what was seen, and how sure the tail is. Levels in thresholds."""

    period_s: list[float]
    """Return periods of the peaks that are drawn, those of the largest first."""
    level: list[float]
    suspect: list[bool]
    """Looks like a fault."""
    band_s: list[float]
    """Return periods of the band; empty: there is none."""
    least: list[float]
    most: list[float]


class Report(Frozen):
    """What the page shows beyond what the model folder holds anyway."""

    settings: dict[str, str | float | int | None]
    fit_loss: list[float | None]
    validation_loss: list[float | None]
    best: int
    windows: dict[str, int]
    lines: list[Line]
    streams: list[StreamRow]
    usual_error: list[float]
    """Root mean square error of each channel on held-out normal data, scaled units."""
    above: int
    warnings: list[str]
    # what older folders lack
    parameters: int | None = None
    """Numbers that were learned."""
    returns: ReturnLevels | None = None
    worst: list[Worst] = Field(default_factory=list)
    """Windows with the largest scores, the largest first."""
    latent: Latent | None = None
    decoded: Decoded | None = None
    detectability: Detectability | None = None
    """What it can see of planted faults."""
    # of images only
    pictures: list[Pictured] = Field(default_factory=list)
    grid: list[list[str]] | None = None
    """Pictures decoded from codes on the two axes: PNG in base64, by the second axis, the first."""


class Divided(Protocol):
    """Data divided into stretches."""

    @property
    def names(self) -> tuple[str, ...]:
        """S streams."""

    @property
    def interval_ns(self) -> int:
        """Between readings."""

    @property
    def fit(self) -> Sized:
        """What the weights were fitted on."""

    @property
    def validation(self) -> Sized:
        """What said when to stop."""

    @property
    def calibration(self) -> Sized:
        """What set the threshold."""


def _as_told(settings: FitSettings) -> dict[str, str | float | int | None]:
    """The settings as somebody would write them, without those of connections."""
    told = settings.model_dump(exclude=set(Security.model_fields))
    return {k: ";".join(v) if isinstance(v, tuple) else v for k, v in told.items() if v is not None}


def collect(
    table: Table,
    data: Divided,
    curve: Curve,
    calibrated: Calibrated,
    mean_square: NDArray[np.float32],
    settings: FitSettings,
    parameters: int | None = None,
) -> Report:
    """What the report of a model shows; ``mean_square`` ``[C]``: of held-out normal data, scaled units."""
    score = calibrated.score / calibrated.threshold[calibrated.stream]
    counts = np.bincount(calibrated.stream, minlength=len(data.names))
    rows = [len(rows) for rows in rows_by_stream(table).values()]
    peak = np.full(len(data.names), -np.inf)
    np.maximum.at(peak, calibrated.stream, score)
    stretch = fared(calibrated, len(data.names), data.interval_ns)
    drawn = [s for s in np.argsort(-peak, kind="stable")[:DRAWN] if counts[s]]
    return Report(
        # how data came here is no part of the model, and whoever reads the report need not know it
        settings=_as_told(settings),
        fit_loss=[_finite(v) for v in curve.fit],
        validation_loss=[_finite(v) for v in curve.validation],
        best=curve.best,
        windows={"fit": len(data.fit), "validation": len(data.validation), "calibration": len(data.calibration)},
        lines=[
            _line(data.names[s], calibrated.times[calibrated.stream == s], score[calibrated.stream == s]) for s in drawn
        ],
        streams=[
            StreamRow(
                name=name, readings=rows[s], scores=int(counts[s]), threshold=float(calibrated.threshold[s]),
                factor=float(f"{calibrated.factor[s]:.5g}"), median=_rounded(stretch.median[s]),
                largest=_rounded(stretch.largest[s]), above=_rounded(stretch.above[s]),
                episodes=_rounded(stretch.episodes[s]),
            )
            for s, name in enumerate(data.names[:LISTED])
        ],
        usual_error=[float(f"{v:.5g}") for v in np.sqrt(mean_square)],
        above=int((score > 1).sum()),
        warnings=calibrated.warnings,
        parameters=parameters,
        returns=_returns(calibrated),
    )  # fmt: skip


def _returns(calibrated: Calibrated) -> ReturnLevels:
    fitted, band = calibrated.fitted, calibrated.band
    size = len(fitted.level)
    drawn = np.arange(size) if size <= PEAKS else np.unique(np.geomspace(1, size, PEAKS).astype(np.int64)) - 1
    order = np.argsort([] if band is None else -band.rates)
    none = np.empty(0)
    return ReturnLevels(
        period_s=_short(DAY_S / fitted.rate[drawn]),
        level=_short(fitted.level[drawn] / calibrated.group),
        suspect=fitted.suspect[drawn].tolist(),
        band_s=_short(none if band is None else DAY_S / band.rates[order]),
        least=_short(none if band is None else band.least[order] / calibrated.group),
        most=_short(none if band is None else band.most[order] / calibrated.group),
    )


def of_sensors(
    report: Report, model: Model, network: Architecture, table: Table, data: Prepared, calibrated: Calibrated
) -> Report:
    """The report with what only windows of sensors have: each stream's error, the worst windows, the codes."""
    errors = mean_error(model, data, len(report.streams))
    places = worst_places(table, data, calibrated)
    rows = np.array([place.row for place in places], np.int64)
    latent, decoded = latent_space(network, model.manifest.model, data, rows)
    return report.model_copy(
        update={
            "streams": [
                row.model_copy(update={"error": _rounded(error)})
                for row, error in zip(report.streams, errors, strict=True)
            ],
            "worst": worst_windows(model, data, calibrated, places),
            "latent": latent,
            "decoded": decoded,
        }
    )


def of_images(
    report: Report, model: Model, network: ImageAutoencoder, data: PreparedImages, calibrated: Calibrated
) -> Report:
    """The report with what only images have."""
    latent, grid = image_codes(network, model.manifest.model, data)
    return report.model_copy(update={"pictures": pictured(model, data, calibrated), "latent": latent, "grid": grid})


def _short(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _line(stream: str, times: NDArray[np.int64], score: NDArray[np.float64]) -> Line:
    order = np.argsort(times, kind="stable")
    cuts = np.unique(np.linspace(0, len(order), POINTS + 1).astype(np.int64)[:-1])
    times, score = times[order][cuts], np.maximum.reduceat(score[order], cuts)
    seconds = (times / SECOND_NS).round(3).tolist()
    return Line(stream=stream, times=seconds, scores=[float(f"{value:.5g}") for value in score])
