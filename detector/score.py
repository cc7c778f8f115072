"""``detector score``: files through the same engine, with the same scores and the same alerts as a live topic."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.adapters.aside import aside
from detector.adapters.files import Table, read_table
from detector.adapters.images import are_images, read_images
from detector.adapters.overflow import chunks, empty
from detector.adapters.scores import ScoresWriter, write_scores
from detector.engine.engine import Engine, Scored
from detector.engine.readings import at_once
from detector.loading import load_engine
from detector.progress import progress
from detector.rehearsal import Record, render
from detector.rehearsal.other import parse_other
from schemas.alert import EventType
from schemas.errors import DataError, SettingsError
from schemas.manifest import Manifest
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)

#: Readings per call of the engine, at most: bounds memory; what is written does not depend on it.
BATCH = 8192


def score(
    settings: DetectorSettings,
    data: Sequence[str],
    *,
    out: str,
    alerts: str | None = None,
    history: Sequence[str] = (),
    default_stream: str = "default",
    partitions: int = 1,
    report: str | None = None,
    compare: str | None = None,
) -> None:
    """Score ``data`` into the file ``out``, its events into ``alerts`` and what they come to into the page ``report``.

    ``history``: readings that come before; they move the state and publish nothing, so an incident that they leave
    open is not carried over. (With a lateness its newest readings wait, and go on like those of ``data``.) ``compare``:
    other settings, KEY=VALUE,…, that the page sets beside these. Raises UserError for whatever the files hold that
    cannot be read, or cannot be written.

    A row's ``alert`` is 1 where an incident of its stream is open after the reading was scored or, where it came too
    late, after the one before it was. A row that still waits at the end of the data, or repeats one that waited, has
    no score, and its ``alert`` is 0.
    """
    if partitions < 1:
        raise SettingsError(f"--partitions {partitions}: name at least 1")
    if compare is not None and report is None:
        raise SettingsError("--compare is shown on the page: name one with --report")
    _check_places([*data, *history], {"--out": out, "--alerts": alerts, "--report": report})
    others, changed = parse_other(settings, compare) if compare is not None else (None, {})
    engine = load_engine(settings)
    manifest = engine.model.manifest
    batch = at_once(BATCH, manifest.values)
    before = read(history, manifest, default_stream) if history else None
    table = read(data, manifest, default_stream)
    record = Record(engine, settings, table) if report else None
    with ExitStack() as stack:  # all files appear when everything has gone well, or none
        events = stack.enter_context(aside(alerts)) if alerts else None
        rows = stack.enter_context(write_scores(out, manifest.channel_names))
        page = stack.enter_context(aside(report)) if report else None
        kept = _Kept(table, len(manifest.channels)) if engine.policy.lateness else None
        opened, counts = 0, Counter[str]()
        for step in _run(engine, before, table, batch, partitions):
            if kept:
                kept.add(step)
            else:
                _write(rows, table, step)
            counts += step.scored.counts
            if record:
                record.add(step.arrived, step.scored, step.rows)
            for published in step.scored.published:
                opened += published.alert.type is EventType.OPENED
                if events:
                    events.write(published.alert.to_bytes().decode() + "\n")
        if kept:
            kept.write(rows)
        if page and record:
            other = _rehearse(others, before, table, batch, partitions) if others else None
            page.write(render(record, other, changed))
    waiting = f", {engine.waiting} still waiting, {counts['released_early']} released early" if kept else ""
    waiting += f", {counts['machine_off']} while off" if counts["machine_off"] else ""
    log.info(
        "%d of %d readings scored (%d in warm-up, %d late, %d duplicate%s), %d incidents opened",
        counts["scored"], len(table), counts["warming_up"], counts["late"], counts["duplicate"], waiting, opened,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Step:
    """One batch of a table. ``arrived``: the rows that it brought, in the order in which they were processed;
    ``rows`` ``[N]``: the row of each of the N readings that ``scored`` is about, -1: one of the history.
    """

    start: int
    arrived: NDArray[np.int64]
    rows: NDArray[np.int64]
    scored: Scored


def _run(
    engine: Engine, before: Table | None, table: Table, batch: int, partitions: int, what: str = "scoring"
) -> Iterator[_Step]:
    """Process a table, batch by batch."""
    first = 0  # number of the table's first reading
    if before is not None:
        for readings in progress(before.batches(batch, partitions), len(before), batch, "history"):
            engine.process(readings)
        for partition in range(partitions):
            engine.set_incidents(partition, {})
        first = len(before)
    order = table.order(batch, partitions)
    for number, readings in enumerate(progress(table.batches(batch, partitions), len(table), batch, what)):
        start, scored = number * batch, engine.process(readings)
        ours = scored.number >= first
        rows = np.where(ours, order[np.where(ours, scored.number - first, 0)], -1)
        yield _Step(start, order[start : start + batch], rows, scored)


def _rehearse(settings: DetectorSettings, before: Table | None, table: Table, batch: int, partitions: int) -> Record:
    """The same readings through an engine of their own, under other settings."""
    engine = load_engine(settings)
    record = Record(engine, settings, table, traced=False)
    for step in _run(engine, before, table, batch, partitions, "comparing"):
        record.add(step.arrived, step.scored, step.rows)
    return record


def read(sources: Sequence[str], manifest: Manifest, default_stream: str) -> Table:
    """The readings of files as a model takes them. Raises DataError where they are of another kind."""
    images = are_images(sources)
    if images != (manifest.frame is not None):
        what, wanted = ("images", "tables of readings") if images else ("no images", f"images of {manifest.frame}")
        raise DataError(f"{', '.join(sources)}: {what}, and the model was fitted on {wanted}: name another --model")
    if images:
        return read_images(sources, default_stream, manifest.frame).table
    return read_table(sources, channels=manifest.channel_names, default_stream=default_stream)


def _check_places(sources: Sequence[str], written: Mapping[str, str | None]) -> None:
    """Refuse to write one file over another that this run reads or writes. ``written``: file by flag."""
    places = [(flag, path) for flag, path in written.items() if path is not None]
    for (flag, path), (other, same) in combinations(places, 2):
        if Path(path).resolve() == Path(same).resolve() and not Path(path).is_char_device():
            raise SettingsError(f"{flag} and {other} are both {path}: name two files")
    for source in sources:
        read = {Path(source).resolve(), Path(source.partition("=")[2] or source).resolve()}
        for _, path in places:
            if Path(path).is_file() and Path(path).resolve() in read:
                raise SettingsError(f"{path} is read and would be written over: name another file")


def _write(rows: ScoresWriter, table: Table, step: _Step) -> None:
    """The rows of one batch in which nothing waits, brought back from the order of partitions into the table's."""
    start, scored = step.start, step.scored
    stop = start + len(scored.score)
    back = np.argsort(step.rows)
    rows.write(
        table.streams[start:stop],
        table.timestamps[start:stop],
        scored.score[back],
        scored.p_value[back],
        scored.alert[back],
        scored.error[back],
    )


class _Kept:
    """What became of the rows of a table, where a row's score may come after those of later rows."""

    def __init__(self, table: Table, channels: int) -> None:
        n = len(table)
        self._table, self._channels = table, channels
        self._score, self._p_value = empty((n,), np.float32), empty((n,), np.float32)
        self._alert, self._error = empty((n,), np.bool_), empty((n, channels), np.float32)

    def add(self, step: _Step) -> None:
        """The next batch."""
        for column in (self._score, self._p_value, self._error):
            column[step.arrived] = np.nan  # until they are released
        self._alert[step.arrived] = False
        ours, scored = step.rows >= 0, step.scored
        rows = step.rows[ours]
        self._score[rows], self._p_value[rows] = scored.score[ours], scored.p_value[ours]
        self._alert[rows], self._error[rows] = scored.alert[ours], scored.error[ours]

    def write(self, rows: ScoresWriter) -> None:
        """All rows, in the table's order."""
        for part in chunks(len(self._table), self._channels):
            rows.write(
                self._table.streams[part],
                self._table.timestamps[part],
                self._score[part],
                self._p_value[part],
                self._alert[part],
                self._error[part],
            )
