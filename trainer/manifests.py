"""The manifest of a model that was just fitted: what it was fitted on, and how."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detector.adapters.files import Table
from detector.engine.calibration import FLOOR
from detector.engine.model import Model
from schemas.frame import Frame
from schemas.manifest import Batching, Calibration, Channel, Manifest, Suspect, Training
from schemas.moment import SECOND_NS, format_time
from schemas.promise import DAY_S, Promise
from trainer.calibrate import Calibrated, Split
from trainer.data import fingerprint, rows_by_stream
from trainer.fit import Curve
from trainer.sensors import silent_after
from trainer.settings import FitSettings

#: Episodes that look like faults and are named.
SUSPECTS = 10

#: Distributions whose versions may change a model.
MAKERS = ("residual", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


def draft_manifest(
    table: Table,
    data: Split,
    channels: Sequence[Channel],
    settings: FitSettings,
    curve: Curve,
    batching: Batching,
    onnx_bytes: bytes,
    parity: float,
    *,
    score: str,
    frame: Frame | None = None,
) -> Manifest:
    """The manifest of a model that is not calibrated: its thresholds are 1, scores of it are raw."""
    metrics = {"fit_loss": curve.fit[curve.best], "validation_loss": curve.validation[curve.best], "parity": parity}
    return Manifest(
        model=settings.model,
        group=settings.group,
        channels=tuple(channels),
        frame=frame,
        window=data.window,
        interval_s=data.interval_ns / SECOND_NS,
        silent_after_s=_silent_after(table, data.interval_ns),
        off_when=settings.off_when,
        settle_s=settings.settle,
        season=data.season,
        score=score,
        smoothing_span=settings.smoothing_span,
        batching=batching,
        calibration=Calibration(
            false_alarms=settings.false_alarms,
            rate=Promise.parse(settings.false_alarms).per_day(len(data.names)),
            readings=0,
            threshold=1.0,
            floor=FLOOR,
        ),
        training=Training(
            start=format_time(int(table.times.min())),
            end=format_time(int(table.times.max())),
            readings=len(table),
            streams=len(data.names),
            calibration_start=format_time(int(data.calibration_start.min())),
            data_sha256=fingerprint(table),
            seed=settings.seed,
        ),
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        graph_sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        made_with=versions(),
    )


def _silent_after(heard: Table, interval_ns: int) -> float:
    return silent_after((heard.times[rows] for rows in rows_by_stream(heard).values()), interval_ns)


def with_pauses(model: Model, heard: Table) -> Model:
    """The model that knows of streams' pauses from all their readings, whatever was learned of them."""
    silent_after_s = _silent_after(heard, round(model.manifest.interval_s * SECOND_NS))
    return replace(model, manifest=model.manifest.model_copy(update={"silent_after_s": silent_after_s}))


def finished(draft: Model, calibrated: Calibrated) -> Model:
    """The model with its thresholds."""
    calibration = draft.manifest.calibration.model_copy(update=_of_tail(calibrated, draft.streams.names))
    streams = replace(
        draft.streams,
        threshold=calibrated.threshold,
        factor=calibrated.factor,
        tail=calibrated.fitted.tail,
        tail_score=calibrated.tail_score,
        tail_p=calibrated.tail_p,
    )
    metrics = {**draft.manifest.metrics, "median_score": float(np.median(calibrated.score))}  # raw
    manifest = draft.manifest.model_copy(update={"calibration": calibration, "metrics": metrics})
    return Model(manifest, draft.graph, streams)


def suspects(calibrated: Calibrated, names: Sequence[str]) -> tuple[Suspect, ...]:
    """The worst of the episodes that look like faults."""
    peaks, worst = calibrated.peaks, calibrated.order[calibrated.fitted.suspect][:SUSPECTS]
    return tuple(
        Suspect(
            stream=names[peaks.stream[at]],
            time=format_time(int(peaks.time[at])),
            score=float(f"{peaks.strength[at] / calibrated.threshold[peaks.stream[at]]:.4g}"),
        )
        for at in worst
    )


def _of_tail(calibrated: Calibrated, names: Sequence[str]) -> dict[str, object]:
    """What the manifest says of the tail."""
    fitted, band = calibrated.fitted, calibrated.band
    return {
        "readings": len(calibrated.score),
        "threshold": calibrated.group,
        "method": fitted.method(calibrated.rate),
        "days": fitted.days,
        "share": min(float(f"{calibrated.share:.4g}"), 1.0),
        "peaks": len(fitted.level),
        "shape": fitted.fit.shape,
        "scale": fitted.fit.scale,
        "reach_s": DAY_S / float(fitted.rate[0]),
        "interval": band and (float(band.least[0]), float(band.most[0])),
        "suspected": int(fitted.suspect.sum()),
        "suspects": suspects(calibrated, names),
    }


def single(value: np.float32) -> float | None:
    """The shortest decimal that is this 32-bit number; None where nothing was observed."""
    return None if np.isnan(value) else float(str(value))


def versions() -> dict[str, str]:
    """Versions of what made the model, by name."""
    found = {"python": platform.python_version()}
    for name in MAKERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # one of the two builds of ONNX Runtime
            continue
    return found
