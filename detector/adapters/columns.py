"""What a data file holds, as columns, and the words for what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError
from schemas.moment import parse_time

TIMESTAMP = "timestamp"
STREAM = "stream"
#: The name under which public data sets carry the answers; a model that reads it has learned them.
LABEL = "label"
#: A stream's name is a Kafka key; schemas.reading sets the same bound.
LONGEST_STREAM = 1024

#: Texts that stand for a missing value, in any case. A signed nan is what C's printf writes for some of them.
MISSING = frozenset({"", "nan", "na", "null", "+nan", "-nan"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(slots=True)
class Columns:
    """Some rows of one file, in the order in which they stand in it."""

    timestamps: list[str] | None
    """The text of each timestamp as it stood; None: there was none, and RFC 3339 will do."""
    times: NDArray[np.int64]
    """``[N]``, nanoseconds since 1970."""
    streams: list[str] | None
    """One per row; None where the file has no such column."""
    channels: tuple[str, ...]
    """The channels found so far, C of them, in the file's order."""
    values: NDArray[np.float32]
    """``[N, C]``, NaN where missing."""
    texts: dict[str, str] = field(default_factory=dict)
    """Columns that were left out so far because their first cell is no number: where it stands and what it says, by
    name."""

    def __len__(self) -> int:
        return len(self.times)


def number(text: str) -> float:
    """The value of a cell, NaN where it is missing; ValueError where it is no finite decimal number.

    Python's own ``float`` alone would take ``1_000``, ``inf`` and digits of other scripts, which JSON does not.
    """
    text = text.strip()
    if text.lower() in MISSING:
        return float("nan")
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def looks_like_number(text: str) -> bool:
    """Python reads it as a number: a column that starts so was meant as one, even where the cell is then refused."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def time_of(text: str) -> int:
    """Nanoseconds since 1970 of a timestamp's text; a number is milliseconds. ValueError where it is no time."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return parse_time(int(text))
    if _NUMBER.fullmatch(text):
        return parse_time(float(text))  # the same binary number that a JSON decoder would hand over
    try:
        return parse_time(text)
    except OverflowError:
        raise ValueError(text) from None


def shorten(text: str, length: int = 40) -> str:
    """A cell's text for a message: quoted, on one line, at most ``length`` characters of it."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def bad_number(path: str, place: str, column: str, text: str) -> DataError:
    """A cell that is no number; ``place``: ``line 7`` or ``row 7``."""
    return DataError(
        f"{path}, {place}, column {column}: {shorten(text)} is not a finite number within 32-bit range: "
        "correct the cell, or leave it empty where the value is missing"
    )


def bad_time(path: str, place: str, text: str) -> DataError:
    """A timestamp that is none."""
    return DataError(
        f"{path}, {place}, column {TIMESTAMP}: {shorten(text)} is not a time between 1970 and 2262: "
        "write ISO 8601, or milliseconds since 1970"
    )


def bad_stream(path: str, place: str, text: str) -> DataError:
    """A stream's name that cannot be one."""
    return DataError(
        f"{path}, {place}, column {STREAM}: {shorten(text)} is not a stream's name: "
        f"write one of 1 to {LONGEST_STREAM} characters"
    )


def is_stream(text: str) -> bool:
    """The text can name a stream."""
    return 0 < len(text) <= LONGEST_STREAM and not text.isspace()


def check_header(path: str, names: Sequence[str], wanted: Collection[str] | None) -> None:
    """Raises DataError where a file's column names cannot be worked with; ``wanted`` None: channels are to be found."""
    if TIMESTAMP not in names:
        hint = "; separate the cells by commas" if len(names) == 1 and re.search(r"[;\t|]", names[0]) else ""
        found = ", ".join(shorten(name) for name in names[:6]) + (", …" if len(names) > 6 else "")
        raise DataError(
            f"{path}, line 1: no column {TIMESTAMP} among {found}: name the columns in the first line{hint}"
        )
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise DataError(f"{path}, line 1: the column {shorten(name)} stands there twice: rename or remove one")
        seen.add(name)
    if wanted is None:
        for name in names:
            if name.lower() == LABEL:
                raise DataError(
                    f"{path}, line 1, column {name}: labels are not readings, and a model must not learn from them: "
                    "remove the column"
                )
    elif not seen & set(wanted):
        some = ", ".join(list(wanted)[:6]) + (", …" if len(wanted) > 6 else "")
        raise DataError(f"{path}: none of the model's channels is a column of it ({some}): name the columns like them")
