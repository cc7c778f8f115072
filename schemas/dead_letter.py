"""Dead letters: records that could not be read, kept whole with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: A longer value is cut, and the header residual-cut gives its original length. The topic takes 2 MB with headers.
MAX_VALUE_BYTES = 1_900_000


class Reason(StrEnum):
    """Why a record or an element of one was set aside."""

    EMPTY = "empty"
    NOT_JSON = "not-json"
    NOT_A_READING = "not-a-reading"
    STREAM = "stream"
    TIMESTAMP = "timestamp"
    AHEAD = "ahead"
    VALUES = "values"
    NOT_A_NUMBER = "not-a-number"
    OUT_OF_RANGE = "out-of-range"
    NO_KNOWN_CHANNEL = "no-known-channel"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The original bytes, where they came from and why they were set aside.

    ``index`` is the element's place in a list of readings, or -1 for the whole record.
    """

    value: bytes | None
    key: bytes | None
    reason: Reason
    detail: str
    topic: str
    partition: int
    offset: int
    index: int

    def headers(self) -> list[tuple[str, bytes]]:
        """Kafka headers: names as strings, values as UTF-8 bytes."""
        headers = [
            ("residual-reason", self.reason.value.encode()),
            ("residual-detail", self.detail[:200].encode("utf-8", "replace")),
            ("residual-topic", self.topic.encode()),
            ("residual-partition", str(self.partition).encode()),
            ("residual-offset", str(self.offset).encode()),
            ("residual-index", str(self.index).encode()),
        ]
        if self.value is not None and len(self.value) > MAX_VALUE_BYTES:
            headers.append(("residual-cut", str(len(self.value)).encode()))
        return headers

    def body(self) -> bytes | None:
        """The value to publish: verbatim, or its first part where it is too long for the topic."""
        return self.value if self.value is None else self.value[:MAX_VALUE_BYTES]
