"""From readings to a model: the steps of ``trainer fit`` in order, without files.

1. Prepare: rows, parts, scaling, windows.
2. Fit the architecture on the fit stretch; the validation stretch says when to stop.
3. Export the graph to ONNX.
4. Gate: the graph says what PyTorch says, however batched.
5. Calibrate with the detector's engine on the calibration stretch.
6. Manifest, streams' values, and what the report shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.folder import read_model
from detector.engine.model import Model, StreamValues
from schemas.errors import SettingsError
from schemas.manifest import Channel
from schemas.moment import SECOND_NS
from trainer.batches import Batches
from trainer.calibrate import calibrate
from trainer.data import Prepared, prepare
from trainer.export import gate, to_onnx
from trainer.fit import Curve, fit, mean_square_error
from trainer.graph import SCORES, Graph
from trainer.machine import running
from trainer.manifests import draft_manifest, finished, single, with_pauses
from trainer.models import Architecture, default_window
from trainer.report import Report, collect, of_sensors
from trainer.season import noise_of
from trainer.selection import CANDIDATES, TIMED, Rehearsal, Trial, choose, mflop, microseconds, parameters
from trainer.sensors import limits_of
from trainer.settings import AUTO, IMAGES_ONLY, FitSettings
from trainer.track import Track, track_of
from trainer.warm import Start, read_ancestor, weights_of

#: Windows for each number of one, for the fit stretch to say how normal data score: least squares then leave out about
#: a fortieth of the error.
AS_NEW = 20


@dataclass(frozen=True)
class Draft:
    """A fitted and exported model that is not calibrated yet: its thresholds are 1, its scores raw."""

    model: Model
    network: Architecture
    data: Prepared
    curve: Curve
    mean_square: NDArray[np.float32]
    """``[H, C]``: of held-out normal data, scaled units."""
    settings: FitSettings
    fit_s: float
    parity: float


@dataclass(frozen=True)
class Learned:
    """A model, what its report shows, its weights' file, and what its user should know."""

    model: Model
    report: Report
    weights: bytes
    warnings: list[str]
    track: Track | None = None
    """What its weights have not learned from, after what they have; None: images."""


def learn(
    table: Table,
    settings: FitSettings,
    catalogue: Sequence[Channel] | None = None,
    say: Callable[[str], None] = lambda _: None,
    heard: Table | None = None,
) -> Learned:
    """Fit, export, check and calibrate; ``say`` gets a line per step.

    ``heard``: all that came, where ``table`` is a choice of it: what was left out is no pause of the stream.

    Raises DataError where there is too little to learn from, ParityError where the gate does not open.
    """
    settings.refuse(IMAGES_ONLY, "images")
    if settings.init_from is not None and read_model(settings.init_from).manifest.frame is not None:
        raise SettingsError(f"--init-from {settings.init_from}: it is a model of images: name one of sensors")
    if settings.model == AUTO and settings.init_from is not None:
        settings = settings.model_copy(update={"model": read_model(settings.init_from).manifest.model})
    if settings.window is None and settings.init_from is not None:
        settings = settings.model_copy(update={"window": _inherited_window(settings)})
    heard = table if heard is None else heard
    table = running(table, settings.off_when, settings.settle, say)
    make = chosen if settings.model == AUTO else drafted
    draft = make(table, settings, catalogue, say)
    calibrated = calibrate(draft.model, table, draft.data, settings.false_alarms, whole=_as_good_as_new(draft))
    model = with_pauses(finished(draft.model, calibrated), heard)
    say(f"calibrated on {len(calibrated.score)} scores: raw {calibrated.group:.4g} counts as 1")
    mean_square = draft.mean_square.mean(axis=0)
    size = parameters(draft.network)
    report = collect(table, draft.data, draft.curve, calibrated, mean_square, draft.settings, size)
    report = of_sensors(report, model, draft.network, table, draft.data, calibrated)
    track = track_of(table, draft.data.calibration_start)
    return Learned(model, report, weights_of(draft.network), calibrated.warnings, track)


def _as_good_as_new(draft: Draft) -> bool:
    """Whether the stretch that the model was fitted on scores as any other: it was solved in closed form, and each
    expected value has far fewer weights than there were windows to learn them from.
    """
    solved = len(draft.curve.fit) == 1
    return solved and len(draft.data.fit) >= AS_NEW * draft.data.window * draft.data.channels


def _inherited_window(settings: FitSettings) -> int | None:
    """The ancestor's, where it is not the model's own: several joined models have a window each."""
    ancestor = read_model(str(settings.init_from)).manifest
    return None if ancestor.window == default_window(settings.model) else ancestor.window


def drafted(
    table: Table,
    settings: FitSettings,
    catalogue: Sequence[Channel] | None,
    say: Callable[[str], None],
    prepared: dict[int, Prepared] | None = None,
) -> Draft:
    """Steps 1 to 4 for one model. ``prepared``: the data by length of window, which models share."""
    window = settings.window or default_window(settings.model)
    prepared = {} if prepared is None else prepared
    if window not in prepared:
        prepared[window] = prepare(table, window, settings, catalogue)
        say(_described(table, prepared[window]))
    data = prepared[window]
    began = time.monotonic()
    network, curve = fit(data, settings, _ancestor(table, settings))
    fit_s = time.monotonic() - began
    mean_square = mean_square_error(network, Batches(data.calibration), settings.score)
    graph = Graph(network, mean_square + settings.error_floor, settings.score, catalogue).eval()
    onnx_bytes = to_onnx(graph, network.shape)
    batching, parity = gate(graph, onnx_bytes, data.calibration, settings.seed)
    say(f"{settings.model} fitted and exported; PyTorch and ONNX Runtime agree within {parity:.1e} of a score")
    channels = _channels(table, data, catalogue)
    manifest = draft_manifest(
        table, data, channels, settings, curve, batching, onnx_bytes, parity, score=SCORES[settings.score]
    )
    model = Model(manifest, onnx_bytes, _values(data))
    return Draft(model, network, data, curve, mean_square.numpy(), settings, fit_s, parity)


def _described(table: Table, data: Prepared) -> str:
    season = "" if data.season is None else f", again every {data.season.period_s / 3600:.4g} h"
    return (
        f"{len(table)} readings of {len(data.names)} streams, {data.channels} channels, one every "
        f"{data.interval_ns / SECOND_NS:g} s{season}: {len(data.fit)} windows of {data.window} to fit, "
        f"{len(data.validation)} to validate, {len(data.calibration)} to calibrate"
    )


def chosen(
    table: Table, settings: FitSettings, catalogue: Sequence[Channel] | None, say: Callable[[str], None]
) -> Draft:
    """The candidate that finds planted faults best; as many are fitted as the time allows."""
    rehearsal: Rehearsal | None = None
    prepared: dict[int, Prepared] = {}

    def attempt(name: str, seconds: float) -> tuple[Draft, Trial]:
        nonlocal rehearsal
        own = settings.model_copy(update={"model": name, "fit_limit": seconds})
        draft = drafted(table, own, catalogue, say, prepared)
        rehearsal = rehearsal or Rehearsal(table, draft.data, settings.seed)
        return draft, Trial(
            name, rehearsal.judge(draft.model), parameters(draft.network), mflop(draft.network),
            microseconds(draft.model, draft.data.calibration.raw(slice(TIMED))), draft.fit_s,
        )  # fmt: skip

    draft, candidates = choose(CANDIDATES, settings.fit_limit, attempt, say)
    manifest = draft.model.manifest.model_copy(update={"candidates": candidates})
    return replace(draft, model=replace(draft.model, manifest=manifest))


def _ancestor(table: Table, settings: FitSettings) -> Start | None:
    if settings.init_from is None:
        return None
    return Start(read_ancestor(settings.init_from, settings.model), table.channels)


def _values(data: Prepared) -> StreamValues:
    scaling = data.scaling
    return StreamValues(
        names=data.names,
        loc=scaling.loc,
        scale=scaling.scale,
        threshold=np.ones(len(data.names)),
        factor=np.ones(len(data.names)),
        group_loc=scaling.group_loc,
        group_scale=scaling.group_scale,
        noise=noise_of(data.values, data.context, data.stream, scaling),
    )


def _channels(table: Table, data: Prepared, catalogue: Sequence[Channel] | None) -> tuple[Channel, ...]:
    """What is known of each channel: what the catalogue says and, where it is silent, what the data show."""
    named = catalogue or [Channel(name=name) for name in table.channels]
    limits = limits_of(data)
    return tuple(
        channel.model_copy(
            update={
                "min": single(data.scaling.low[c]),
                "max": single(data.scaling.high[c]),
                "lowest": channel.min,
                "highest": channel.max,
                "stuck_after": _either(channel.stuck_after, limits.stuck_after[c]),
                "missing_after": _either(channel.missing_after, limits.missing_after[c]),
            }
        )
        for c, channel in enumerate(named)
    )


def _either(told: int | None, learned: int) -> int:
    return int(learned) if told is None else told
