"""What a sample of records says to a model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from detector.adapters.kafka_sample import Sample
from detector.check.finding import Finding, State
from detector.check.form import guess
from detector.decoding.decoded import Decoded, Decoder
from detector.engine.model import Model
from schemas.dead_letter import DeadLetter
from schemas.moment import SECOND_NS, format_time
from schemas.settings import DetectorSettings

#: Names that a line shows.
MOST = 6

#: Seconds that a sender's clock may be off before it is worth a word.
OFF_S = 60.0


def looked_at(sample: Sample, decoder: Decoder, model: Model, settings: DetectorSettings) -> list[Finding]:
    """Findings about records, streams, channels and clocks."""
    topic = settings.readings_topic
    if not sample.count:
        advice = "start what sends them, or name another with --readings-topic; --wait looks longer"
        gone = " (all that was there has been deleted or belongs to open transactions)" if sample.retained else ""
        return [Finding("records", State.FIX, f"{topic} holds none, and none arrived{gone}", advice)]
    found = [Finding(
        "records", State.WELL,
        f"{sample.count} looked at, {sample.arrived} of them arrived meanwhile; {topic} keeps {sample.retained:,}",
    )]  # fmt: skip
    found += [
        Finding("records", State.NOTE, f"offsets {one.first} to {one.next - 1} of partition {one.partition}: {one.why}")
        for one in sample.damaged[:3]
    ]
    decoded = [decoder.decode(records) for records in sample.records]
    found += _decoded(sample, decoded, settings)
    if any(len(one.readings) for one in decoded):
        found += [_streams(decoded, model), *_channels(sample, decoded, model, settings), *_clocks(sample, decoded)]
        found += _interval(decoded, model)
    return found


def _decoded(sample: Sample, decoded: Sequence[Decoded], settings: DetectorSettings) -> list[Finding]:
    readings = sum(len(one.readings) for one in decoded)
    letters = [letter for one in decoded for letter in one.dead_letters]
    passed = sum(one.counts["other_streams"] for one in decoded)
    found = []
    if readings:
        also = f"; {passed} more of streams that --streams leaves out" if passed else ""
        found.append(Finding("decoded", State.WELL, f"{readings} readings{also}"))
    elif passed:
        found.append(Finding(
            "decoded", State.FIX, f"all {passed} readings are of streams that --streams leaves out",
            f"correct {'; '.join(settings.streams)}",
        ))  # fmt: skip
    if letters:
        state = State.NOTE if readings else State.FIX
        found.append(Finding("decoded", state, _set_aside(letters), _guessed(sample, letters, settings)))
    return found


def _set_aside(letters: Sequence[DeadLetter]) -> str:
    counts = Counter(letter.reason.value for letter in letters)
    first = letters[0]
    kinds = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return (
        f"{len(letters)} would be set aside as dead letters ({kinds}), such as offset {first.offset} of partition "
        f"{first.partition}: {first.detail}"
    )


def _guessed(sample: Sample, letters: Sequence[DeadLetter], settings: DetectorSettings) -> str:
    from detector.run import field_names

    places = {(letter.partition, letter.offset) for letter in letters}
    values = [
        value for records in sample.records for offset, value in zip(records.offsets, records.values, strict=True)
        if (records.partition, offset) in places
    ]  # fmt: skip
    return guess(values, field_names(settings))


def _streams(decoded: Sequence[Decoded], model: Model) -> Finding:
    names = sorted({name for one in decoded for name in one.readings.streams})
    known = set(model.streams.names)
    new = [name for name in names if name not in known]
    said = f"{len(names)}: {_some(names)}"
    if not new:
        return Finding("streams", State.WELL, f"{said}; the model learned from all of them")
    who = "none" if len(new) == len(names) else f"all but {len(new)}"
    return Finding(
        "streams", State.NOTE, f"{said}; the model learned from {who} of them",
        "new ones start from their group's values and publish nothing at first (--unseen-readings)",
    )  # fmt: skip


def _channels(sample: Sample, decoded: Sequence[Decoded], model: Model, settings: DetectorSettings) -> list[Finding]:
    if model.manifest.frame is not None:
        return [Finding("images", State.WELL, f"of {model.manifest.frame}, as the model's")]
    names = model.manifest.channel_names
    values = np.concatenate([one.readings.values for one in decoded])
    seen = ~np.isnan(values).all(axis=0)
    missing = [name for name, there in zip(names, seen, strict=True) if not there]
    found = []
    if missing:
        found.append(Finding(
            "channels", State.FIX, f"{len(missing)} of the model's {len(names)} have no value in any: {_some(missing)}",
            "send them, or fit a model without them",
        ))  # fmt: skip
    else:
        found.append(Finding("channels", State.WELL, f"all {len(names)} of the model's have values"))
    if any(one.counts["unknown_channel"] for one in decoded):
        unknown = sorted(_named(sample, settings) - set(names))
        found.append(Finding("channels", State.NOTE, f"not the model's, and ignored: {_some(unknown)}"))
    return found


def _named(sample: Sample, settings: DetectorSettings) -> set[str]:
    """Channels that JSON records name."""
    found: set[str] = set()
    for value in (value for records in sample.records for value in records.values if value):
        try:
            document: Any = orjson.loads(value)
        except ValueError:
            continue
        for reading in document if isinstance(document, list) else [document]:
            values = reading.get(settings.values_field) if isinstance(reading, dict) else None
            found |= set(values) if isinstance(values, dict) else set()
    return found


def _clocks(sample: Sample, decoded: Sequence[Decoded]) -> list[Finding]:
    """How far readings are dated from the records they came in, and from now."""
    stamps = {
        (records.partition, offset): stamp
        for records in sample.records for offset, stamp in zip(records.offsets, records.timestamps, strict=True)
    }  # fmt: skip
    some = [one for one in decoded if len(one.readings)]
    came_s = [[stamps[one.readings.partition, offset] / 1000 for offset in one.offsets.tolist()] for one in some]
    late_s = np.concatenate([own - one.readings.times / SECOND_NS for own, one in zip(came_s, some, strict=True)])
    newest = max(int(one.readings.times.max()) for one in some)
    age_s = time.time() - newest / SECOND_NS
    said = f"newest reading of {format_time(newest)}, {_span(age_s)} {'ago' if age_s >= 0 else 'ahead'}"
    off = float(np.median(late_s))
    if off < -OFF_S:
        return [Finding("clocks", State.NOTE, f"{said}; readings are dated {_span(off)} after their records",
                        "see to the senders' clocks; further than --max-ahead is set aside")]  # fmt: skip
    if off > OFF_S:
        return [Finding("clocks", State.NOTE, f"{said}; they arrive {_span(off)} after their time")]
    return [Finding("clocks", State.WELL, f"{said}; they arrive {_span(off)} after their time")]


def _interval(decoded: Sequence[Decoded], model: Model) -> list[Finding]:
    times: dict[str, list[int]] = {}
    for one in decoded:
        for name, moment in zip(one.readings.streams, one.readings.times.tolist(), strict=True):
            times.setdefault(name, []).append(moment)
    steps = [np.median(np.diff(np.unique(own))) for own in times.values() if len(set(own)) > 1]
    if not steps or model.manifest.frame is not None:
        return []
    seen_s, wanted_s = float(np.median(steps)) / SECOND_NS, model.manifest.interval_s
    said = f"a reading every {_span(seen_s)}; the model learned one every {_span(wanted_s)}"
    if 0.67 < seen_s / wanted_s < 1.5:
        return [Finding("interval", State.WELL, said)]
    return [Finding("interval", State.FIX, said, "fit a model on readings of this interval")]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) <= 40 else f"{name[:39]}…" for name in names[:MOST])
    return shown + (f" … ({len(names)})" if len(names) > MOST else "")


def _span(seconds: float) -> str:
    seconds = abs(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} s"
