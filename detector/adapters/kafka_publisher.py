"""The producer's side: one transaction after the other, and a fresh producer after each that failed."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from kafka import KafkaProducer, TopicPartition
from kafka import errors as vendor
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from detector.adapters import kafka_bulk
from detector.adapters.kafka_clients import BATCH_BYTES, DELIVERY_TIMEOUT_MS, Clients, await_answer, discard, root_of
from detector.adapters.kafka_errors import translate
from detector.adapters.kafka_state import StateTopic
from detector.adapters.kafka_topics import Topics
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Committed, ScoreRecord, Step, Transaction, Watch, unwatched
from schemas.dead_letter import DeadLetter
from schemas.errors import BrokerUnavailable, Fenced, Rebalanced, ResidualError, UserError

log = logging.getLogger(__name__)

#: Version of what is written into an offset's metadata.
METADATA_VERSION = 1

# Transactions in a row that may fail for other reasons than a rebalance, before the process gives up: each one costs a
# restore, and what fails this often will not heal by being done again.
MOST_FAILURES = 10

# Bytes of a dead letter's key, at most: a record is refused when key and value together are over the topic's limit.
MAX_KEY_BYTES = 65_536


class Publisher:
    """Publishes transactions. ``named``: whether the user gave the replica id, so that another may have it, too."""

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        state: StateTopic,
        *,
        transactional_id: str,
        transaction_timeout_ms: int,
        named: bool,
        patience_s: float,
        deadline: float,
    ) -> None:
        self._clients, self._topics, self._state = clients, topics, state
        self._id, self._timeout_ms = transactional_id, transaction_timeout_ms
        self._named, self._patience_s = named, patience_s
        self._failures = 0
        self._producer: KafkaProducer = self._connect(deadline)

    def publish(self, transaction: Transaction, identity: ConsumerGroupMetadata, watch: Watch = unwatched) -> None:
        """Make a transaction visible; see ``Log.commit``.

        1. begin, 2. send everything, 3. hand over the offsets under the identity that polled the records, 4. wait for
        every send (the client can commit although it gave one up), 5. commit.
        """
        producer = self._producer
        deadline = time.monotonic() + self._timeout_ms / 1000
        try:
            producer.begin_transaction()  # 1
            watch(Step.BEGUN)
            owner = self._state.owner_records(record.partition for record in transaction.state)
            futures = self._send(producer, transaction)  # 2
            watch(Step.SENT)
            manager = producer._transaction_manager
            offsets = self._offsets(transaction.offsets)
            await_answer(producer, manager.send_offsets_to_transaction(offsets, identity), deadline)  # 3
            watch(Step.OFFSETS)
            for future in futures:  # 4
                future.get(timeout=DELIVERY_TIMEOUT_MS / 1000 + 5)
            watch(Step.ACKNOWLEDGED)
            await_answer(producer, manager.begin_commit(), deadline)  # 5
        except Exception as error:
            raise self._failed(error) from error
        watch(Step.COMMITTED)
        self._state.written(owner)
        self._failures = 0

    def renew(self) -> None:
        """Connect anew: a client does not look again for the partitions of a topic that it knows."""
        discard(self._producer)
        self._producer = self._connect(time.monotonic() + self._patience_s)

    def close(self, timeout_s: float) -> None:
        """Let go of the connection; a transaction is never open between two calls of ``publish``."""
        self._producer.close(timeout=timeout_s)

    def _send(self, producer: KafkaProducer, transaction: Transaction) -> list[Any]:
        futures = [producer.send(self._topics.alerts, value=value, key=key) for key, value in transaction.alerts]
        futures += kafka_bulk.send(producer, self._topics.dead_letters, _rows(transaction.dead_letters), BATCH_BYTES)
        if transaction.scores and self._topics.scores is not None:
            futures += kafka_bulk.send(producer, self._topics.scores, self._scores(transaction.scores), BATCH_BYTES)
        # the owner's record goes first: the look at the start sees a partition's first record only
        owner = self._state.owner_records(record.partition for record in transaction.state)
        futures += [
            producer.send(self._state.topic, value=record.value, key=record.key, partition=record.partition)
            for record in [*owner, *transaction.state]
        ]
        return futures

    def _scores(self, scores: Iterable[ScoreRecord]) -> dict[int, list[kafka_bulk.Row]]:
        """By the partition that a stream's records go to."""
        count = len(self._producer.partitions_for(self._topics.scores))
        rows: dict[int, list[kafka_bulk.Row]] = defaultdict(list)
        for record in scores:
            rows[partition_of(record.key, count)].append((record.key, record.value, ()))
        return rows

    def _offsets(self, offsets: Mapping[int, Committed]) -> dict[TopicPartition, OffsetAndMetadata]:
        return {TopicPartition(self._topics.readings, p): to_metadata(committed) for p, committed in offsets.items()}

    # -- after a failure ---------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> ResidualError:
        """What to raise; by then a new producer has ended the transaction, so that its outcome is settled.

        The producer is never used again, not even after an abort: kafka-python 3.0.12 keeps the offsets of a commit
        that was refused and sends them along with the next one, for partitions that may be another's by now. And an
        abort knows no time-out, while the new producer's start, which makes the broker end the transaction, does.
        """
        root = root_of(self._producer, error)
        ours = translate(root, "publishing")
        discard(self._producer)
        if isinstance(ours, UserError):
            return ours
        if isinstance(ours, Fenced) and self._named:
            return ours
        # nobody else can have an id that was made up here: "fenced" then says that the broker ended a transaction
        # that took longer than its time-out
        moved_on = isinstance(root, vendor.CommitFailedError)
        self._failures += not moved_on
        log.warning("a transaction failed and is done again: %s", ours)
        if self._failures > MOST_FAILURES:
            return BrokerUnavailable(f"{self._failures} transactions failed in a row: {ours}")
        try:
            self._producer = self._connect(time.monotonic() + self._patience_s)
        except ResidualError as unable:
            return unable
        return Outdated(str(ours)) if moved_on else Rebalanced(str(ours))

    def _connect(self, deadline: float) -> KafkaProducer:
        try:
            return self._clients.producer(deadline, self._id, self._timeout_ms)
        except ResidualError:
            raise
        except Exception as error:
            raise translate(error, f"starting the producer {self._id}") from error


def _rows(letters: Iterable[DeadLetter]) -> dict[int, list[kafka_bulk.Row]]:
    """Dead letters as records, by the partition that they came from."""
    rows: dict[int, list[kafka_bulk.Row]] = defaultdict(list)
    for letter in letters:
        key, value = letter.key, letter.body()
        if key is not None:
            key = key[:MAX_KEY_BYTES]
        elif value is None:
            key = b""  # a record with neither says nothing to anybody
        rows[letter.partition].append((key, value, letter.headers()))
    return rows


class Outdated(Rebalanced):
    """The broker has refused our generation: whatever is owned will be assigned anew."""


def to_metadata(committed: Committed) -> OffsetAndMetadata:
    """What is committed to Kafka: the offset, and R with a version in its metadata."""
    said = {"v": METADATA_VERSION, "replay_from": committed.replay_from, "topic": committed.topic_id}
    return OffsetAndMetadata(committed.offset, orjson.dumps(said).decode(), -1)


def from_metadata(found: OffsetAndMetadata) -> Committed:
    """What was committed; without R where somebody else did it."""
    try:
        said = orjson.loads(found.metadata or "")
        if said["v"] == METADATA_VERSION and 0 <= said["replay_from"] <= found.offset:
            return Committed(found.offset, int(said["replay_from"]), said.get("topic"))
    except (ValueError, TypeError, KeyError):
        pass
    return Committed(found.offset, None)
