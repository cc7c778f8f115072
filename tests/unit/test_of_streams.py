"""A topic that several groups share: each watches its own streams."""

from __future__ import annotations

import orjson
from tiny_model import tiny_model

from detector.adapters.port import Records
from detector.past import JsonForm
from detector.run import decoder_of
from schemas.reading import FieldNames
from schemas.settings import DetectorSettings

MANIFEST = tiny_model(channels=2).manifest


def records(*streams: str) -> Records:
    values = [
        orjson.dumps({"stream": stream, "timestamp": 1000 * n, "values": {"c0" if stream < "q" else "c1": n}})
        for n, stream in enumerate(streams)
    ]
    return Records(0, list(range(len(values))), [0] * len(values), [None] * len(values), [*values])


def test_readings_of_other_streams_are_passed_over_and_counted() -> None:
    decoder = decoder_of(DetectorSettings.load({"streams": "pump-*;fan-1"}), MANIFEST)
    decoded = decoder.decode(records("pump-1", "server", "fan-1", "fan-2", "pump-2"))
    assert decoded.readings.streams == ["pump-1", "fan-1", "pump-2"]
    assert decoded.offsets.tolist() == [0, 2, 4]
    assert decoded.readings.times.tolist() == [0, 2 * 10**9, 4 * 10**9]
    assert decoded.counts["other_streams"] == 2
    assert not decoded.dead_letters


def test_what_was_meant_before_is_replayed_as_it_was() -> None:
    everything, some = (decoder_of(DetectorSettings.load({"streams": streams}), MANIFEST) for streams in ("", "pump-*"))
    for decoder, other in ((everything, some), (some, everything)):
        as_before = decoder.under(other.terms)
        assert as_before.terms == other.terms
        found = as_before.decode(records("a", "pump-1")).readings.streams
        assert list(found) == list(other.decode(records("a", "pump-1")).readings.streams)


def test_channels_of_other_streams_are_none_of_the_groups() -> None:
    form = JsonForm("readings", FieldNames(), 3600.0, ("pump-*",))
    assert form.discover([records("server", "pump-1")]) == ["c0"]
