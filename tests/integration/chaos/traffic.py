"""What may be written to the readings topic during a schedule, and what operators say meanwhile: made from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from troubles import KNOWN, Script, script

from detector.adapters.partitioner import partition_of
from schemas.command import Command, Verb

#: Milliseconds since 1970 of the first second: long ago, so that no clock of this machine is in it.
EPOCH_MS = 1_700_000_000_000

CHANNELS = tuple(channel.name for channel in KNOWN)

#: Streams that the model knows; all others are new to it.
LEARNED = ("pump-1", "pump-2", "pump-3", "fan-1", "fan-2")
NEW = ("mixer-1", "mixer-2", "boiler", "Kühlung")

#: What senders get wrong. ``{t}``: a time that would do.
GARBAGE: tuple[bytes | None, ...] = (
    None,
    b"",
    b"\xff\xfe\x00",
    b"{",
    b"[]",
    b'"text"',
    b'{"stream":"pump-1","timestamp":{t}}',
    b'{"stream":"pump-1","timestamp":"yesterday","values":{"c0":1}}',
    b'{"stream":"","timestamp":{t},"values":{"c0":1}}',
    b'{"stream":"fan-1","timestamp":{t},"values":{"other":1}}',
    b'{"stream":"fan-1","timestamp":{t},"values":{"c0":"1"}}',
    b'{"stream":"fan-1","timestamp":{t},"values":{"c0":NaN}}',
    b'{"stream":"fan-1","timestamp":{t},"values":{"c0":1e300}}',
    b'{"stream":"fan-1","timestamp":4000000000000,"values":{"c0":1,"c1":1,"c2":1}}',
    b'[{"stream":"pump-2","timestamp":{t},"values":{"c0":1}},7,{"stream":"pump-2"}]',
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record of the readings topic as it is written."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    stream: str | None = None
    """Whose readings these are; None where they are none."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the traffic is like."""

    streams: int
    steps: int
    """Seconds of event time, in each of which a stream says something at most once."""
    partitions: int
    per_record: int
    """Readings of a record, at most."""
    late: float
    """Share of readings that come some places later than they should."""
    again: float
    """Share of records that come twice."""
    garbage: float
    """Share of records that are none."""


def records(seed: int, shape: Shape) -> list[Sent]:
    """All of them, in the order of sending."""
    rng = np.random.default_rng([seed, 1])
    names = names_of(shape.streams)
    scripts = {name: script(rng, shape.steps) for name in names}
    held: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    found: list[tuple[float, Sent]] = []  # by place
    for step in range(shape.steps):
        stamp = EPOCH_MS + (1000 + step) * 1000
        for name in rng.permutation(names).tolist():
            if not np.isnan(scripts[name].times[step]):
                held[name].append(_reading(name, scripts[name], step, rng))
            if len(held[name]) >= rng.integers(1, shape.per_record + 1):
                value = orjson.dumps(held[name] if len(held[name]) > 1 else held[name][0])
                held[name] = []
                sent = Sent(partition_of(name.encode(), shape.partitions), name.encode(), value, stamp, name)
                place = float(len(found)) + (rng.integers(1, 30) if rng.random() < shape.late else 0)
                found.append((place, sent))
                if rng.random() < shape.again:
                    found.append((place + rng.integers(0, 20), sent))
        if rng.random() < shape.garbage * shape.streams:
            found.append((float(len(found)), _garbage(rng, shape.partitions, stamp)))
    found.sort(key=lambda one: one[0])  # stable
    return [sent for _, sent in found]


def names_of(streams: int) -> tuple[str, ...]:
    """The streams of a schedule: some that the model knows, some that are new."""
    mixed = [name for pair in zip(LEARNED, NEW, strict=False) for name in pair] + [LEARNED[-1]]
    return tuple(mixed[:streams])


def _reading(name: str, script: Script, step: int, rng: np.random.Generator) -> dict[str, Any]:
    stamp = EPOCH_MS + int(script.times[step]) * 1000
    values = {
        channel: None if np.isnan(value) else float(value)
        for channel, value in zip(CHANNELS, script.values[step], strict=True)
    }
    if rng.random() < 0.05:
        values["unknown"] = 1.0
    return {"stream": name, "timestamp": stamp, "values": values}


def _garbage(rng: np.random.Generator, partitions: int, stamp: int) -> Sent:
    value = GARBAGE[int(rng.integers(len(GARBAGE)))]
    if value is not None:
        value = value.replace(b"{t}", str(stamp).encode())
    key = (None, b"", b"pump-1", b"\xff")[int(rng.integers(4))]
    if value is None and key is None:
        key = b"nothing"  # the client takes no record with neither
    return Sent(int(rng.integers(partitions)), key, value, stamp)


def commands(seed: int, count: int, streams: int) -> list[bytes]:
    """What operators say, in order: mostly commands, now and then one again, or something that is none."""
    rng = np.random.default_rng([seed, 2])
    names, said = names_of(streams), []
    for number in range(count):
        if said and rng.random() < 0.15:
            said.append(said[-1])
        elif rng.random() < 0.1:
            said.append(b'{"command":"accept"}')
        else:
            verb = Verb(str(rng.choice(["accept", "confirm"])))
            stream = str(rng.choice(names)) if rng.random() < 0.9 else "nobody"
            channels = ("c1",) if rng.random() < 0.2 else ()
            said.append(Command(id=f"{seed}-{number}", command=verb, stream=stream, channels=channels).to_bytes())
    return said
