"""What crosses a boundary: frozen, strict, stable in its bytes, and described by JSON Schema files in step."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import generate
from schemas.__main__ import main
from schemas.alert import Alert, AlertData, ChannelShare, EventType, Severity, incident_id
from schemas.dead_letter import MAX_VALUE_BYTES, DeadLetter, Reason
from schemas.frozen import Frozen
from schemas.manifest import Batching, Calibration, Channel, Manifest, Training
from schemas.reading import Reading

ALERT = Alert(
    type=EventType.OPENED,
    source="/residual/default",
    subject="pumpe-β",
    time="2024-05-01T12:00:00.5Z",
    id="0123456789abcdef-0",
    data=AlertData(
        incident="0123456789abcdef",
        kind="anomaly",
        summary="pumpe-β: temperature is missing, with flow, since 11:58 UTC",
        severity=Severity.MAJOR,
        opened="2024-05-01T12:00:00.5Z",
        began="2024-05-01T11:58:00Z",
        score=1.25,
        p_value=0.001,
        return_period_s=3715200.0,
        channels=(
            ChannelShare(
                name="temperature",
                unit="°C",
                share=0.75,
                observed=None,
                expected=20.0,
                observed_window=(20.5, None),
                expected_window=(20.0, 20.0),
            ),
            ChannelShare(name="flow", share=0.25, observed=1e-07, expected=3.0),
        ),
        model="ab" * 32,
    ),
)

#: Consumers compare these bytes: a change of them is a change of the format and wants a new version.
GOLDEN = (
    '{"data":{"began":"2024-05-01T11:58:00Z","channels":[{"expected":20.0,"expected_window":[20.0,20.0],'
    '"name":"temperature","observed":null,"observed_window":[20.5,null],"share":0.75,"unit":"°C"},'
    '{"expected":3.0,"name":"flow","observed":1e-7,"share":0.25}],"incident":"0123456789abcdef","kind":"anomaly",'
    '"model":"abababababababababababababababababababababababababababababababab","opened":"2024-05-01T12:00:00.5Z",'
    '"p_value":0.001,"reopened":0,"return_period_s":3715200.0,"score":1.25,"severity":"major",'
    '"summary":"pumpe-β: temperature is missing, with flow, since 11:58 UTC"},"datacontenttype":"application/json",'
    '"dataschema":"urn:residual:alert:1","id":"0123456789abcdef-0","source":"/residual/default","specversion":"1.0",'
    '"subject":"pumpe-β","time":"2024-05-01T12:00:00.5Z","type":"residual.incident.opened"}'
)

MANIFEST = Manifest(
    model="pca",
    channels=(Channel(name="temperature", unit="°C", min=10, max=30), Channel(name="flow")),
    window=10,
    interval_s=1,
    calibration=Calibration(rate=1 / 7, readings=1000, threshold=0.5, floor=1e-6),
    training=Training(
        start="2024-05-01T00:00:00Z", end="2024-05-02T00:00:00Z", readings=86400, streams=1,
        calibration_start="2024-05-01T18:00:00Z", data_sha256="0" * 64, seed=0,
    ),
    graph_sha256="ab" * 32,
)  # fmt: skip


def schema(name: str) -> jsonschema.protocols.Validator:
    """A validator made from the committed file."""
    (path,) = generate.FOLDER.glob(f"{name}.v*.json")
    text = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


def test_the_bytes_of_an_alert_are_canonical() -> None:
    assert ALERT.to_bytes().decode() == GOLDEN
    read = Alert.model_validate_json(GOLDEN)
    assert read == ALERT
    assert read.to_bytes() == ALERT.to_bytes()


def test_an_incident_has_the_name_that_any_replica_gives_it() -> None:
    assert incident_id("default", "pumpe-β", "anomaly", 1_714_564_800_500_000_000) == "517d2f858a023042"  # by sha256sum


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
nanoseconds = st.integers(0, 2**63 - 1)
names = st.tuples(texts, texts, texts, nanoseconds)


@given(names, names)
def test_incidents_that_differ_in_anything_have_different_names(one: tuple, other: tuple) -> None:
    assert (incident_id(*one) == incident_id(*other)) == (one == other)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3), texts)
def test_alerts_round_trip_through_their_bytes_and_fit_their_schema(values: list[float], subject: str) -> None:
    channels = tuple(ChannelShare(name=f"c{i}", share=0.5, observed=v, expected=v) for i, v in enumerate(values))
    data = ALERT.data.model_copy(update={"channels": channels, "score": values[0]})
    alert = ALERT.model_copy(update={"data": data, "subject": subject})
    assert Alert.model_validate_json(alert.to_bytes()) == alert
    schema("alert").validate(json.loads(alert.to_bytes()))


def every_schema(base: type[Frozen] = Frozen) -> list[type[Frozen]]:
    return [model for child in base.__subclasses__() for model in (child, *every_schema(child))]


@pytest.mark.parametrize(
    "value", [ALERT, ALERT.data, MANIFEST, MANIFEST.channels[0], Batching()], ids=lambda v: type(v).__name__
)
def test_schemas_are_frozen_and_refuse_an_unknown_key(value: Frozen) -> None:
    field = next(iter(type(value).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, field, "other")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        type(value).model_validate(value.model_dump() | {"speling": 1})


def test_every_schema_is_frozen_and_only_a_reading_takes_unknown_keys() -> None:
    assert {model for model in every_schema() if not model.model_config.get("frozen")} == set()
    assert {model for model in every_schema() if model.model_config.get("extra") != "forbid"} == {Reading}


def test_a_manifest_round_trips_and_fits_its_schema() -> None:
    text = MANIFEST.model_dump_json()
    assert Manifest.model_validate_json(text) == MANIFEST
    schema("manifest").validate(json.loads(text))
    with pytest.raises(ValidationError, match="format_version"):
        Manifest.model_validate(MANIFEST.model_dump() | {"format_version": 1})


@pytest.mark.parametrize(
    "reading",
    [
        {"values": {}},
        {"stream": "m", "timestamp": 1500, "values": {"a": 1, "b": None}},
        {"stream": "m", "timestamp": "2024-05-01T00:00:00Z", "values": {"a": -1.5e3}, "sender": "gateway 7"},
    ],
)
def test_readings_that_fit_their_schema(reading: dict[str, object]) -> None:
    schema("reading").validate(reading)
    Reading.model_validate(reading)


@pytest.mark.parametrize(
    "reading",
    [{}, {"values": [1]}, {"values": {"a": "1"}}, {"values": {"a": True}}, {"stream": "", "values": {}},
     {"stream": 7, "values": {}}, {"stream": "x" * 1025, "values": {}}, {"timestamp": [], "values": {}}],
)  # fmt: skip
def test_readings_that_do_not_fit_their_schema(reading: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schema("reading").validate(reading)


def test_the_schema_files_are_in_step_with_the_models() -> None:
    assert generate.stale() == [], "run python -m schemas"


def test_a_file_that_is_missing_changed_or_of_nothing_is_found_and_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.write(tmp_path) == sorted(generate.generate())
    assert generate.stale(tmp_path) == []
    (tmp_path / "alert.v1.json").write_text("{}")
    (tmp_path / "reading.v1.json").unlink()
    (tmp_path / "of-nothing.v1.json").write_text("{}")
    found = ["alert.v1.json", "of-nothing.v1.json", "reading.v1.json"]
    assert generate.stale(tmp_path) == found
    assert generate.write(tmp_path) == found
    assert {path.name for path in tmp_path.iterdir()} == set(generate.generate())

    assert main(["--check"]) == 0
    monkeypatch.setitem(generate.SCHEMAS, "frozen", (1, Frozen))
    assert main(["--check"]) == 1
    assert "frozen.v1.json; run python -m schemas" in capsys.readouterr().err


def test_a_dead_letter_keeps_the_bytes_and_says_where_from_and_why() -> None:
    letter = DeadLetter(b"\xff", b"k", Reason.NOT_JSON, "ü" * 300, "readings", 2, 41, -1)
    assert letter.body() == b"\xff"
    assert dict(letter.headers()) == {
        "residual-reason": b"not-json", "residual-detail": ("ü" * 200).encode(), "residual-topic": b"readings",
        "residual-partition": b"2", "residual-offset": b"41", "residual-index": b"-1",
    }  # fmt: skip
    long = DeadLetter(b"x" * (MAX_VALUE_BYTES + 1), None, Reason.NOT_JSON, "", "readings", 0, 0, 3)
    assert long.body() == b"x" * MAX_VALUE_BYTES
    assert dict(long.headers())["residual-cut"] == str(MAX_VALUE_BYTES + 1).encode()
    assert DeadLetter(None, None, Reason.EMPTY, "", "readings", 0, 0, -1).body() is None


def test_a_dead_letter_s_detail_forges_no_line() -> None:
    letter = DeadLetter(b"", None, Reason.NOT_JSON, "a\n\x1b[2Kb\u202ec\ud800", "readings", 0, 7, -1, 3, 9)
    headers = dict(letter.headers())
    assert headers["residual-detail"] == b"a\\n\\x1b[2Kb\\u202ec\\ud800"
    assert (headers["residual-elements"], headers["residual-until"]) == (b"3", b"9")
