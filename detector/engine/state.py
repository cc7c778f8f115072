"""The state: everything the engine remembers between readings, as arrays indexed by stream, and its bytes.

Sections, in memory and in bytes alike:

* ``tail`` — owned by no model: the raw window, the newest time, counts. Survives a change of the model.
* ``parts`` — readings still being put together from parts (empty: readings arrive whole).
* ``reorder`` — readings that wait for late ones (empty: lateness is 0, or nothing waits). Owned by no model. In bytes
  there is room for the most readings that wait at one of the streams.
* ``passing`` — what belongs to them in memory alone.
* ``season`` — what is usual at which time (empty: the model knows no season). Owned by no model.
* ``baseline`` — what the level and spread of each stream are now. Owned by no model.
* ``sensors`` — runs of equal and of missing values, clocks that were set back, silence, gates. Owned by no model.
* ``model`` — derived from the tail and the model: recent scores and flags.
* ``incident`` — the open incidents of each stream.

Bytes: magic, length of a JSON header (4 bytes, little-endian), header, the arrays' bytes one after another, CRC-32 of
everything before it (4 bytes, little-endian). The header holds the format version, the model's id, the streams'
names and for each section the arrays' names, types and shapes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.engine import baseline, clocks, gates, incidents, reorder, seasons, sensors, silence
from detector.engine.assembly import NEVER
from detector.engine.incidents import UNSCORED
from schemas.errors import ModelError
from schemas.manifest import Season

FORMAT_VERSION = 2
MAGIC = b"RSDL"

#: An array's shape per stream, type and value of a stream that has just been met.
Layout = dict[str, dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]]


def layout(
    tail: int, channels: int, scores: int, flags: int, season: Season | None = None, sensed: int | None = None
) -> Layout:
    """The arrays of each section for a tail of T readings of C channels and this many recent scores and flags.

    ``sensed``: the channels that have baselines and rules of their own; None: all. In images no value has.
    """
    sensed = channels if sensed is None else sensed
    f32, f64, i64, i32, u1 = (np.dtype(name) for name in ("<f4", "<f8", "<i8", "<i4", "u1"))
    return {
        "tail": {
            "raw": ((tail, channels), f32, np.nan),
            "time": ((), i64, NEVER),
            "filled": ((), i32, 0),
            "seen": ((), i64, 0),
        },
        "parts": {},
        "reorder": reorder.fields(0, channels),
        "passing": reorder.passing_fields(0),
        "season": seasons.fields(season, channels),
        "baseline": baseline.fields(sensed),
        "sensors": {**sensors.fields(sensed), **clocks.fields(), **silence.fields(), **gates.fields()},
        "model": {
            "scores": ((scores,), f64, np.nan),
            "judged": ((scores,), f64, np.nan),
            "flags": ((flags,), u1, UNSCORED),
            "calm": ((), i32, 0),
            "off_since": ((), i64, NEVER),
        },
        "incident": incidents.fields(),
    }


class State:
    """Arrays of all streams; row ``slot`` of each belongs to one stream of one partition."""

    def __init__(self, arrays: Layout) -> None:
        self.layout = dict(arrays)
        self._capacity = 0
        self.size = 0
        self.raw: NDArray[np.float32]
        self.time: NDArray[np.int64]
        self.filled: NDArray[np.int32]
        self.seen: NDArray[np.int64]
        self.scores: NDArray[np.float64]
        self.flags: NDArray[np.uint8]
        self.judged: NDArray[np.float64]
        self.calm: NDArray[np.int32]
        self.off_since: NDArray[np.int64]
        self.opened: NDArray[np.int64]
        self.events: NDArray[np.int32]
        self.began: NDArray[np.int64]
        self.worst: NDArray[np.float32]
        self.told: NDArray[np.int64]
        self.named: NDArray[np.int16]
        self.phase: NDArray[np.uint8]
        self.flaps: NDArray[np.uint8]
        self.ended: NDArray[np.int64]
        self.base_turn: NDArray[np.int64]
        self.base_mode: NDArray[np.uint8]
        self.base_level: NDArray[np.float32]
        self.base_anchor: NDArray[np.float32]
        self.base_spread: NDArray[np.float32]
        self.base_relief: NDArray[np.float32]
        self.base_sum: NDArray[np.int32]
        self.base_second: NDArray[np.int64]
        self.base_count: NDArray[np.uint32]
        self.base_since: NDArray[np.int64]
        self.base_stage: NDArray[np.uint8]
        self.base_rows: NDArray[np.int32]
        self.base_scores: NDArray[np.int64]
        self.base_trial: NDArray[np.int64]
        self.base_old_level: NDArray[np.float32]
        self.base_old_spread: NDArray[np.float32]
        self.base_old_relief: NDArray[np.float32]
        self.base_back: NDArray[np.int32]
        self.base_hold: NDArray[np.uint8]
        self.base_drift: NDArray[np.uint8]
        self.sensor_value: NDArray[np.float32]
        self.sensor_same: NDArray[np.uint16]
        self.sensor_absent: NDArray[np.uint16]
        self.sensor_stuck: NDArray[np.uint8]
        self.sensor_outside: NDArray[np.uint8]
        self.clock_late: NDArray[np.int32]
        self.clock_first: NDArray[np.int64]
        self.clock_newest: NDArray[np.int64]
        self.silence_newest: NDArray[np.int64]
        self.silence_since: NDArray[np.int64]
        self.silence_witness: NDArray[np.int64]
        self.gate_off: NDArray[np.int64]
        self.gate_time: NDArray[np.int64]
        self.season_bin: NDArray[np.int64]
        self.season_base: NDArray[np.float32]
        self.season_step: NDArray[np.float32]
        self.season_level: NDArray[np.int16]
        self.season_sum: NDArray[np.int64]
        self.season_count: NDArray[np.uint32]
        self.wait_time: NDArray[np.int64]
        self.wait_value: NDArray[np.float32]
        self.wait_number: NDArray[np.int64]
        self.wait_count: NDArray[np.int32]
        self.grow(64)
        self.size = 0

    def grow(self, size: int) -> None:
        """Make room for ``size`` streams, the new ones as if just met."""
        if size > self._capacity:
            capacity = max(size, 2 * self._capacity)
            for name, (shape, dtype, empty) in self._fields():
                grown = np.full((capacity, *shape), empty, dtype=dtype)
                if self._capacity:
                    grown[: self.size] = getattr(self, name)[: self.size]
                setattr(self, name, grown)
            self._capacity = capacity
        self.size = max(size, self.size)

    def widen(self, width: int) -> None:
        """Make room for so many readings that wait at each stream."""
        values = self.wait_value.shape[2]
        for section, fields in (
            ("reorder", reorder.fields(width, values)),
            ("passing", reorder.passing_fields(width)),
        ):
            for name, (shape, dtype, empty) in fields.items():
                held = getattr(self, name)
                if held.shape[1:] != shape:
                    wider = np.full((self._capacity, *shape), empty, dtype=dtype)
                    wider[:, : held.shape[1]] = held
                    setattr(self, name, wider)
            self.layout[section] = fields

    def clear(self) -> None:
        """Forget every stream."""
        for name, (_, _, empty) in self._fields():
            getattr(self, name)[: self.size] = empty
        self.size = 0

    def reset(self, slots: NDArray[np.int64]) -> None:
        """Make streams' rows what they are for a stream that has just been met."""
        for name, (_, _, empty) in self._fields():
            getattr(self, name)[slots] = empty

    def copy(self, names: list[str], slots: NDArray[np.int64], model: str) -> Saved:
        """The state of some streams, as if it were read back from a dump."""
        return Saved(model, names, {section: dict(arrays) for section, arrays in self._saved(slots)})

    def dump(self, names: list[str], slots: NDArray[np.int64], model: str) -> bytes:
        """The state of some streams; ``names`` and ``slots`` in the same order; ``model``: its ``Model.id``."""
        sections: dict[str, dict[str, Any]] = {}
        body = []
        for section, arrays in self._saved(slots):
            sections[section] = {name: [array.dtype.str, list(array.shape[1:])] for name, array in arrays.items()}
            body += [array.tobytes() for array in arrays.values()]
        header = orjson.dumps({"version": FORMAT_VERSION, "model": model, "streams": names, "sections": sections})
        data = b"".join([MAGIC, struct.pack("<I", len(header)), header, *body])
        return data + struct.pack("<I", zlib.crc32(data))

    def _saved(self, slots: NDArray[np.int64]) -> Iterable[tuple[str, dict[str, NDArray[Any]]]]:
        """What is saved of these streams, section by section."""
        for section, fields in self.layout.items():
            if section == "reorder":
                yield section, reorder.saved(self, slots)
            elif section != "passing":
                yield section, {name: getattr(self, name)[slots] for name in fields}

    def load(self, saved: Saved, slots: NDArray[np.int64]) -> None:
        """Take over what was saved for streams that have these slots now, in the order of ``saved.streams``.

        Raises ModelError where a window has another shape: the state belongs to another model.
        """
        if "reorder" in self.layout:
            reorder.restore(self, slots, saved.sections.get("reorder", {}))
        for section, fields in self.layout.items():
            if section in ("reorder", "passing"):
                continue
            for name, (shape, _, empty) in fields.items():
                found = saved.sections.get(section, {}).get(name)
                if found is None:
                    continue
                if section == "model" and shape:  # histories may have another length after a change of settings
                    found = _resized(found, shape, empty)
                if found.shape[1:] != shape:
                    raise ModelError(
                        f"the saved state of {name} has shape {found.shape[1:]} per stream, the model wants {shape}: "
                        "this consumer group ran another model; use another --group-id or the model it ran"
                    )
                getattr(self, name)[slots] = found

    def _fields(self) -> Iterable[tuple[str, tuple[tuple[int, ...], np.dtype[Any], Any]]]:
        for fields in self.layout.values():
            yield from fields.items()


def _resized(found: NDArray[Any], shape: tuple[int, ...], empty: Any) -> NDArray[Any]:
    """The newest values of histories ``[S, old]`` as ``[S, new]``."""
    length = shape[0]
    kept = found[:, max(found.shape[1] - length, 0) :]
    resized = np.full((len(found), length), empty, dtype=found.dtype)
    resized[:, length - kept.shape[1] :] = kept
    return resized


@dataclass(frozen=True)
class Saved:
    """A bucket's state as read back from bytes."""

    model: str
    """``Model.id`` of the one under which it was saved."""
    streams: list[str]
    sections: dict[str, dict[str, NDArray[Any]]]

    def of_no_model(self, tail: int) -> Saved:
        """What no model owns, with the newest ``tail`` readings; a baseline is about what its own model learned."""
        kept = {name: self.sections.get(name, {}) for name in ("tail", "parts", "reorder", "sensors")}
        return Saved("", self.streams, kept).with_tail(tail)

    def with_tail(self, tail: int) -> Saved:
        """With the newest ``tail`` readings of each stream; where there are fewer, a window is not full yet."""
        kept = self.sections.get("tail", {})
        raw = kept.get("raw")
        if raw is None or raw.shape[1] == tail:
            return self
        length = min(raw.shape[1], tail)
        longer = np.full((len(raw), tail, *raw.shape[2:]), np.nan, raw.dtype)
        longer[:, tail - length :] = raw[:, raw.shape[1] - length :]
        shorter = {"raw": longer, "filled": np.minimum(kept["filled"], length)}
        return Saved(self.model, self.streams, {**self.sections, "tail": {**kept, **shorter}})

    @classmethod
    def parse(cls, data: bytes) -> Saved:
        """Raises ModelError where the bytes are damaged or of a version not known."""
        if len(data) < 12 or data[:4] != MAGIC or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
            raise ModelError("a checkpoint is damaged")
        (length,) = struct.unpack("<I", data[4:8])
        header = orjson.loads(data[8 : 8 + length])
        if header["version"] != FORMAT_VERSION:
            raise ModelError(f"a checkpoint has format {header['version']}, this version reads {FORMAT_VERSION}")
        at = 8 + length
        count = len(header["streams"])
        sections: dict[str, dict[str, NDArray[Any]]] = {}
        for section, fields in header["sections"].items():
            sections[section] = {}
            for name, (dtype, shape) in fields.items():
                array = np.frombuffer(data, dtype, count * int(np.prod(shape, dtype=np.int64)), at)
                sections[section][name] = array.reshape(count, *shape)
                at += array.nbytes
        return cls(header["model"], header["streams"], sections)
