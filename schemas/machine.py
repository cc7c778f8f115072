"""When a machine is off, by its own readings: ``rpm < 50 for pump-*; power < 1 and load < .1``.

Rules stand with ``;`` between them, and a machine is off where one of those for its stream holds. A rule is one or more
conditions ``CHANNEL < NUMBER`` (also ``<=``, ``>``, ``>=``, ``==``, ``!=``) with ``and`` between them, all of which
have to hold, and then, optionally, ``for PATTERN``: of streams with such names (``*`` and ``?``) alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": np.less_equal, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater,
}  # fmt: skip

_CONDITION = re.compile(r"(?P<channel>(?:(?!<|>|==|!=).)+?)\s*(?P<comparison><=|>=|==|!=|<|>)\s*(?P<limit>\S+)")
_FOR = re.compile(r"(?P<conditions>.+?)\s+for\s+(?P<pattern>\S.*)")
_AND = re.compile(r"\s+and\s+")


class MachineState(StrEnum):
    """What a stream's machine is doing, where the settings say how to know."""

    ON = "on"
    OFF = "off"
    STARTING = "starting"
    """It is on, but not for long enough to be judged."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a channel's value is compared with, in engineering units."""

    channel: str
    comparison: str
    limit: float


@dataclass(frozen=True, slots=True)
class OffRule:
    """A machine is off where all conditions hold; of the streams that the pattern means."""

    conditions: tuple[Condition, ...]
    pattern: str

    def means(self, stream: str) -> bool:
        """Whether it is about this stream."""
        return fnmatchcase(stream, self.pattern)


def parse_off_when(text: str) -> tuple[OffRule, ...]:
    """The rules of a text; an empty one has none. Raises ValueError.

    >>> parse_off_when("rpm < 50 for pump-*")
    (OffRule(conditions=(Condition(channel='rpm', comparison='<', limit=50.0),), pattern='pump-*'),)
    >>> [len(rule.conditions) for rule in parse_off_when("motor power<=.5 and load<0.1; rpm==0")]
    [2, 1]
    """
    return tuple(_rule(part.strip()) for part in text.split(";") if part.strip())


def _rule(text: str) -> OffRule:
    found = _FOR.fullmatch(text)
    conditions, pattern = (found["conditions"], found["pattern"]) if found else (text, "*")
    return OffRule(tuple(_condition(part) for part in _AND.split(conditions)), pattern)


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        limit = float(found["limit"])
        if not np.isfinite(limit):
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no condition: write CHANNEL < NUMBER, such as 'rpm < 50 for pump-*'") from None
    return Condition(found["channel"].strip(), found["comparison"], limit)


def _parsable(text: str) -> str:
    parse_off_when(text)
    return text.strip()


#: A text that ``parse_off_when`` takes.
OffWhen = Annotated[str, AfterValidator(_parsable)]
