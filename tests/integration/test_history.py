"""Learning from a topic: what lies within the span, whatever else is there."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from kafka_cluster import create_topic, produce, unique

from detector.adapters import overflow
from detector.history import read_topic
from schemas.errors import DataError, TopicError

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


def reading(stream: str, day: float, **values: object) -> bytes:
    return orjson.dumps({"stream": stream, "timestamp": int(1.7e12 + day * DAY_MS), "values": values})


def test_the_span_back_from_the_newest_reading(broker, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = create_topic(broker.bootstrap, unique("history"), 2)
    records = [(n % 2, None, reading(f"s{n % 2}", n / 100, a=n, b=None)) for n in range(3000)]
    records.insert(2500, (0, None, b"no reading"))
    records.append((1, None, orjson.dumps([orjson.loads(reading("s1", 29.99, late=1.5))])))
    produce(broker.bootstrap, topic, records)
    table = read_topic(broker.bootstrap, topic, 10 * 86_400)
    assert table.channels == ("a", "late")
    # newest is day 29.99, so from day 19.99 on: 1001 readings and the one of another channel
    assert len(table) == 1002
    assert sorted(table.values[:, 0][~np.isnan(table.values[:, 0])].tolist()) == list(range(1999, 3000))
    assert set(table.streams) == {"s0", "s1"}
    assert len(read_topic(broker.bootstrap, topic, 10**9, ["b"])) == 3000
    monkeypatch.setattr(overflow, "LIMIT", 100)
    monkeypatch.setattr(overflow, "CHUNK_CELLS", 100)
    on_disk = read_topic(broker.bootstrap, topic, 10 * 86_400)
    np.testing.assert_array_equal(on_disk.values, table.values)
    assert on_disk.values.base is not None  # a file's
    for name in ("streams", "timestamps"):
        assert list(getattr(on_disk, name)) == list(getattr(table, name))


def test_what_cannot_be_learned_from(broker) -> None:
    with pytest.raises(TopicError, match="there is no topic nowhere"):
        read_topic(broker.bootstrap, "nowhere", 60)
    topic = create_topic(broker.bootstrap, unique("empty"), 1)
    with pytest.raises(DataError, match="holds no reading"):
        read_topic(broker.bootstrap, topic, 60)
    produce(broker.bootstrap, topic, [(0, None, reading("s", 0, label=1))])
    with pytest.raises(DataError, match="label"):
        read_topic(broker.bootstrap, topic, 60)
