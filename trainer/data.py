"""Training data: one log of readings becomes scaled rows and, for each purpose, the windows that serve it.

Per stream, in time order: fit | validation | calibration. A window belongs to the part in which its newest reading
lies, so the first windows of a part reach back into the one before, as they do in service.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from detector.adapters.files import Table, read_table
from detector.adapters.overflow import chunks, empty
from detector.adapters.texts import coded, take
from detector.engine.assembly import layout
from detector.engine.segments import blocks
from schemas.errors import DataError, SettingsError
from schemas.manifest import Channel, Season
from schemas.moment import SECOND_NS
from schemas.reading import FieldNames
from trainer.scaling import Scaling, scaling_of
from trainer.season import context_of, season_of
from trainer.settings import FitSettings
from trainer.source import SourceSettings

KAFKA = "kafka://"

#: Scaled values beyond this say no more than "very far": one wild reading must not outweigh all others.
CLIP = 10.0

#: The parts of a stream, in time order.
FIT, VALIDATION, CALIBRATION = range(3)

#: What a catalogue may say of a channel.
LISTED = ("name", "unit", "min", "max", "direction", "weight", "stuck_after", "missing_after")

#: Windows, of all parts together, below which no model is worth its name.
LEAST_WINDOWS = 100

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Given(NamedTuple):
    """b windows in engineering units."""

    x: Floats
    """``[b, W, C]``, NaN where missing."""
    loc: Floats
    """``[b, C]``."""
    scale: Floats
    """``[b, C]``."""
    context: Floats | None
    """``[b, K]``, NaN where nothing is known; None: there is no context."""


@dataclass(frozen=True)
class Windows:
    """Windows by the row in which each ends: views of the rows, gathered batch by batch."""

    data: Prepared
    ends: Ints

    def __len__(self) -> int:
        return len(self.ends)

    def raw(self, chosen: Ints | slice) -> Given:
        """Windows as the graph is given them, in engineering units."""
        ends = self.ends[chosen]
        x = blocks(self.data.values, self.data.window)[ends - self.data.window + 1]
        stream = self.data.stream[ends]
        return Given(
            x.reshape(len(ends), self.data.window, self.data.channels),
            self.data.scaling.loc[stream],
            self.data.scaling.scale[stream],
            None if self.data.context is None else self.data.context[ends],
        )

    def batches(self, size: int = 1024) -> Iterator[slice]:
        """Slices that cover all windows in order."""
        return (slice(at, at + size) for at in range(0, len(self.ends), size))


@dataclass(frozen=True)
class Prepared:
    """R rows of all streams, laid end to end, rows of NaN where readings are missing; S streams, C channels."""

    names: tuple[str, ...]
    window: int
    interval_ns: int
    values: Floats
    """``[R, C]``, engineering units."""
    scaled: Floats
    """``[R, C]``, clipped, 0 where missing."""
    observed: NDArray[np.bool_]
    """``[R, C]``."""
    given: NDArray[np.bool_]
    """``[R]``: the row is a reading; the others stand for missing ones."""
    season: Season | None
    """What the context is made from."""
    context: Floats | None
    """``[R, K]``, engineering units, NaN where nothing is known; None: there is no context."""
    stream: Ints
    """``[R]``, which of ``names``."""
    scaling: Scaling
    fit_ends: Ints
    validation_ends: Ints
    calibration_ends: Ints
    calibration_start: Ints
    """``[S]``, ns: readings from here on are of the calibration stretch."""

    @property
    def channels(self) -> int:
        """C."""
        return int(self.values.shape[1])

    @property
    def fit(self) -> Windows:
        """What the weights are fitted on."""
        return Windows(self, self.fit_ends)

    @property
    def validation(self) -> Windows:
        """What says when to stop."""
        return Windows(self, self.validation_ends)

    @property
    def calibration(self) -> Windows:
        """What sets the threshold."""
        return Windows(self, self.calibration_ends)


def load(sources: Sequence[str], settings: SourceSettings, catalogue: Sequence[Channel] | None) -> Table:
    """The readings of files, or of one Kafka topic written as ``kafka://HOST:PORT/TOPIC``."""
    names = None if catalogue is None else [channel.name for channel in catalogue]
    topic = topic_of(sources)
    if topic is None:
        return read_table(sources, channels=names, default_stream=settings.stream)
    from detector.adapters.kafka_security import client_settings  # here: files need no Kafka client
    from detector.history import read_topic

    fields = FieldNames(stream=settings.stream_field, timestamp=settings.timestamp_field, values=settings.values_field)
    return read_topic(
        *topic, settings.span, names,
        fields=fields, streams=settings.streams, timeout_s=settings.startup_timeout, client=client_settings(settings),
    )  # fmt: skip


def topic_of(sources: Sequence[str]) -> tuple[str, str] | None:
    """(bootstrap servers, topic) where the source is one; None: files. Raises SettingsError where it is no address."""
    topics = [source for source in sources if source.startswith(KAFKA)]
    if not topics:
        return None
    if len(sources) > 1:
        raise SettingsError(f"{topics[0]}: a topic cannot be mixed with other data: name it alone")
    servers, slash, topic = topics[0].removeprefix(KAFKA).partition("/")
    if not servers or not slash or not topic or "/" in topic:
        raise SettingsError(f"{topics[0]} is no topic's address: write kafka://HOST:PORT/TOPIC")
    return servers, topic


def read_catalogue(path: str) -> list[Channel]:
    """Channels of a TOML file with a table ``[[channel]]`` each: ``name`` and, as wanted, the others of LISTED.

    ``min`` and ``max``: beyond them a value is physically impossible. What is not listed is left to the data.
    """
    try:
        listed = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}: name another file with --channels") from error
    except ValueError as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from error
    tables = listed.pop("channel", None)
    if listed or not isinstance(tables, list) or not tables:
        raise SettingsError(f"{path}: write one [[channel]] for each channel, and nothing else")
    channels: list[Channel] = []
    for number, table in enumerate(tables, 1):
        where = f"{path}, channel {number}"
        if unknown := [key for key in table if key not in LISTED]:
            raise SettingsError(f"{where}, {unknown[0]}: no such key: there are {', '.join(LISTED)}")
        try:
            channels.append(Channel.model_validate(table))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise SettingsError(f"{where}, {key}: {first['msg']}") from error
        low, high = channels[-1].min, channels[-1].max
        if low is not None and high is not None and not low < high:
            raise SettingsError(f"{where}, min: {low:g} is not below max, {high:g}: swap or correct them")
    names = [channel.name for channel in channels]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{path}: the channel {name} is listed twice: remove one")
    return channels


def fingerprint(table: Table) -> str:
    """SHA-256 over channels, streams, times and values."""
    digest = hashlib.sha256()
    for texts in (table.channels, table.streams):
        for part in chunks(len(texts), 1):
            joined = "\0".join(take(texts, np.arange(part.start, part.stop)))
            digest.update((("\0" if part.start else "") + joined).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    digest.update(np.ascontiguousarray(table.times, "<i8").data)
    for part in chunks(len(table), len(table.channels)):
        values = table.values[part]
        digest.update(np.ascontiguousarray(np.where(np.isnan(values), np.nan, values), "<f4").tobytes())
    return digest.hexdigest()


def rows_by_stream(table: Table) -> dict[str, Ints]:
    """Rows of each stream in order of arrival, streams in alphabetical order."""
    streams = coded(table.streams)
    alphabetical = sorted(range(len(streams.names)), key=streams.names.__getitem__)
    rank = np.empty(len(alphabetical), np.int32)
    rank[alphabetical] = np.arange(len(alphabetical))
    of_row = rank[streams.codes]
    order = np.argsort(of_row, kind="stable")
    cuts = np.cumsum(np.bincount(of_row, minlength=len(rank)))[:-1]
    names = [streams.names[code] for code in alphabetical]
    return {name: rows for name, rows in zip(names, np.split(order, cuts), strict=True) if len(rows)}


def interval_of(table: Table, by_stream: dict[str, Ints]) -> int:
    """Nanoseconds between readings: the median over streams of the median step of each."""
    steps = (np.diff(np.unique(table.times[rows])) for rows in by_stream.values())
    medians = [np.median(step) for step in steps if len(step)]
    if not medians:
        raise DataError(f"{len(table)} readings, none of a stream's with another time: at least two are needed")
    return max(round(float(np.median(medians))), 1)


def prepare(table: Table, window: int, settings: FitSettings, catalogue: Sequence[Channel] | None = None) -> Prepared:
    """Rows, scaling, season and windows of each part. Raises DataError where there is too little.

    Arrays ``[R, C]`` lie on disk where they are large, and are made part by part; in memory are some 100 bytes per
    reading, however many channels it has.
    """
    if not len(table):
        raise DataError("the data hold no readings: some hundreds are needed at least")
    by_stream = rows_by_stream(table)
    interval = interval_of(table, by_stream)
    laid = _lay_out(table, by_stream, interval, window, settings)
    values, observed, given = _values(table, laid)
    learned = laid.part < VALIDATION + 1  # the validation stretch included: it only says when to stop
    scaling = scaling_of(values, laid.stream, len(by_stream), settings.scale_floor, catalogue, learned)
    z: Floats = empty(values.shape, np.float32)
    for part in chunks(*values.shape):
        z[part] = scaled(values[part], observed[part], scaling, laid.stream[part])
    season = season_of(laid.times, z, observed, learned, laid.stream, interval, settings.context)
    context = None if season is None else context_of(season, laid.times, values, laid.stream, scaling)
    usable = laid.whole & observed.any(axis=1)
    fit_ends, validation_ends, calibration_ends = (
        np.flatnonzero(usable & (laid.part == part)) for part in (FIT, VALIDATION, CALIBRATION)
    )
    prepared = Prepared(
        names=tuple(by_stream),
        window=window,
        interval_ns=interval,
        values=values,
        scaled=z,
        observed=observed,
        given=given,
        season=season,
        context=context,
        stream=laid.stream,
        scaling=scaling,
        fit_ends=fit_ends if context is None else _with_context(fit_ends, context),
        validation_ends=validation_ends,
        calibration_ends=calibration_ends,
        calibration_start=laid.calibration_start,
    )
    _check_enough(prepared, len(table))
    return prepared


@dataclass(frozen=True)
class _Laid:
    """Where the N readings lie among the R rows, and what is known of each row but its values."""

    row: Ints
    """``[N]``; -1: the reading is late or a duplicate and has none."""
    times: Ints
    """``[R]``."""
    part: NDArray[np.int8]
    """``[R]``: FIT, VALIDATION or CALIBRATION."""
    stream: Ints
    """``[R]``."""
    whole: NDArray[np.bool_]
    """``[R]``: a whole window ends at the row."""
    calibration_start: Ints
    """``[S]``."""


def _lay_out(table: Table, by_stream: dict[str, Ints], interval: int, window: int, settings: FitSettings) -> _Laid:
    row = np.full(len(table), -1)
    times: list[Ints] = []
    parts: list[NDArray[np.int8]] = []
    whole: list[NDArray[np.bool_]] = []
    calibration_start = np.empty(len(by_stream), np.int64)
    first = 0
    for index, readings in enumerate(by_stream.values()):
        own = layout(table.times[readings], interval, window)
        validation_start, calibration_start[index] = split_times(table.times[readings], settings)
        row[readings[own.kept]] = own.row + first
        times.append(own.times)
        starts = [validation_start, calibration_start[index]]
        parts.append(np.searchsorted(starts, own.times, side="right").astype(np.int8))
        age = np.arange(len(own.times)) - np.repeat(own.starts, np.diff(own.starts, append=len(own.times)))
        whole.append(age >= window - 1)
        first += len(own.times)
    stream = np.repeat(np.arange(len(by_stream)), [len(own) for own in times])
    return _Laid(row, np.concatenate(times), np.concatenate(parts), stream, np.concatenate(whole), calibration_start)


def _values(table: Table, laid: _Laid) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows ``[R, C]``, NaN where a reading is missing, what is observed of them, and which are readings ``[R]``.

    The table is gone through once, in its order, and each part written to where its streams lie: read stream by stream,
    a table on disk would be read as often as it has streams.
    """
    shape = (len(laid.times), len(table.channels))
    values: Floats = empty(shape, np.float32)
    filled = np.zeros(len(values), bool)
    for part in chunks(len(table), shape[1]):
        rows = laid.row[part]
        kept = rows >= 0
        values[rows[kept]] = table.values[part][kept]
        filled[rows[kept]] = True
    values[~filled] = np.nan
    observed: NDArray[np.bool_] = empty(shape, np.bool_)
    for part in chunks(*shape):
        np.logical_not(np.isnan(values[part]), out=observed[part])
    return values, observed, filled


def _with_context(ends: Ints, context: Floats) -> Ints:
    """Those of the windows whose season is known, unless they are less than half of them.

    What stands in for an unknown season is another quantity; a network would learn a mixture of both.
    """
    parts = [~np.isnan(context[ends[part]]).all(axis=1) for part in chunks(len(ends), context.shape[1])]
    known = np.concatenate([np.zeros(0, bool), *parts])
    return ends[known] if 2 * known.sum() >= len(ends) else ends


def split_times(times: Ints, settings: FitSettings) -> tuple[int, int]:
    """Times at which validation and calibration of one stream start: by count, so that each has its share of readings.

    Those of late readings and duplicates count as the readings that they repeat.
    """
    distinct = np.unique(times)
    calibration = min(round(len(distinct) * (1 - settings.calibration_share)), len(distinct) - 1)
    validation = round(calibration * (1 - settings.validation_share))
    return int(distinct[validation]), int(distinct[calibration])


def scaled(values: Floats, observed: NDArray[np.bool_], scaling: Scaling, stream: Ints) -> Floats:
    """Rows ``[R, C]`` as the graph scales them: ``(x - loc) / scale``, clipped at CLIP, 0 where missing."""
    z = values - scaling.loc[stream]
    z /= scaling.scale[stream]
    np.clip(z, -CLIP, CLIP, out=z)
    z[~observed] = 0
    return z


def _check_enough(prepared: Prepared, readings: int) -> None:
    parts = {"fit": prepared.fit_ends, "calibrate": prepared.calibration_ends}
    total = sum(map(len, (prepared.fit_ends, prepared.validation_ends, prepared.calibration_ends)))
    found = f"{readings} readings, one every {prepared.interval_ns / SECOND_NS:g} s as the median step says"
    if total < LEAST_WINDOWS:
        raise DataError(
            f"{found}, hold {total} whole windows of {prepared.window}; {LEAST_WINDOWS} are needed: bring at least "
            f"{prepared.window + LEAST_WINDOWS} readings without gaps, or take a shorter window with --set window=N"
        )
    for purpose, ends in parts.items():
        if not len(ends):
            raise DataError(
                f"{found}, hold no whole window of {prepared.window} to {purpose} on: bring more readings without "
                "gaps, or change --set calibration_share=…"
            )
