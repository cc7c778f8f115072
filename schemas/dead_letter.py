"""Dead letters: records that could not be read, kept whole with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.printable import printable

#: A longer value is cut, and the header residual-cut gives its original length. The topic takes 2 MB with headers.
MAX_VALUE_BYTES = 1_900_000


class Reason(StrEnum):
    """Why a record or an element of one was set aside."""

    EMPTY = "empty"
    TOO_LONG = "too-long"
    NOT_JSON = "not-json"
    NOT_A_READING = "not-a-reading"
    STREAM = "stream"
    TIMESTAMP = "timestamp"
    AHEAD = "ahead"
    VALUES = "values"
    NOT_A_NUMBER = "not-a-number"
    OUT_OF_RANGE = "out-of-range"
    NO_KNOWN_CHANNEL = "no-known-channel"
    UNREADABLE = "unreadable"
    """A batch of records that no consumer can take apart, though it is as its sender made it."""
    CORRUPT = "corrupt"
    """A batch of records that is damaged on the broker's disk, passed over because a setting says so."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The original bytes, where they came from and why they were set aside.

    ``index`` is the element's place in a list of readings, or -1 for the whole record. ``elements``: how many elements
    of a list it stands for, more than one where they were not set aside one by one. ``until``: of a batch of records
    that could not be taken apart, the offset after its last; ``offset`` is its first, ``value`` the batch.
    """

    value: bytes | None
    key: bytes | None
    reason: Reason
    detail: str
    topic: str
    partition: int
    offset: int
    index: int
    elements: int = 1
    until: int | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Kafka headers: names as strings, values as UTF-8 bytes."""
        headers = [
            ("residual-reason", self.reason.value.encode()),
            ("residual-detail", printable(self.detail)[:200].encode()),
            ("residual-topic", self.topic.encode()),
            ("residual-partition", str(self.partition).encode()),
            ("residual-offset", str(self.offset).encode()),
            ("residual-index", str(self.index).encode()),
        ]
        if self.elements != 1:
            headers.append(("residual-elements", str(self.elements).encode()))
        if self.until is not None:
            headers.append(("residual-until", str(self.until).encode()))
        if self.value is not None and len(self.value) > MAX_VALUE_BYTES:
            headers.append(("residual-cut", str(len(self.value)).encode()))
        return headers

    def body(self) -> bytes | None:
        """The value to publish: verbatim, or its first part where it is too long for the topic."""
        return self.value if self.value is None else self.value[:MAX_VALUE_BYTES]
