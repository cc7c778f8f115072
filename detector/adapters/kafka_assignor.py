"""The assignor: who of a group reads which partition, changed one by one (KIP-429)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Cooperative-sticky, for a member that claims what it owns at the moment.

    The client's own (kafka-python 3.0.12) claims what it was assigned last. After a member was thrown out, or where the
    group moves on before it has taken an assignment in, these are partitions of others. A leader withholds what two
    claim until one of them gives it back, which a member that does not have it never does: the partition is then read
    by nobody until the group happens to change again. Java's client claims its current assignment, too.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Tells the current assignment; nothing before there is a consumer.
        self.owned: Callable[[], Iterable[TopicPartition]] = tuple

    def metadata(self, topics: Set[str]) -> Any:
        """What a member says of itself as it joins."""
        self.member_assignment = sorted(self.owned())
        return super().metadata(topics)
