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
from detector.adapters.scores import ScoresWriter, write_scores
from detector.engine.engine import Scored
from detector.loading import load_engine
from detector.progress import progress
from schemas.errors import SettingsError
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)

#: Readings per call of the engine: bounds memory; what is written does not depend on it.
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
    channels = engine.model.manifest.channel_names
    before = read_table(history, channels=channels, default_stream=default_stream) if history else None
    table = read_table(data, channels=channels, default_stream=default_stream)
    with ExitStack() as stack:  # both files appear when everything has gone well, or neither
        events = stack.enter_context(aside(alerts)) if alerts else None
        rows = stack.enter_context(write_scores(out, channels))
        if before is not None:
            for batch in progress(before.batches(BATCH, partitions), len(before), BATCH, "history"):
                engine.process(batch)
            for partition in range(partitions):
                engine.set_incidents(partition, {})
        order = table.order(BATCH, partitions)
        opened, counts = 0, Counter[str]()
        for number, batch in enumerate(progress(table.batches(BATCH, partitions), len(table), BATCH, "scoring")):
            scored = engine.process(batch)
            _write(rows, table, number * BATCH, scored, order)
            counts += scored.counts
            for published in scored.published:
                opened += not published.resolved
                if events:
                    events.write(published.alert.to_bytes().decode() + "\n")
    log.info(
        "%d of %d readings scored (%d in warm-up, %d late, %d duplicate), %d incidents opened",
        counts["scored"], len(table), counts["warming_up"], counts["late"], counts["duplicate"], opened,
    )  # fmt: skip


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
