"""The model card (Mitchell et al., "Model cards for model reporting", FAT* 2019): what the model is for, what it was
learned from, what it promises and what it does not. Every number is the manifest's or the report's.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from detector.engine.model import Model
from detector.page.text import duration, plural, table
from schemas.manifest import Manifest
from trainer.page.promise import METHODS, in_words
from trainer.report import Report

#: Names of streams and channels that are spelt out.
NAMED = 12


def model_card(model: Model, report: Report) -> Iterable[str]:
    """What somebody should know who is to rely on the model."""
    manifest = model.manifest
    facts = {
        "For": _purpose(manifest),
        "Learned from": _data(model),
        "Chosen": _chosen(manifest, report),
        "Sees": _sight(manifest),
        "Size": _size(model, report),
        "Threshold": _threshold(manifest),
        "Promise": _promise(manifest),
        "Served as fitted": _parity(manifest),
        "Made with": f"{_listed(f'{name} {version}' for name, version in manifest.made_with.items())}; seed "
        f"{manifest.training.seed}.",
    }
    yield "<h2>Model card</h2>"
    yield table(("", ""), [(f"<b>{name}</b>", text) for name, text in facts.items()], ("top", ""))
    yield "<p><b>Not for</b></p>"
    yield f"<ul>{''.join(f'<li>{limit}</li>' for limit in _limits(manifest))}</ul>"


def _purpose(manifest: Manifest) -> str:
    what = "images" if manifest.frame else f"readings of {plural(len(manifest.channels), 'channel')}"
    parts = "bands and pixels" if manifest.frame else "channels"
    return (
        f"Watching {what} from streams of the group {html.escape(manifest.group)}, one every "
        f"{duration(manifest.interval_s)}: it says, as each arrives, how unlike normal data it is, and in "
        f"which {parts}."
    )


def _data(model: Model) -> str:
    training, names = model.manifest.training, model.manifest.channel_names
    return (
        f"{plural(training.readings, 'reading')} of {plural(training.streams, 'stream')} "
        f"({_some(model.streams.names)}), {html.escape(training.start)} to {html.escape(training.end)}; "
        f"{plural(len(names), 'band' if model.manifest.frame else 'channel')} ({_some(names)}). Readings from "
        f"{html.escape(training.calibration_start)} on set thresholds, not weights. Data SHA-256 "
        f"<code>{html.escape(training.data_sha256)}</code>."
    )


def _chosen(manifest: Manifest, report: Report) -> str:
    start = " Its weights began as those of another model." if report.settings.get("init_from") else ""
    name = html.escape(manifest.model)
    if not manifest.candidates:
        return f"{name} was named by who fitted it; it was compared with no other.{start}"
    tried = _listed(candidate.model for candidate in manifest.candidates)
    return f"{name}, of {tried}: by what each found of faults planted into the calibration stretch.{start}"


def _sight(manifest: Manifest) -> str:
    if manifest.frame:
        return f"One image of {html.escape(str(manifest.frame))} at a time."
    window = f"{plural(manifest.window, 'reading')} ({duration(manifest.window * manifest.interval_s)})"
    season = (
        f"what was usual at this time of the last periods of {duration(manifest.season.period_s)}"
        if manifest.season
        else "no season"
    )
    span = manifest.smoothing_span
    smoothed = f"; its scores are a moving average of span {span:g}" if span > 1 else ""
    return f"The newest {window}, and {season}{smoothed}. A score is the {html.escape(manifest.score)}."


def _size(model: Model, report: Report) -> str:
    parameters = "" if report.parameters is None else f"{plural(report.parameters, 'parameter')}; "
    return f"{parameters}model.onnx {len(model.graph) / 1000:,.0f} kB."


def _threshold(manifest: Manifest) -> str:
    calibration = manifest.calibration
    return (
        f"From {METHODS[calibration.method]}: {plural(calibration.peaks, 'episode')} of {calibration.days:,.4g} "
        f"stream-days; p-values from {calibration.readings:,} scores of the calibration stretch, which had no part in "
        f"the weights. A stream never seen takes the group's threshold: a raw score of {calibration.threshold:.4g}."
    )


def _promise(manifest: Manifest) -> str:
    return (
        f"{in_words(manifest.calibration, manifest.training.streams)}, as long as normal data come as those did that "
        "set the threshold. Where they drift faster than a baseline follows, there are more."
    )


def _parity(manifest: Manifest) -> str:
    parity = manifest.metrics.get("parity")
    return (
        "Not recorded."
        if parity is None
        else f"PyTorch and ONNX Runtime agreed within {parity:.1e} of a score on held-out windows."
    )


def _limits(manifest: Manifest) -> Iterable[str]:
    yield (
        "Telling faults from what is merely rare. No label was seen: a score says how unusual a reading is, not "
        "whether something is broken, and how many real faults it finds was not measured here."
    )
    yield (
        "Faults that were in the training data. Whatever happened between "
        f"{html.escape(manifest.training.start)} and {html.escape(manifest.training.end)} counts as normal."
    )
    yield "A machine that was changed: a new level or way of running raises alarms until the model is fitted again."
    if manifest.frame:
        yield "Images of another size, camera, light or framing than those it was fitted on."
    else:
        yield (
            f"Other channels or units, or another step than one reading every {duration(manifest.interval_s)}; nor "
            f"what builds up slowly over much more than {duration(manifest.window * manifest.interval_s)}."
        )
        yield "Causes: the channels that it names are those that look wrong, not those that went wrong first."
    yield "The only guard of people or machines: it can miss a fault, and it stays silent where no reading arrives."


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return _listed(names[:NAMED]) + more


def _listed(names: Iterable[str]) -> str:
    return ", ".join(html.escape(name) for name in names)
