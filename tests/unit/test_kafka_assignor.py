"""Who claims which partition when the group shares them out."""

from __future__ import annotations

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from detector.adapters.kafka_assignor import Assignor


def claims(assignor: CooperativeStickyAssignor) -> list[tuple[str, list[int]]]:
    said = assignor.metadata({"readings"})
    return [(part.topic, list(part.partitions)) for part in said.owned_partitions]


def test_a_member_claims_what_it_owns_and_nothing_else() -> None:
    """Regression: one that was thrown out claimed partitions of others, which nobody read from then on."""
    assignor, owned = Assignor(), {TopicPartition("readings", n) for n in range(3)}
    assert claims(assignor) == []
    assignor.owned = lambda: owned
    assignor.on_assignment(ConsumerProtocolAssignment(1, [("readings", [0, 1, 2])], b""), 4)
    assert claims(assignor) == [("readings", [0, 1, 2])]
    owned = set()
    assert claims(assignor) == []
    owned = {TopicPartition("readings", 7)}
    assert claims(assignor) == [("readings", [7])]


def test_what_is_worked_around_is_still_there() -> None:
    """Where this fails, the client's own assignor will do."""
    assignor = CooperativeStickyAssignor()
    assignor.on_assignment(ConsumerProtocolAssignment(1, [("readings", [0])], b""), 4)
    assert claims(assignor) == [("readings", [0])], "whatever became of the partition"
