"""``detector score``: files through the same engine, with the same scores and the same alerts as a live topic."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.adapters.aside import aside
from detector.adapters.files import Table, read_table
from detector.adapters.images import are_images, read_images
from detector.adapters.scores import ScoresWriter, write_scores
from detector.engine.engine import Scored
from detector.engine.readings import at_once
from detector.loading import load_engine
from detector.progress import progress
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
) -> None:
    """Score ``data`` into the file ``out`` and its events into ``alerts``.

    ``history``: readings that come before; they move the state and publish nothing, so an incident that they leave
    open is not carried over. Raises UserError for whatever the files hold that cannot be read, or cannot be written.
    """
    if partitions < 1:
        raise SettingsError(f"--partitions {partitions}: name at least 1")
    _check_places([*data, *history], out, alerts)
    engine = load_engine(settings)
    manifest = engine.model.manifest
    batch = at_once(BATCH, manifest.values)
    before = read(history, manifest, default_stream) if history else None
    table = read(data, manifest, default_stream)
    with ExitStack() as stack:  # both files appear when everything has gone well, or neither
        events = stack.enter_context(aside(alerts)) if alerts else None
        rows = stack.enter_context(write_scores(out, manifest.channel_names))
        if before is not None:
            for readings in progress(before.batches(batch, partitions), len(before), batch, "history"):
                engine.process(readings)
            for partition in range(partitions):
                engine.set_incidents(partition, {})
        order = table.order(batch, partitions)
        opened, counts = 0, Counter[str]()
        for number, readings in enumerate(progress(table.batches(batch, partitions), len(table), batch, "scoring")):
            scored = engine.process(readings)
            _write(rows, table, number * batch, scored, order)
            counts += scored.counts
            for published in scored.published:
                opened += not published.resolved
                if events:
                    events.write(published.alert.to_bytes().decode() + "\n")
    log.info(
        "%d of %d readings scored (%d in warm-up, %d late, %d duplicate), %d incidents opened",
        counts["scored"], len(table), counts["warming_up"], counts["late"], counts["duplicate"], opened,
    )  # fmt: skip


def read(sources: Sequence[str], manifest: Manifest, default_stream: str) -> Table:
    """The readings of files as a model takes them. Raises DataError where they are of another kind."""
    images = are_images(sources)
    if images != (manifest.frame is not None):
        what, wanted = ("images", "tables of readings") if images else ("no images", f"images of {manifest.frame}")
        raise DataError(f"{', '.join(sources)}: {what}, and the model was fitted on {wanted}: name another --model")
    if images:
        return read_images(sources, default_stream, manifest.frame).table
    return read_table(sources, channels=manifest.channel_names, default_stream=default_stream)


def _check_places(sources: Sequence[str], out: str, alerts: str | None) -> None:
    """Refuse to write one file over another that this run reads or writes."""
    if alerts is not None and Path(out).resolve() == Path(alerts).resolve() and not Path(out).is_char_device():
        raise SettingsError(f"--out and --alerts are both {out}: name two files")
    for source in sources:
        read = {Path(source).resolve(), Path(source.partition("=")[2] or source).resolve()}
        for written in (out, alerts):
            if written is not None and Path(written).is_file() and Path(written).resolve() in read:
                raise SettingsError(f"{written} is read and would be written over: name another file")


def _write(rows: ScoresWriter, table: Table, start: int, scored: Scored, order: NDArray[np.int64]) -> None:
    """The rows of one batch, brought back from the order of partitions into that of the table."""
    stop = start + len(scored.score)
    back = np.argsort(order[start:stop])
    rows.write(
        table.streams[start:stop],
        table.timestamps[start:stop],
        scored.score[back],
        scored.p_value[back],
        scored.alert[back],
        scored.error[back],
    )
