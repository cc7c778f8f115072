"""Where the readings go and the alerts come from: the log in memory, or topics of its own in a real Kafka."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Protocol
from uuid import uuid4

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.port import Log
from schemas.errors import ResidualError

#: Seconds to look for the broker, and for topics to come and go.
PATIENCE_S = 20.0


class Installation(Protocol):
    """A readings topic, and members of consumer groups that watch it."""

    name: str
    """For people."""

    def produce(self, key: bytes, value: bytes, timestamp_ms: int) -> None:
        """Put a reading on the topic. From one thread."""
        ...

    def member(self, group: str) -> Log:
        """A member of a group with alerts, dead letters and state of its own."""
        ...

    def close(self) -> None:
        """Let go of everything, and remove what was made."""
        ...


class InMemory:
    """All of it in this process."""

    name = "the log in memory"

    def __init__(self) -> None:
        self._broker = MemoryBroker(topic="readings")

    def produce(self, key: bytes, value: bytes, timestamp_ms: int) -> None:
        """See ``Installation.produce``."""
        self._broker.produce(value, key, timestamp_ms)

    def member(self, group: str) -> Log:
        """See ``Installation.member``."""
        return MemoryLog(self._broker, group)

    def close(self) -> None:
        """See ``Installation.close``."""


class InKafka:
    """Topics of its own, ``residual-demo-…``, in a cluster; deleted at the end. Raises BrokerUnavailable."""

    def __init__(self, servers: str) -> None:
        from kafka import KafkaProducer  # here: the demo in memory needs no Kafka client

        from detector.adapters.kafka_clients import Clients
        from detector.adapters.kafka_errors import VENDOR, translate

        self._servers, self._prefix = servers, f"residual-demo-{uuid4().hex[:8]}"
        self._topics, self._groups = [f"{self._prefix}-readings"], list[str]()
        self.name = f"Kafka at {servers}, topics {self._prefix}-…"
        self._admin = Clients(servers, self._prefix).admin(time.monotonic() + PATIENCE_S)
        self._failed: Exception | None = None
        try:
            self._admin.create_topics({self._topics[0]: {"num_partitions": 1, "replication_factor": -1}})
            self._admin.wait_for_topics(self._topics, timeout_ms=int(PATIENCE_S * 1000))
            self._producer = KafkaProducer(bootstrap_servers=servers.split(","), acks="all", linger_ms=5)
        except VENDOR as error:
            self._admin.close()
            raise translate(error, f"making the topic {self._topics[0]}") from error

    def produce(self, key: bytes, value: bytes, timestamp_ms: int) -> None:
        """See ``Installation.produce``. Raises what an earlier reading failed with."""
        if self._failed is not None:
            raise ResidualError(f"a reading could not be written to Kafka: {self._failed}") from self._failed
        sent = self._producer.send(self._topics[0], value=value, key=key, timestamp_ms=timestamp_ms)
        sent.add_errback(self._note)

    def _note(self, error: Exception) -> None:
        self._failed = error

    def member(self, group: str) -> Log:
        """See ``Installation.member``."""
        from detector.adapters.kafka import KafkaLog

        own = [f"{self._prefix}-{group}-{what}" for what in ("alerts", "dead-letters", "state", "commands")]
        self._topics += own
        self._groups.append(f"{self._prefix}-{group}")
        return KafkaLog(
            bootstrap_servers=self._servers,
            readings_topic=self._topics[0],
            alerts_topic=own[0],
            dead_letters_topic=own[1],
            state_topic=own[2],
            commands_topic=own[3],
            group_id=self._groups[-1],
            startup_timeout_s=PATIENCE_S,
        )

    def close(self) -> None:
        """See ``Installation.close``."""
        with suppress(Exception):  # a broker that went away has been reported already
            self._producer.close(timeout=5)
        with suppress(Exception):
            self._admin.delete_topics(self._topics)
        with suppress(Exception):
            self._admin.delete_groups(self._groups)
        with suppress(Exception):
            self._admin.close()


def installation(servers: str | None) -> Installation:
    """In memory, or in Kafka where a broker is named."""
    return InMemory() if servers is None else InKafka(servers)
