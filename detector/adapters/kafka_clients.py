"""The connections to Kafka that one member needs, and how each is set up.

* admin     looks for topics, makes them, and asks for offsets that no group membership is needed for
* consumer  the member of the group: reads the readings
* reader    reads the state topic, another the commands topic; belongs to no group
* producer  writes everything that leaves, in transactions
* writer    writes a command, for the operator's program
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as vendor

from detector.adapters.kafka_assignor import Assignor
from detector.adapters.kafka_batches import CheckedConsumer
from detector.adapters.kafka_connect import Client, Strict
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_topics import MAX_MESSAGE_BYTES
from detector.adapters.port import Damaged
from schemas.dead_letter import Reason
from schemas.errors import BrokerUnavailable, SettingsError

log = logging.getLogger(__name__)

T = TypeVar("T")

# The oldest broker that refuses offsets of a stale generation inside a transaction (KIP-447) and waits with the answer
# for transactions that are still open (KIP-447, require_stable).
OLDEST_BROKER = (2, 5)

# Milliseconds between a producer's retries. The coordinator still finishes the last transaction when the next begins,
# and the client waits a whole back-off then: with the default of 100 the slowest commits took 220 ms, with 5 20 to 40.
PRODUCER_BACKOFF_MS = 5

# Milliseconds between attempts to reach a broker, at most: with the default of 30 s one that is back goes unnoticed.
RECONNECT_BACKOFF_MAX_MS = 1000

# Milliseconds that a request may take. The client's default for consumers is 305 s, and a connection that died without
# a word would hold a fetch that long. Joining a group has its own time-out, from max_poll_interval.
REQUEST_TIMEOUT_MS = 30_000

# Milliseconds after which a send that nobody acknowledged counts as failed: waiting longer than a request makes no
# sense, since the coordinator ends the transaction meanwhile (transaction_timeout).
DELIVERY_TIMEOUT_MS = 35_000

# Milliseconds that a broker holds a fetch while there is nothing new. After a seek the old fetch has to come back
# first, so this bounds how soon a restored partition flows; the default is 500.
FETCH_WAIT_MS = 100

# Milliseconds after which a consumer asks again which partitions a topic has: so soon is one that was added watched.
METADATA_MAX_AGE_MS = 30_000

# Bytes of a fetch per partition: thousands of readings, so that a backlog is read at full speed (default 1 MiB).
PARTITION_FETCH_BYTES = 4 * 1024 * 1024

# Bytes of a produce batch, before compression: far under the broker's limit for a batch (1 MiB by default).
BATCH_BYTES = 256 * 1024


#: What to do about records that a broker has and nobody can read.
RESTORE = "if starting again does not help, restore the partition from another copy"


# Seconds between two attempts at a question, the first and the longest; each is twice the one before, less a random
# part of at most half.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


# Seconds that the coordinator's answer is waited for in any case: it takes 10 to 200 ms, and the sends before it may
# have used up the transaction's time.
LEAST_WAIT_S = 1.0


class Clients:
    """Makes clients of one cluster. ``security``: settings of kafka-python that every connection needs (TLS, SASL)."""

    def __init__(self, bootstrap_servers: str, client_id: str, security: Mapping[str, Any] | None = None) -> None:
        self.servers = bootstrap_servers
        self._common: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in bootstrap_servers.split(",") if server.strip()],
            "client_id": client_id,
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **(security or {}),
        }
        self._reached = False  # until then what refuses a connection counts as ours to say, later as the client's

    def admin(self, deadline: float) -> KafkaAdminClient:
        """An admin client; raises BrokerUnavailable where no broker answers before ``deadline`` (monotonic)."""
        admin = self._open(KafkaAdminClient, deadline)
        version = admin._manager.broker_version
        if version < OLDEST_BROKER:
            admin.close()
            raise SettingsError(f"{self.servers} runs Kafka {'.'.join(map(str, version))}: 2.5 or newer is needed")
        return admin

    @contextmanager
    def administering(self, deadline: float, what: str) -> Iterator[KafkaAdminClient]:
        """An admin client for a few questions; ``what``: what they are for, where the brokers refuse."""
        admin = self.admin(deadline)
        try:
            yield admin
        except VENDOR as error:
            raise translate(error, what) from error
        finally:
            with suppress(Exception):
                admin.close()

    def consumer(
        self,
        deadline: float,
        fetch_wait_ms: int = FETCH_WAIT_MS,
        *,
        passes: Callable[[Damaged], bool] = lambda _: False,
        advice: str = RESTORE,
        **config: Any,
    ) -> CheckedConsumer:
        """A consumer that sees what is committed and nothing else, and leaves offsets alone.

        ``passes``, ``advice``: what of that which cannot be read it gets past, see ``CheckedConsumer``.
        """
        assignor = Assignor()
        consumer = self._open(
            CheckedConsumer,
            deadline,
            passes=passes,
            advice=advice,
            isolation_level="read_committed",  # only then does the client also ask for stable offsets (require_stable)
            enable_auto_commit=False,
            auto_offset_reset="none",  # where to start, and what to do when records are gone, is the service's decision
            allow_auto_create_topics=False,
            partition_assignment_strategy=[assignor],  # KIP-429: who keeps a partition keeps its state
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            fetch_max_wait_ms=fetch_wait_ms,
            metrics_enabled=False,  # they cost per record, and nobody reads them
            **config,
        )
        assignor.owned = consumer._subscription.assigned_partitions
        return consumer

    def producer(self, deadline: float, transactional_id: str, transaction_timeout_ms: int) -> KafkaProducer:
        """A producer that has fenced off every earlier one with this id, and ended the transaction it left open."""
        producer = self._open(
            KafkaProducer,
            deadline,
            transactional_id=transactional_id,
            transaction_timeout_ms=transaction_timeout_ms,
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            batch_size=BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES + 64 * 1024,  # a batch of one record of the largest size
            max_block_ms=max(int(1000 * (deadline - time.monotonic())), 1000),
            retry_backoff_ms=PRODUCER_BACKOFF_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            producer.init_transactions()
        except VENDOR:
            discard(producer)
            raise
        return producer

    def writer(self, deadline: float, **config: Any) -> KafkaProducer:
        """A producer without transactions, whose records count when every replica in sync has them."""
        return self._open(
            KafkaProducer,
            deadline,
            enable_idempotence=True,
            acks="all",
            max_block_ms=max(int(1000 * (deadline - time.monotonic())), 1000),
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **config,
        )

    def _open(self, client: Callable[..., T], deadline: float, **config: Any) -> T:
        tokens = self._common.get("sasl_oauth_token_provider")
        if tokens is not None and not self._reached:
            tokens.ready(deadline)  # here: on the client's own thread an endpoint that is down would go unnoticed
        left_s = max(deadline - time.monotonic(), 1.0)
        kind = Client if self._reached else Strict
        try:
            made = _opened(client, kind, {**self._common, **config, "bootstrap_timeout_ms": int(left_s * 1000)})
            self._reached = True
            return made
        except (vendor.KafkaTimeoutError, vendor.KafkaConnectionError) as error:
            raise BrokerUnavailable(
                f"no Kafka broker answered at {self.servers} within {left_s:.0f} s: "
                "check --bootstrap-servers and whether the broker runs"
            ) from error
        except VENDOR as error:
            raise translate(error, f"connecting to {self.servers}") from error
        except (ValueError, TypeError, AssertionError) as error:  # what the client says of settings it cannot use
            raise SettingsError(f"connecting to {self.servers}: {error}") from error


def _opened(client: Callable[..., T], kind: type[Client], config: dict[str, Any]) -> T:
    """A client; where it cannot be made, its thread and its sockets are not left behind."""
    made = []

    def connection(**settings: Any) -> Client:
        made.append(kind(**settings))
        return made[-1]

    try:
        return client(**config, kafka_client=connection)
    except Exception:
        for started in made:
            with suppress(Exception):
                started.close()
        raise


def left_out(damaged: Damaged) -> bool:
    """Whether to pass over what nobody can read, with a word in the log: where its sender made it so."""
    if damaged.reason is Reason.CORRUPT:
        return False
    log.warning(
        "partition %d: offsets %d to %d cannot be read and are left out: %s",
        damaged.partition, damaged.first, damaged.next - 1, damaged.why,
    )  # fmt: skip
    return True


def await_answer(producer: KafkaProducer, answer: Any, deadline: float) -> None:
    """Wait for the coordinator's answer, for as long as the transaction may last: after that it is ended anyway.

    The producer's own methods wait without end, and kafka-python 3.0.12 loses a request for which it finds no
    connection: its answer never comes.
    """
    producer._sender.wakeup()
    if not answer.wait(timeout_ms=1000 * max(deadline - time.monotonic(), LEAST_WAIT_S)):
        raise vendor.KafkaTimeoutError("the coordinator did not answer while the transaction might last")


def root_of(producer: KafkaProducer, error: Exception) -> Exception:
    """The client wraps what broke a transaction in a plain KafkaError when it is next called."""
    manager = producer._transaction_manager
    if type(error) is vendor.KafkaError and manager is not None and isinstance(manager.last_error, Exception):
        return manager.last_error
    return error


def read_from(consumer: KafkaConsumer, tp: TopicPartition, offset: int) -> None:
    """Deliver an assigned partition from an offset on, whether it was paused or not.

    Records that kafka-python 3.0.12 has fetched of a partition that is then paused are parked, and no more are fetched
    while they are. It takes them back only where no other partition's records came in between: else the partition
    stands still for ever. Whoever names an offset has no use for them, so they are dropped here. Raises KeyError or
    ValueError where the partition is not assigned (any more).
    """
    consumer.seek(tp, offset)
    consumer.resume(tp)
    fetcher = consumer._fetcher
    fetcher._paused_completed_fetches.pop(tp, None)
    fetcher._paused_partition_records.pop(tp, None)


def discard(producer: KafkaProducer) -> None:
    """Let go of a producer at once, whatever it is doing; what it left open is ended by the next with its id."""
    try:
        producer.close(timeout=0)
    except Exception as error:  # noqa: BLE001 — it waits for what it could not send, and says so; the end is the same
        log.debug("closing a producer: %s", error)
        producer._sender.initiate_close()
        producer._sender.force_close()
        producer._closed = True


def patiently(call: Callable[[], T], where: str, patience_s: float, renew: Callable[[], None] | None = None) -> T:
    """The answer to a question, asked again while the brokers say "not now". Raises our own errors.

    ``renew`` is called before each new attempt.
    """
    deadline, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return call()
        except vendor.KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise translate(error, where) from error
            log.debug("%s: %s", where, error)
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if renew is not None:
                renew()
        except VENDOR as error:
            raise translate(error, where) from error
