"""``scores.csv``: what the engine said about each reading, one row per input row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from detector.adapters.aside import aside

HEADER = ("stream", "timestamp", "score", "p_value", "alert", "channels")
#: Channels named in a row, as in an alert.
TOP = 3
#: Rows put into words at once.
CHUNK = 16_384

_SPECIAL = re.compile(r'[",\r\n]')
_ESCAPED = str.maketrans({"%": "%25", ":": "%3A", ";": "%3B"})


def top_shares(error: NDArray[np.floating], silent: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The channels with the largest parts of each row's ``error`` ``[N, C]``, largest first, and their shares,
    ``[N, TOP]`` each; 0 where ``silent``.
    """
    parts = np.where(np.isfinite(error), error, 0).astype(np.float64)
    total = parts.sum(axis=1)
    total[silent | ~(total > 0)] = np.inf  # leaves shares of 0: nothing to name
    shares = parts / total[:, None]
    top = np.argsort(-shares, axis=1, kind="stable")[:, :TOP]  # ties: the model's order of channels
    return top, np.take_along_axis(shares, top, axis=1)


class ScoresWriter:
    """Writes rows in the order in which they are handed over; see ``write_scores``."""

    def __init__(self, file: TextIO, channels: Sequence[str]) -> None:
        self._file = file
        self._names = [escape(name) for name in channels]
        file.write(",".join(HEADER) + "\n")

    def write(
        self,
        streams: Sequence[str],
        timestamps: Sequence[str],
        score: NDArray[np.floating],
        p_value: NDArray[np.floating],
        alert: NDArray[np.bool_],
        error: NDArray[np.floating],
    ) -> None:
        """Append N rows: ``score``, ``p_value``, ``alert`` ``[N]``, ``error`` ``[N, C]`` (each channel's part, ≥ 0).

        Numbers are the shortest decimals that are the same 32-bit float. A row whose score is NaN has none, no p-value
        and no channels.
        """
        for start in range(0, len(score), CHUNK):
            part = slice(start, start + CHUNK)
            self._file.writelines(
                f"{_quoted(stream)},{_quoted(timestamp)},{number},{rarity},{flag:d},{_quoted(shares)}\n"
                for stream, timestamp, number, rarity, flag, shares in zip(
                    streams[part],
                    timestamps[part],
                    _decimals(score[part]),
                    _decimals(p_value[part]),
                    alert[part].tolist(),
                    self._shares(error[part], np.isnan(score[part])),
                    strict=True,
                )
            )

    def _shares(self, error: NDArray[np.floating], silent: NDArray[np.bool_]) -> list[str]:
        """``name:share;…`` of the largest shares, those that round to nothing left out."""
        top, largest = top_shares(error, silent)
        names = self._names
        return [
            ";".join(f"{names[c]}:{share:.3f}" for c, share in zip(row, values, strict=True) if share >= 0.0005)
            for row, values in zip(top.tolist(), largest.tolist(), strict=True)
        ]


@contextmanager
def write_scores(path: str | Path, channels: Sequence[str]) -> Iterator[ScoresWriter]:
    """A writer of ``scores.csv`` that takes ``path``'s place when the block ends without an error.

    ``channels``: C names in the model's order. In the column ``channels`` a ``%``, ``:`` or ``;`` of a name is written
    ``%25``, ``%3A`` or ``%3B``, so that ``name:share;…`` can be taken apart; ``parse_channels`` does it. Raises
    UserError where the place cannot be written to.
    """
    with aside(path) as file:
        yield ScoresWriter(file, channels)


def escape(name: str) -> str:
    """A channel's name as it stands in the column ``channels``.

    >>> escape("disk C: 90%")
    'disk C%3A 90%25'
    """
    return name.translate(_ESCAPED)


def parse_channels(text: str) -> dict[str, float]:
    """Share by channel of a cell of the column ``channels``.

    >>> parse_channels("disk C%3A 90%25:0.750;fan:0.250")
    {'disk C: 90%': 0.75, 'fan': 0.25}
    """
    pairs = (pair.partition(":") for pair in text.split(";") if pair)
    return {name.replace("%3A", ":").replace("%3B", ";").replace("%25", "%"): float(share) for name, _, share in pairs}


def _quoted(text: str) -> str:
    """A CSV cell (RFC 4180). Before Python 3.13 the csv module left a lone carriage return bare."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _decimals(values: NDArray[np.floating]) -> list[str]:
    """Shortest decimal of each value as a 32-bit float; empty for NaN."""
    texts = np.asarray(values, dtype=np.float32).astype("U32").tolist()
    return ["" if text == "nan" else text for text in texts]
