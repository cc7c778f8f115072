"""Guesses what records hold, where they are not what the detector was told they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson

from detector.decoding.images import JPEG, PNG
from schemas.moment import parse_time
from schemas.reading import FieldNames


def guess(values: Iterable[bytes | None], fields: FieldNames) -> str:
    """In words, what most of them are, and which setting reads it; empty where nothing is known."""
    found = Counter(said for value in values if (said := _one(value, fields)))
    return found.most_common(1)[0][0] if found else ""


def _one(value: bytes | None, fields: FieldNames) -> str:
    if not value:
        return "they are empty"
    if value.startswith((PNG, JPEG)):
        return "they are pictures, which a model of images reads (trainer fit … --set records=images)"
    if value[:1] == b"\0" and len(value) > 5:
        return "they begin as Avro or Protobuf of a schema registry do: send JSON, or convert them (Kafka Connect)"
    try:
        document = orjson.loads(value)
    except ValueError:
        return _text(value)
    if isinstance(document, list):
        document = document[0] if document else None
    return _document(document, fields) if isinstance(document, dict) else "they are JSON, but no objects"


def _text(value: bytes) -> str:
    try:
        line = value.decode().splitlines()[0]
    except (UnicodeDecodeError, IndexError):
        return "they are neither text nor pictures"
    if "=" in line and " " in line and not line.startswith(("{", "[", "<")):
        return "they look like InfluxDB line protocol: let the agent write JSON"
    if line.count(",") >= 2 and not line.startswith(("{", "[")):
        return "they look like CSV: send a JSON object a reading"
    return "they are text, but no JSON"


def _document(document: dict[str, Any], fields: FieldNames) -> str:
    keys = document.keys()
    if {"values", "dsnames", "plugin"} <= keys:
        return "they are collectd's (write_kafka), a value at a time, which is not read yet"
    if {"fields", "tags", "name"} <= keys:
        return "they are Telegraf's, a measurement at a time, which is not read yet"
    if "labels" in keys and keys & {"value", "samples", "name"}:
        return "they are Prometheus remote write's, a series at a time, which is not read yet"
    return _renamed(document, fields)


def _renamed(document: dict[str, Any], fields: FieldNames) -> str:
    """Names of fields that would fit."""
    numbers = [name for name, value in document.items() if type(value) in (int, float)]
    objects = [
        name for name, value in document.items()
        if isinstance(value, dict) and any(type(one) in (int, float) for one in value.values())
    ]  # fmt: skip
    flags = []
    if fields.values not in document:
        if not objects:
            flat = ", ".join(numbers[:3])
            return f"numbers ({flat} …) lie beside the other fields: put them into an object" if numbers else ""
        flags.append(f"--values-field {objects[0]}")
    if fields.timestamp not in document:
        flags += [f"--timestamp-field {name}" for name, value in document.items() if _is_time(value)][:1]
    if fields.stream not in document:
        flags += [f"--stream-field {name}" for name, value in document.items() if _is_name(value)][:1]
    return f"their fields have other names: {' '.join(flags)}" if flags else ""


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        return parse_time(value) > 10**17  # after 1973: smaller numbers are seconds, or no times
    except ValueError:
        return False


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024 and not _is_time(value)
