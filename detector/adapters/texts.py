"""Texts of many rows without a Python object for each: streams as numbers of names, timestamps as bytes end to end.

They are sequences of ``str``, and equal to lists of the same texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from schemas.moment import format_time

#: Texts made at once when all are gone through.
CHUNK = 16_384

Ints = NDArray[np.int64]


class Texts(Sequence[str]):
    """N texts, made when they are asked for."""

    @abstractmethod
    def take(self, rows: Ints) -> list[str]:
        """The texts of these rows."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(index)
        return self.take(np.array([place]))[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to a list, which has none

    def __repr__(self) -> str:
        return repr(list(self))


class Names(Texts):
    """Streams: ``codes`` ``[N]`` are places in ``names``."""

    def __init__(self, names: Sequence[str], codes: NDArray[np.int32]) -> None:
        self.names, self.codes = tuple(names), codes

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Ints) -> list[str]:
        """See ``Texts``."""
        names = self.names
        return [names[code] for code in self.codes[rows].tolist()]


class Stamps(Texts):
    """Timestamps as they stood in their files.

    ``blob``: UTF-8, one text after another; ``ends`` ``[N]``: where each ends, or None where all are empty. ``order``
    ``[N]``: which text is that of each row; None: they lie in the order of the rows. An empty one is the RFC 3339 text
    of its row's time in ``times`` ``[N]``.
    """

    def __init__(self, times: Ints, blob: NDArray[np.uint8], ends: Ints | None, order: Ints | None = None) -> None:
        self._times, self._blob, self._ends, self._order = times, blob, ends, order

    def __len__(self) -> int:
        return len(self._times)

    def picked(self, rows: Ints) -> Stamps:
        """The same of these rows."""
        order = rows if self._order is None else self._order[rows]
        return Stamps(self._times[rows], self._blob, self._ends, order)

    def take(self, rows: Ints) -> list[str]:
        """See ``Texts``."""
        if self._ends is None or not len(rows):
            return [format_time(time) for time in self._times[rows].tolist()]
        places = rows if self._order is None else self._order[rows]
        ends = self._ends[places]
        starts = np.where(places > 0, self._ends[places - 1], 0)
        texts = self._run(starts, ends) if bool((starts[1:] == ends[:-1]).all()) else self._each(starts, ends)
        if all(texts):
            return texts
        return [text or format_time(int(self._times[row])) for text, row in zip(texts, rows, strict=True)]

    def _run(self, starts: Ints, ends: Ints) -> list[str]:
        """Of texts that lie end to end: decoded in one piece where each byte is a character."""
        text = self._blob[starts[0] : ends[-1]].tobytes().decode()
        if not text.isascii():
            return self._each(starts, ends)
        first = starts[0]
        return [text[i:j] for i, j in zip((starts - first).tolist(), (ends - first).tolist(), strict=True)]

    def _each(self, starts: Ints, ends: Ints) -> list[str]:
        blob = self._blob
        return [blob[i:j].tobytes().decode() for i, j in zip(starts.tolist(), ends.tolist(), strict=True)]


def take(texts: Sequence[str], rows: Ints) -> list[str]:
    """The texts of these rows."""
    return texts.take(rows) if isinstance(texts, Texts) else [texts[row] for row in rows.tolist()]


def picked(texts: Sequence[str], rows: Ints) -> Sequence[str]:
    """These rows, as compact as they were."""
    return texts.picked(rows) if isinstance(texts, Stamps) else take(texts, rows)


def coded(texts: Sequence[str]) -> Names:
    """The same texts by their numbers; names that stand in no row may be among them."""
    if isinstance(texts, Names):
        return texts
    place = {name: code for code, name in enumerate(dict.fromkeys(texts))}
    return Names(tuple(place), np.fromiter(map(place.__getitem__, texts), np.int32, len(texts)))
