"""What nobody can read, over a real Kafka: bombs, headers of no text, a broker's bad disk, records at every limit."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import lz4.frame
import orjson
import pytest
import zstandard
from batches import batch, flip, places, record, segment, send, varint
from broker import Broker
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka_cluster import create_topic, unique
from thorough import thorough
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.decoding.json_readings import MOST_BYTES
from schemas.dead_letter import MAX_VALUE_BYTES

pytestmark = pytest.mark.kafka

START_MS = 1_700_000_000_000
CHANNELS = ("c0", "c1", "c2")


def reading(second: int, **changes: object) -> bytes:
    values = dict.fromkeys(CHANNELS, 0.1)
    return orjson.dumps({"stream": "press", "timestamp": START_MS + 1000 * second, "values": values, **changes})


class Ground:
    """A topic of its own, a model, and detectors that run over it to its end."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker, self.folder, self.group = broker, folder, unique("unreadable")
        self.topic = create_topic(broker.bootstrap, unique("readings"), 1, max_message_bytes=str(30 * 2**20))
        write_model(tiny_model(channels=3, threshold=1.0), folder / "model")

    def send(self, *values: bytes) -> None:
        """Records, a batch each."""
        for value in values:
            send(self.broker.bootstrap, self.topic, 0, batch(record(0, b"press", value), 1, time_ms=START_MS + 10**9))

    def run(self, *flags: str, fails: int = 0) -> tuple[str, int]:
        """A detector to the end of the topic; what it says, and the most memory that it took, in MB."""
        command = [
            sys.executable, "-c", MEASURED, sys.executable, "-m", "detector.cli", "run", "--stop-at-end",
            "--model", str(self.folder / "model"),
            "--bootstrap-servers", self.broker.bootstrap, "--readings-topic", self.topic, "--group-id", self.group,
            "--alerts-topic", f"{self.group}-alerts", "--dead-letters-topic", f"{self.group}-dead", *flags,
        ]  # fmt: skip
        with (self.folder / "log").open("w+b") as said:
            code = subprocess.call(command, stdout=said, stderr=said, cwd=self.folder, env={**os.environ, **PATH})
            said.seek(0)
            text, _, most = said.read().decode().rpartition("most memory: ")
        assert code == fails, text
        return text, int(most) // (1024 if sys.platform == "linux" else 1024**2)

    def letters(self) -> list[tuple[bytes | None, bytes | None, dict[str, str]]]:
        """(key, value, headers) of each dead letter."""
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, isolation_level="read_committed")
        tp, found = TopicPartition(f"{self.group}-dead", 0), []
        try:
            consumer.assign([tp])
            consumer.seek(tp, 0)
            end = consumer.end_offsets([tp])[tp]
            while consumer.position(tp) < end:
                for records in consumer.poll(200).values():
                    found += [(r.key, r.value, {name: value.decode() for name, value in r.headers}) for r in records]
        finally:
            consumer.close()
        return found

    def committed(self) -> int:
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=self.group, enable_auto_commit=False)
        try:
            return int(consumer.committed(TopicPartition(self.topic, 0)) or 0)
        finally:
            consumer.close()


#: Runs a command and says how much memory it took: started from here, what this process holds would count as its own.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("most memory:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

PATH = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture
def ground(broker: Broker, tmp_path: Path) -> Ground:
    return Ground(broker, tmp_path)


# -- bombs -----------------------------------------------------------------------------------------------------------


class Packer:
    """One of Kafka's codecs, piece by piece."""

    def __init__(self, kind: str) -> None:
        self.codec = {"gzip": 1, "lz4": 3, "zstd": 4}[kind]
        if kind == "gzip":
            self._packer: Any = zlib.compressobj(9, wbits=31)
        elif kind == "zstd":
            self._packer = zstandard.ZstdCompressor().compressobj()
        else:
            self._packer = lz4.frame.LZ4FrameCompressor(block_linked=False, block_size=4)

    def pack(self, pieces: Iterable[bytes]) -> bytes:
        begin: Callable[[], bytes] = getattr(self._packer, "begin", bytes)
        return b"".join([begin(), *map(self._packer.compress, pieces), self._packer.flush()])


def one_large_record(packer: Packer, megabytes: int) -> bytes:
    """A batch of one record whose value is so long and of nothing but zeros."""
    size = megabytes * 2**20
    head = b"\0" + varint(0) + varint(0) + varint(5) + b"press" + varint(size)
    pieces = chain([varint(len(head) + size + 1) + head], repeat(bytes(2**20), megabytes), [varint(0)])
    return batch(packer.pack(pieces), 1, codec=packer.codec)


def many_large_records(packer: Packer, count: int) -> bytes:
    """A batch of records of a megabyte."""
    return batch(packer.pack(record(n, b"press", bytes(2**20)) for n in range(count)), count, codec=packer.codec)


def test_batches_that_unpack_to_gigabytes(ground: Ground) -> None:
    """Brokers take them; each is one dead letter, packed as it came, and the readings around them are scored."""
    bombs = [one_large_record(Packer("zstd"), 1500), many_large_records(Packer("zstd"), 1500)]
    bombs += [one_large_record(Packer("gzip"), 300), many_large_records(Packer("lz4"), 300)]
    for number, bomb in enumerate(bombs):
        ground.send(reading(10 * number), reading(10 * number + 1))
        send(ground.broker.bootstrap, ground.topic, 0, bomb)
    ground.send(reading(100))
    said, megabytes = ground.run()
    assert megabytes < 500, "it took 178, and 160 without a bomb"
    letters = ground.letters()
    assert [headers["residual-reason"] for _, _, headers in letters] == ["too-long"] * 4
    spans = [(int(h["residual-offset"]), int(h["residual-until"])) for _, _, h in letters]
    assert [until - first for first, until in spans] == [1, 1500, 1, 300]
    for (_, value, _), bomb in zip(letters, bombs, strict=True):
        assert value is not None
        assert value[61:] == bomb[61:], "but for what a broker writes into its head"
    assert said.count("cannot be read and are passed over (too-long)") == 4
    assert ground.committed() == 9 + 1 + 1500 + 1 + 300
    assert ground.run()[0].count("passed over") == 0


def test_a_batch_of_as_much_as_is_allowed(ground: Ground) -> None:
    """60 MB of records, of a megabyte each, in 6 kB: bad ones all, and one by one."""
    send(ground.broker.bootstrap, ground.topic, 0, many_large_records(Packer("zstd"), 60))
    ground.send(reading(1))
    _, megabytes = ground.run()
    assert megabytes < 500
    assert [headers["residual-reason"] for _, _, headers in ground.letters()] == ["not-json"] * 60


def test_a_header_whose_name_is_no_text(ground: Ground) -> None:
    """The client of Python cannot read such a record, nor what lies in a batch with it."""
    odd = record(0, b"press", reading(1), [(b"\xff\xfe", b"x"), (b"", None)])
    more = record(1, b"press", reading(2), [(b"trace", b"\xff" * 100_000)] * 5)
    send(ground.broker.bootstrap, ground.topic, 0, batch(odd + more + record(2, b"press", b"bad"), 3))
    ground.send(reading(3))
    ground.run()
    assert [(value, h["residual-offset"]) for _, value, h in ground.letters()] == [(b"bad", "2")]
    assert ground.committed() == 4


# -- a bad disk ------------------------------------------------------------------------------------------------------


def damage(ground: Ground, offset: int) -> bytes:
    """Flip a bit in the last byte of the batch that begins at an offset; returns the batch as it lies there now."""
    file = segment(ground.broker.folder / "data", ground.topic, 0)
    (place,) = [(first, end) for first, end, base in places(file.read_bytes()) if base == offset]
    flip(file, place[1] - 1)
    return file.read_bytes()[slice(*place)]


def test_a_damaged_batch_ends_the_process_unless_it_is_to_be_passed_over(ground: Ground) -> None:
    ground.send(*map(reading, range(5)))
    spoilt = damage(ground, 2)
    for _ in range(2):
        said, _ = ground.run(fails=75)
        (line,) = [line for line in said.splitlines() if line.startswith("detector: ")]
        for words in (ground.topic, "partition 0", "offset 2 to 2", "checksum", "--skip-corrupt", "another copy"):
            assert words in line
        assert "Traceback" not in said
        assert ground.committed() == 2
    assert ground.letters() == []

    said, _ = ground.run("--skip-corrupt")
    assert "partition 0: offsets 2 to 2 cannot be read and are passed over (corrupt): the checksum is wrong" in said
    ((key, value, headers),) = ground.letters()
    assert (key, value) == (None, spoilt)
    assert (headers["residual-reason"], headers["residual-topic"]) == ("corrupt", ground.topic)
    assert (headers["residual-offset"], headers["residual-until"]) == ("2", "3")
    assert ground.committed() == 5
    ground.run("--skip-corrupt")
    assert len(ground.letters()) == 1


@thorough
def test_a_disk_that_went_bad_while_the_broker_was_down(own_broker: Broker, tmp_path: Path) -> None:
    ground = Ground(own_broker, tmp_path)
    ground.send(*map(reading, range(6)))
    own_broker.stop()
    damage(ground, 1)
    damage(ground, 4)
    own_broker.start()
    ground.run(fails=75)
    ground.run("--skip-corrupt")
    assert [headers["residual-offset"] for _, _, headers in ground.letters()] == ["1", "4"]
    assert ground.committed() == 6


@thorough
def test_a_batch_whose_length_is_wrong(ground: Ground) -> None:
    """Then the broker itself does not find what follows; some of it is lost, and nothing stands still."""
    ground.send(*map(reading, range(4)))
    file = segment(ground.broker.folder / "data", ground.topic, 0)
    (place,) = [first for first, _, base in places(file.read_bytes()) if base == 2]
    flip(file, place + 8)  # a gigabyte more than it has
    ground.run("--skip-corrupt", "--watchdog", "60s")
    assert {headers["residual-reason"] for _, _, headers in ground.letters()} == {"corrupt"}
    assert ground.committed() == 4


def test_a_damaged_state_is_not_passed_over(ground: Ground) -> None:
    """What is lost of the state cannot be told, so it is an operator's to decide."""
    ground.send(*map(reading, range(20)))
    ground.run("--checkpoint-age", "0")
    state = f"residual-state-{ground.group}"
    file = segment(ground.broker.folder / "data", state, 0)
    _, end, _ = next(places(file.read_bytes()))
    flip(file, end - 1)
    ground.send(reading(21))
    said, _ = ground.run("--skip-corrupt", fails=75)
    (line,) = [line for line in said.splitlines() if line.startswith("detector: ")]
    assert state in line
    assert "--skip-corrupt" not in line


def test_a_bomb_among_the_commands_is_no_command(ground: Ground) -> None:
    ground.send(*map(reading, range(5)))
    ground.run()
    send(ground.broker.bootstrap, f"residual-commands-{ground.group}", 0, one_large_record(Packer("zstd"), 100))
    ground.send(reading(5))
    said, _ = ground.run()
    assert "commands 0 to 0 cannot be read and are ignored: it unpacks to more than" in said
    assert ground.committed() == 6


# -- limits ----------------------------------------------------------------------------------------------------------


def large(size: int, **changes: object) -> bytes:
    """A reading of so many bytes."""
    value = reading(1, **changes)
    return value + b" " * (size - len(value))


def test_records_at_the_limits(ground: Ground) -> None:
    """The longest that is looked into, one byte more, and dead letters on both sides of what their topic takes."""
    key = b"k" * 300_000
    values = [
        large(MOST_BYTES),
        large(MOST_BYTES + 1),
        b"x" * MAX_VALUE_BYTES,
        b"x" * (MAX_VALUE_BYTES + 1),
        b"x" * 20_000_000,
        b"",
    ]
    headers = [(b"h" * 1000, b"v" * 1000)] * 100
    for value in values:
        send(ground.broker.bootstrap, ground.topic, 0, batch(record(0, key, value, headers), 1))
    ground.run()
    found = {int(headers["residual-offset"]): (key, value, headers) for key, value, headers in ground.letters()}
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert [found[n][2]["residual-reason"] for n in sorted(found)] == [
        "too-long",
        *["not-json"] * 2,
        "too-long",
        "empty",
    ]
    assert [found[n][2].get("residual-cut") for n in sorted(found)] == [
        str(MOST_BYTES + 1), None, str(MAX_VALUE_BYTES + 1), "20000000", None
    ]  # fmt: skip
    for n, value in enumerate(values):
        if n in found:
            assert found[n][1] == value[:MAX_VALUE_BYTES]
            assert found[n][0] == key[:65_536]
    assert ground.committed() == len(values)


def test_half_a_million_bad_elements_are_no_transaction_for_ever(ground: Ground) -> None:
    """A dead letter each would take longer than a transaction may, again and again."""
    record_value = b"[" + b"0," * 499_999 + b"0]"
    small = b"[" + b"0," * 4_999 + b"0]"
    producer = KafkaProducer(bootstrap_servers=ground.broker.bootstrap, compression_type="lz4", max_request_size=2**22)
    for _ in range(50):
        producer.send(ground.topic, record_value, timestamp_ms=START_MS)
        producer.send(ground.topic, small, timestamp_ms=START_MS)
    producer.flush()
    producer.close()
    ground.run()
    found = ground.letters()
    elements = sum(int(headers.get("residual-elements", 1)) for _, _, headers in found)
    assert elements == 50 * 500_000 + 50 * 5_000
    assert len(found) < 20_000 * 5
    assert ground.committed() == 100
