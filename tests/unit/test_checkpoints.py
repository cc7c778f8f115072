"""The state topic's records: they come back as they went, and nothing half is believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoints import CHUNK_BYTES, Checkpoint, Progress, Stored, incident_record
from schemas.errors import ModelError


def apply(topic: dict[bytes, bytes], records) -> dict[bytes, bytes]:
    for record in records:
        if record.value is None:
            topic.pop(record.key, None)
        else:
            topic[record.key] = record.value
    return topic


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3 * CHUNK_BYTES)), max_size=6))
def test_the_newest_checkpoint_of_each_bucket_comes_back(writes: list[tuple[int, int]]) -> None:
    topic: dict[bytes, bytes] = {}
    chunks: dict[int, int] = {}
    latest = {}
    for offset, (bucket, size) in enumerate(writes):
        data = bytes([offset]) * size
        records = list(Checkpoint(bucket, offset, data).records("g", 0, chunks.get(bucket, 0)))
        apply(topic, records)
        chunks[bucket] = sum(r.value is not None for r in records)
        latest[bucket] = (offset, data)
        assert all(r.value is None or len(r.value) < CHUNK_BYTES + 200 for r in records)
    stored = Stored.parse("g", 0, topic)
    assert {c.bucket: (c.offset, c.data) for c in stored.checkpoints} == latest
    assert stored.chunks == chunks


def test_incidents_come_back_and_go() -> None:
    topic = apply({}, [incident_record("g", 0, "a/b ☃", b"\x00\n{"), incident_record("g", 0, "x", b"")])
    assert Stored.parse("g", 0, topic).incidents == {"a/b ☃": b"\x00\n{", "x": b""}
    apply(topic, [incident_record("g", 0, "x", None)])
    assert Stored.parse("g", 0, topic).incidents == {"a/b ☃": b"\x00\n{"}


def test_another_model_groups_records_are_not_ours() -> None:
    topic = apply({}, [incident_record("other", 0, "a", b"1")])
    assert Stored.parse("g", 0, topic).incidents == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda topic: topic.pop(b"g/7/1"),
        lambda topic: topic.update({b"g/7/1": topic[b"g/7/1"].replace(b'"offset":9', b'"offset":8')}),
        lambda topic: topic.update({b"g/7/0": b"no header"}),
        lambda topic: topic.update({b"g/7/0": topic[b"g/7/0"].replace(b'"version":1', b'"version":2')}),
        lambda topic: topic.update({b"g/7/1": topic[b"g/7/1"].replace(b'"entries":3', b'"entries":2')}),
        lambda topic: topic.update({b"g/incident/s": b"{}"}),
        lambda topic: topic.update({b"g/incident/s": b'{"version":1,"opened":5,"events":1}'}),
    ],
)
def test_what_cannot_be_read_stops_the_start(damage) -> None:
    topic = apply({}, Checkpoint(7, 9, b"x" * (CHUNK_BYTES + 1), 3).records("g", 0, 0))
    damage(topic)
    with pytest.raises(ModelError):
        Stored.parse("g", 0, topic)


def test_progress_knows_from_where_to_replay() -> None:
    progress = Progress(0)
    assert progress.replay_from(10) == 10
    progress.touch(np.array([3, 4, 3]), np.array([10, 11, 12]), now=1.0)
    progress.touch(np.array([4, 5]), np.array([13, 14]), now=2.0)
    assert progress.replay_from(15) == 10
    assert progress.due(before=1.5) == [(1.0, 3), (1.0, 4)]
    progress.mark_saved(3, 15, 1)
    assert progress.replay_from(15) == 11
    progress.touch(np.array([3]), np.array([16]), now=3.0)
    assert [bucket for _, bucket in progress.due(before=9.0)] == [4, 5, 3]
    for bucket in (3, 4, 5):
        progress.mark_saved(bucket, 17, 1)
    assert progress.replay_from(17) == 17
