"""From images to a model: the steps of ``trainer.pipeline`` for a window of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from detector.adapters.folder import read_model
from detector.adapters.images import Images
from detector.engine.model import Model, StreamValues
from detector.engine.readings import at_once
from detector.engine.scorer import IMAGE_SHARE
from schemas.errors import SettingsError
from schemas.manifest import Channel
from trainer.calibrate import calibrate
from trainer.export import gate, image_to_onnx
from trainer.fit import Curve
from trainer.images.architecture import ImageAutoencoder
from trainer.images.augmentation import read_region
from trainer.images.data import PreparedImages, prepare_images
from trainer.images.fit import DEFAULTS, IMAGE_MODELS, band_error, fit_images, normal_error, shift_of
from trainer.images.graph import ImageGraph
from trainer.images.score import PixelScore, Reduction
from trainer.images.selection import LEAST_GAIN, ImageRehearsal, image_mflop
from trainer.manifests import draft_manifest, finished, single
from trainer.pipeline import Learned
from trainer.report import collect, of_images
from trainer.selection import TIMED, Trial, choose, microseconds, parameters
from trainer.settings import AUTO, SENSORS_ONLY, FitSettings
from trainer.warm import read_ancestor, weights_of


@dataclass(frozen=True)
class ImageDraft:
    """A fitted and exported model that is not calibrated yet."""

    model: Model
    network: ImageAutoencoder
    data: PreparedImages
    curve: Curve
    settings: FitSettings
    fit_s: float


#: What is tried where no model is named, the baseline first.
CANDIDATES = ("pca", "conv", "conv-vae")


def learn_images(images: Images, settings: FitSettings, say: Callable[[str], None] = lambda _: None) -> Learned:
    """Fit, export, check and calibrate; ``say`` gets a line per step. Raises as ``trainer.pipeline.learn``."""
    settings = _for_images(settings)
    data = prepare_images(images, settings)
    say(
        f"{len(images.table)} images of {data.frame} of {len(data.names)} streams: {len(data.fit)} to fit, "
        f"{len(data.validation)} to validate, {len(data.calibration)} to calibrate"
    )
    make = chosen if settings.model == AUTO else drafted
    draft = make(data, settings, say)
    calibrated = calibrate(draft.model, data.table, data, settings.false_alarms)
    model = finished(draft.model, calibrated)
    say(f"calibrated on {len(calibrated.score)} scores: raw {calibrated.group:.4g} counts as 1")
    mean_square = band_error(draft.network, data.calibration)
    size = parameters(draft.network)
    report = collect(data.table, data, draft.curve, calibrated, mean_square, draft.settings, size)
    report = of_images(report, model, draft.network, data, calibrated)
    return Learned(model, report, weights_of(draft.network), calibrated.warnings)


def _for_images(settings: FitSettings) -> FitSettings:
    """With what images take where the user named nothing else."""
    settings.refuse(SENSORS_ONLY, "sensors")
    unset = {name: value for name, value in DEFAULTS.items() if name not in settings.model_fields_set}
    settings = settings.model_copy(update=unset)
    if settings.init_from is not None:
        ancestor = read_model(settings.init_from).manifest
        if ancestor.frame is None:
            raise SettingsError(f"--init-from {settings.init_from}: it is a model of sensors: name one of images")
        if settings.model == AUTO:
            settings = settings.model_copy(update={"model": ancestor.model})
    if settings.model not in (AUTO, *IMAGE_MODELS):
        raise SettingsError(f"--model {settings.model} is for sensors: images take {', '.join((AUTO, *IMAGE_MODELS))}")
    return settings


def drafted(data: PreparedImages, settings: FitSettings, say: Callable[[str], None]) -> ImageDraft:
    """Fitted, exported and checked."""
    began = time.monotonic()
    ancestor = None if settings.init_from is None else read_ancestor(settings.init_from, settings.model).weights
    network, curve = fit_images(data, settings, ancestor)
    fit_s = time.monotonic() - began
    graph = ImageGraph(network, _scoring(network, data, settings)).eval()
    onnx_bytes = image_to_onnx(graph, data.frame)
    batching, parity = gate(graph, onnx_bytes, data.calibration, settings.seed)
    say(f"{settings.model} fitted and exported; PyTorch and ONNX Runtime agree within {parity:.1e} of a score")
    low, high = single(data.low), single(data.low + data.span)
    channels = [Channel(name=name, min=low, max=high) for name in data.frame.band_names]
    manifest = draft_manifest(
        data.table, data, channels, settings, curve, batching, onnx_bytes, parity,
        score=f"{settings.measures} of the pixels", frame=data.frame,
    )  # fmt: skip
    return ImageDraft(Model(manifest, onnx_bytes, _values(data)), network, data, curve, settings, fit_s)


def chosen(data: PreparedImages, settings: FitSettings, say: Callable[[str], None]) -> ImageDraft:
    """The candidate that finds planted faults best; as many are fitted as the time allows."""
    rehearsal = ImageRehearsal(data, settings.seed)
    given = data.calibration.raw(slice(at_once(TIMED, IMAGE_SHARE * data.frame.values)))

    def attempt(name: str, seconds: float) -> tuple[ImageDraft, Trial]:
        draft = drafted(data, settings.model_copy(update={"model": name, "fit_limit": seconds}), say)
        return draft, Trial(
            name, rehearsal.judge(draft.model), parameters(draft.network), image_mflop(draft.network),
            microseconds(draft.model, given), draft.fit_s,
        )  # fmt: skip

    draft, candidates = choose(CANDIDATES, settings.fit_limit, attempt, say, LEAST_GAIN)
    manifest = draft.model.manifest.model_copy(update={"candidates": candidates})
    return replace(draft, model=replace(draft.model, manifest=manifest))


def _scoring(network: ImageAutoencoder, data: PreparedImages, settings: FitSettings) -> PixelScore:
    region = None if settings.region is None else read_region(settings.region, data.frame)
    measures = tuple(settings.measures.split("+"))
    reduction = Reduction(measures, reach=shift_of(data, settings), top=settings.top)  # type: ignore[arg-type]
    return PixelScore(reduction, normal_error(network, data.calibration, reduction), region)


def _values(data: PreparedImages) -> StreamValues:
    loc, scale = data.scaling(len(data.names))
    group_loc, group_scale = (row[0] for row in data.scaling(1))
    return StreamValues(
        names=data.names,
        loc=loc,
        scale=scale,
        threshold=np.ones(len(data.names)),
        factor=np.ones(len(data.names)),
        group_loc=group_loc,
        group_scale=group_scale,
    )
