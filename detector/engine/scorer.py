"""The scorer: windows through the exported graph, in batches that do not change what a window scores.

The graph (ONNX): inputs ``x[B,W,C]`` float32 in engineering units, ``mask[B,W,C]`` bool (true where observed),
``loc[B,C]`` and ``scale[B,C]`` float32, and where the model knows a season ``context[B,K]`` float32; outputs
``score[B]``, ``error[B,C]``, ``expected[B,C]`` and ``window[B,W,C]``. Of images ``x``, ``mask`` and ``window`` are
``[B,1,V]``, V = H·W·C, C the bands, and there is a fifth output ``map[B,H,W]``, the error of each pixel.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from detector.engine.graph import check_graph
from detector.engine.readings import at_once
from schemas.errors import ModelError
from schemas.manifest import Batching

#: Windows per call of ONNX Runtime. Large enough to hide the call's own cost, small enough to stay in the cache.
CHUNK = 512

#: A graph makes so many numbers at once of each value of an image: nine shifts of five quantities, and some.
IMAGE_SHARE = 64

INPUTS = ("x", "mask", "loc", "scale")
CONTEXT = "context"
OUTPUTS = ("score", "error", "expected")
WINDOW = "window"
#: Of images only.
MAP = "map"

Floats = NDArray[np.float32]


class Scorer:
    """One ONNX Runtime session. Not for several threads at once."""

    def __init__(self, graph: bytes, batching: Batching, threads: int = 1) -> None:
        check_graph(graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads  # a fixed number: the way a sum is split may change its last bit
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its other format is not looked into
        options.log_severity_level = 3  # warnings about the provider are ours to give
        try:
            self._session = ort.InferenceSession(graph, options, providers=_providers())
        except Exception as error:  # ONNX Runtime's own exceptions share no base
            raise ModelError(f"the model's graph cannot be loaded: {str(error).splitlines()[0]}") from error
        missing = set(INPUTS) - {i.name for i in self._session.get_inputs()}
        self.context = CONTEXT in (i.name for i in self._session.get_inputs())
        outputs = {o.name for o in self._session.get_outputs()}
        self.images = MAP in outputs
        missing |= {*OUTPUTS, WINDOW} - outputs
        if missing:
            raise ModelError(f"the model's graph lacks {', '.join(sorted(missing))}: fit it again")
        self._batching = batching
        most = at_once(CHUNK, IMAGE_SHARE * self._session.get_inputs()[0].shape[-1]) if self.images else CHUNK
        self._chunk = batching.fixed or max(most // batching.multiple, 1) * batching.multiple
        self._run_options = ort.RunOptions()
        self._run_options.only_execute_path_to_fetches = True  # `window` costs nothing unless asked for
        self.provider: str = self._session.get_providers()[0]
        self._window = tuple(self._session.get_inputs()[0].shape[1:])

    @property
    def chunk(self) -> int:
        """Windows of a full batch."""
        return self._chunk

    def score(
        self, x: Floats, loc: Floats, scale: Floats, context: Floats | None = None, spread: Floats | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """Score ``[N]``, error ``[N, C]`` and expected newest reading ``[N, C]`` (engineering units).

        ``x`` ``[N, W, C]`` with NaN where missing, ``loc`` and ``scale`` ``[N, C]``, ``context`` ``[N, K]`` with NaN
        where nothing is known, None where the graph takes none; ``spread`` ``[N, C]``: times what was learned that
        readings are from what is usual, None: 1.
        """
        if spread is None:
            score, error, expected = self._run(OUTPUTS, _given(x, loc, scale, context))
            return score, error, expected
        usual = _usual(loc, context)
        x = _closer(x, usual[:, None], np.reciprocal(spread)[:, None])
        score, error, expected = self._run(OUTPUTS, _given(x, loc, scale, context))
        return score, error, _closer(expected, usual, spread)

    def warm(self) -> None:
        """Score a full batch of nothing: what is set up with the first one is set up then."""
        x = np.zeros((self._chunk, *self._window), np.float32)
        each = np.ones((self._chunk, self._session.get_inputs()[2].shape[1]), np.float32)
        self.score(x, each, each, each if self.context else None)

    def window(
        self, x: Floats, loc: Floats, scale: Floats, context: Floats | None = None, spread: Floats | None = None
    ) -> Floats:
        """The expected window ``[N, W, C]`` in engineering units; arguments as for ``score``."""
        if spread is None:
            return self._run((WINDOW,), _given(x, loc, scale, context))[0]
        usual, times = _usual(loc, context)[:, None], spread[:, None]
        given = _given(_closer(x, usual, np.reciprocal(times)), loc, scale, context)
        return _closer(self._run((WINDOW,), given)[0], usual, times)

    def map(self, x: Floats, loc: Floats, scale: Floats) -> Floats:
        """The error of each pixel ``[N, H, W]`` of at least one image; arguments as for ``score``."""
        return self._run((MAP,), _given(x, loc, scale, None))[0]

    def _run(self, outputs: tuple[str, ...], given: dict[str, Floats]) -> list[Floats]:
        x = given["x"]
        n = len(x)
        if n == 0:
            each = given["loc"].shape
            shapes = {"score": (0,), "error": each, "expected": each, WINDOW: x.shape}
            return [np.empty(shapes[name], np.float32) for name in outputs]
        parts = [
            self._call(outputs, {name: rows[at : at + self._chunk] for name, rows in given.items()})
            for at in range(0, n, self._chunk)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _call(self, outputs: tuple[str, ...], given: dict[str, Floats]) -> list[Floats]:
        n = len(given["x"])
        size = self._batching.fixed or -(-n // self._batching.multiple) * self._batching.multiple
        if size > n:
            given = {name: _padded(rows, size) for name, rows in given.items()}
        feed = {**given, "mask": ~np.isnan(given["x"])}
        results = self._session.run(outputs, feed, self._run_options)
        return [r[:n] for r in results] if size > n else list(results)


def _usual(loc: Floats, context: Floats | None) -> Floats:
    """What is usual at each window's newest reading, ``[N, C]``; within a window it hardly changes."""
    return loc if context is None else np.where(np.isnan(context), loc, context)


def _closer(values: Floats, usual: Floats, times: Floats) -> Floats:
    """Values so many times as far from what is usual. About that, not about the level: the rhythm has not grown."""
    moved: Floats = usual + (values - usual) * times
    return np.where(times == 1, values, moved)


def _given(x: Floats, loc: Floats, scale: Floats, context: Floats | None) -> dict[str, Floats]:
    given = {"x": x, "loc": loc, "scale": scale}
    return given if context is None else {**given, CONTEXT: context}


def _padded(rows: Floats, size: int) -> Floats:
    """``rows`` followed by copies of the last one, ``size`` in all."""
    padded = np.empty((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    padded[len(rows) :] = rows[-1]
    return padded


def _providers() -> list[str | tuple[str, dict[str, str]]]:
    providers: list[str | tuple[str, dict[str, str]]] = []
    if "CUDAExecutionProvider" in ort.get_available_providers():
        # TF32 rounds inputs to 10 bits of mantissa: scores would no longer be those that were calibrated
        providers.append(("CUDAExecutionProvider", {"use_tf32": "0"}))
    return [*providers, "CPUExecutionProvider"]
