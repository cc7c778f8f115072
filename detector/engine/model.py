"""A model as the engine needs it: manifest, graph and the values of each stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.engine.tails import UNKNOWN, Tail
from schemas.manifest import Manifest


@dataclass(frozen=True)
class StreamValues:
    """What a fleet's streams do not share (streams.npz).

    ``names``: S streams seen in training; ``loc``, ``scale``: float32 ``[S, C]``, engineering units; ``threshold``:
    float64 ``[S]``, the raw score that counts as 1; ``factor``: float64 ``[S]``, what a raw score is divided by to be a
    level of the ``tail`` (a stream never seen: 1); ``group_loc``, ``group_scale``: float32 ``[C]``, for a stream never
    seen; ``noise`` float32 ``[C]``: root mean square of readings from what is usual at their time, in scales (None: 1);
    ``tail_score`` ``[K]`` ascending, levels like the tail's, and ``tail_p`` ``[K]``: see ``calibration.tail``.
    """

    names: tuple[str, ...]
    loc: NDArray[np.float32]
    scale: NDArray[np.float32]
    threshold: NDArray[np.float64]
    factor: NDArray[np.float64]
    group_loc: NDArray[np.float32]
    group_scale: NDArray[np.float32]
    noise: NDArray[np.float32] | None = None
    tail: Tail = UNKNOWN
    tail_score: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    tail_p: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Model:
    """A fitted, exported and calibrated model; ``graph`` is the ONNX file's bytes, ``version`` the SHA-256 of its
    manifest's, which names everything in its folder: empty where it lies in none.
    """

    manifest: Manifest
    graph: bytes
    streams: StreamValues
    version: str = ""

    @property
    def id(self) -> str:
        """What tells it from others: its version, else the SHA-256 of its graph."""
        return self.version or self.manifest.graph_sha256

    def fits(self, other: Model) -> bool:
        """Whether readings of the one are readings of the other: the same channels, or images of the same size."""
        ours, theirs = self.manifest, other.manifest
        return (ours.channel_names, ours.frame) == (theirs.channel_names, theirs.frame)
