"""Export to ONNX, and the gate: a graph that does not say what PyTorch says is not written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.engine.calibration import FLOOR
from detector.engine.readings import at_once
from detector.engine.scorer import CONTEXT, INPUTS, MAP, OUTPUTS, WINDOW, Scorer
from schemas.errors import ParityError
from schemas.frame import Frame
from schemas.manifest import Batching
from trainer.data import Given
from trainer.graph import Graph
from trainer.images.graph import ImageGraph
from trainer.models import Shape

#: What torch's exporter speaks natively; ONNX Runtime 1.20, the oldest that is allowed, reads up to 21.
OPSET = 18

#: Batches that a score must not depend on, all multiples of Batching().multiple.
SIZES = (8, 16, 24, 40, 64, 128, 256, 512)

#: The batch size where scores do depend on it.
FIXED = 64

#: Windows that the gate looks at, spread over the calibration stretch.
GATE_WINDOWS = 512

#: A window of so many numbers that memory allows fewer: each is looked at many times over.
GATE_SHARE = 32

#: Numbers in a window beyond which each is scored by itself.
LARGE = 1 << 15

TOLERANCE = 1e-4

Floats = NDArray[np.float32]


def to_onnx(graph: Graph, shape: Shape) -> bytes:
    """The ONNX file's bytes; the same weights give the same bytes on every machine with the same torch."""
    example = _example((shape.window, shape.channels), shape.channels)
    if shape.context:
        example.append(torch.zeros(2, shape.context))
    return exported(graph, example, _inputs(example), [*OUTPUTS, WINDOW])


def image_to_onnx(graph: ImageGraph, frame: Frame) -> bytes:
    """The same for images."""
    example = _example((1, frame.values), frame.bands)
    return exported(graph, example, _inputs(example), [*OUTPUTS, WINDOW, MAP])


def _inputs(example: Sequence[Tensor]) -> list[str]:
    return [*INPUTS, CONTEXT][: len(example)]


def _example(reading: tuple[int, int], channels: int) -> list[Tensor]:
    """Two windows of this shape, observed throughout."""
    return [
        torch.zeros(2, *reading),
        torch.ones(2, *reading, dtype=torch.bool),
        torch.zeros(2, channels),
        torch.ones(2, channels),
    ]


def exported(graph: nn.Module, example: Sequence[Tensor], inputs: list[str], outputs: list[str]) -> bytes:
    """The ONNX file's bytes of a module, by examples of its inputs, of which the first axis is of any length."""
    batch = {0: torch.export.Dim("B")}
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            tuple(example),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(batch,) * len(example),
            verbose=False,
        )
    assert program is not None
    model = _stripped(program.model_proto)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own talk is of no use to who fits a model; its errors are raised, not printed."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without notes on where the code stood: stack traces carry paths, and would make equal graphs differ."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return model


class HeldOut(Protocol):
    """Windows that a gate may look at."""

    def __len__(self) -> int: ...

    def raw(self, chosen: NDArray[np.int64]) -> Given:
        """Windows as the graph is given them."""


def gate(graph: Graph | ImageGraph, onnx_bytes: bytes, held_out: HeldOut, seed: int) -> tuple[Batching, float]:
    """How batches must be shaped, once the exported graph is shown to say what ``graph`` says, and by how much they
    differ: the largest |Δ| of a score over max(|score|, median score, FLOOR). Raises ParityError.

    1. PyTorch and ONNX Runtime agree on held-out windows, whole and with a tenth of the cells missing.
    2. Scores are the same to the last bit for every batch size and order, or else for one fixed batch size.
    """
    rng = np.random.default_rng(seed)
    values = held_out.raw(np.zeros(1, np.int64)).x.size
    count = max(at_once(GATE_WINDOWS, GATE_SHARE * values), 2)
    chosen = np.unique(np.linspace(0, len(held_out) - 1, count).astype(np.int64))
    whole = held_out.raw(chosen)
    holed = whole._replace(x=np.where(rng.random(whole.x.shape) < 0.1, np.float32(np.nan), whole.x))
    given = _rows([whole, holed])
    worst = _check_parity(graph, Scorer(onnx_bytes, Batching(fixed=1 if values > LARGE else None)), given)

    if values > LARGE:  # nothing is gained by batches of large images, and eight of them are much memory
        return Batching(fixed=1), worst
    scorer = Scorer(onnx_bytes, Batching())
    if scorer.provider == "CPUExecutionProvider" and _steady(scorer, given, SIZES, rng):
        return Batching(), worst
    fixed = Batching(fixed=FIXED)
    if _steady(Scorer(onnx_bytes, fixed), given, (1, 8, FIXED), rng):
        return fixed, worst
    raise ParityError("scores of the exported graph depend on the order of a batch: nothing was written")


def _rows(parts: Sequence[Given], chosen: NDArray[np.int64] | slice = slice(None)) -> Given:
    """These rows of the parts, one part after another."""
    x, loc, scale = (np.concatenate(column)[chosen] for column in zip(*(part[:3] for part in parts), strict=True))
    contexts = [part.context for part in parts if part.context is not None]
    return Given(x, loc, scale, np.concatenate(contexts)[chosen] if contexts else None)


def _check_parity(graph: Graph | ImageGraph, scorer: Scorer, given: Given) -> float:
    """|Δ| ≤ 1e-4 · max(|score|, median score, FLOOR); likewise each channel's error; expected values in scaled units.

    The first half of the windows is whole, the second the same with holes. The result is the scores' largest share.
    """
    with torch.no_grad():
        inputs = (given.x, ~np.isnan(given.x), *given[1:])
        outputs = graph(*(torch.from_numpy(a) for a in inputs if a is not None))
    score, error, expected, window = (output.numpy() for output in outputs[:4])
    served_score, served_error, served_expected = scorer.score(*given)
    served_window = scorer.window(*given)
    # of the whole windows, since holes raise a score; where all are rounding errors, what a threshold is raised to
    usual = max(float(np.median(score[: len(score) // 2])), FLOOR)
    unit = np.maximum(given.scale, np.abs(expected) * 1e-3)
    each = np.tile(given.scale, window.shape[2] // given.scale.shape[1])  # of an image one for each pixel's bands
    unit3 = np.maximum(each[:, None], np.abs(window) * 1e-3)
    found = []
    for name, difference, allowed in (
        ("score", served_score - score, np.maximum(np.abs(score), usual)),
        ("error", served_error - error, np.maximum(np.abs(error), np.maximum(np.abs(score), usual)[:, None])),
        ("expected", served_expected - expected, 10 * unit),
        ("window", served_window - window, 10 * unit3),
    ):
        worst = float(np.max(np.abs(difference) / np.maximum(allowed, np.finfo(np.float32).tiny)))
        if not worst <= TOLERANCE:  # NaN too
            raise ParityError(
                f"the exported graph's {name} differs from PyTorch's by up to {worst:.1e} of its size, more than "
                f"{TOLERANCE:g}: nothing was written; this is a bug, please report it"
            )
        found.append(worst)
    return found[0]


def _steady(scorer: Scorer, given: Given, sizes: tuple[int, ...], rng: np.random.Generator) -> bool:
    """Bit-identical scores, errors and expected values for every batch size and a random order of rows."""
    reference = scorer.score(*given)
    n = len(given.x)
    for size in sizes:
        order = rng.permutation(n)
        parts = [scorer.score(*_rows([given], order[at : at + size])) for at in range(0, n, size)]
        found = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if any(not np.array_equal(f, r[order]) for f, r in zip(found, reference, strict=True)):
            return False
    return True
