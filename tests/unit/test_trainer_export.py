"""The gate: a graph that says something else than PyTorch, or depends on its neighbours, does not pass."""

from __future__ import annotations

import copy
from functools import cache

import onnx
import pytest
import torch
from thorough import thorough
from torch import Tensor, nn
from trainer_data import normal, table

from schemas.errors import ParityError
from schemas.manifest import Batching
from trainer.batches import Batches
from trainer.data import Prepared, prepare
from trainer.export import FIXED, OPSET, gate, to_onnx
from trainer.fit import fit, mean_square_error
from trainer.graph import Graph
from trainer.models import Shape
from trainer.settings import FitSettings

PLAIN = FitSettings(model="pca", context="none")
SHAPE = Shape(window=10, channels=4)

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


@cache
def data() -> Prepared:
    return prepare(table(normal(600)), 10, PLAIN)


@cache
def graph() -> Graph:
    model, _ = fit(data(), PLAIN)
    return Graph(model, mean_square_error(model, Batches(data().calibration)) + 0.01).eval()


class Changed(nn.Module):
    """A graph whose score is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = graph()  # a name other than `graph`, which torch.export uses itself

    def forward(self, x: Tensor, mask: Tensor, loc: Tensor, scale: Tensor) -> Outputs:
        score, error, expected, window = self.inner(x, mask, loc, scale)
        return self.change(score), error, expected, window

    def change(self, score: Tensor) -> Tensor:
        raise NotImplementedError


class Off(Changed):
    def change(self, score: Tensor) -> Tensor:
        return score * 1.001


class BySize(Changed):
    def change(self, score: Tensor) -> Tensor:
        return score + 1e-7 * torch.ones_like(score).cumsum(0)[-1] * score


class ByPlace(Changed):
    def change(self, score: Tensor) -> Tensor:
        return score + 1e-6 * (torch.ones_like(score).cumsum(0) % 32) * score


def opened(served: Changed) -> Batching:
    return gate(graph(), to_onnx(served, SHAPE), data().calibration, seed=0)[0]  # type: ignore[arg-type]


def test_an_honest_export_passes() -> None:
    batching, worst = gate(graph(), to_onnx(graph(), SHAPE), data().calibration, seed=0)
    assert batching == Batching()
    assert 0 <= worst < 1e-5


def test_a_graph_that_says_something_else_does_not() -> None:
    with pytest.raises(ParityError, match=r"score differs from PyTorch's by up to 1\.\de-03"):
        opened(Off())


def test_scores_that_depend_on_the_batch_size_get_a_fixed_one() -> None:
    assert opened(BySize()) == Batching(fixed=FIXED)


def test_scores_that_depend_on_the_place_in_a_batch_do_not_pass() -> None:
    with pytest.raises(ParityError, match="order of a batch"):
        opened(ByPlace())


def test_no_score_depends_on_its_place_with_an_odd_number_of_channels() -> None:
    """Rows of 19 values begin at ever other alignments, and ONNX Runtime's sum along a row shows it."""
    wide = prepare(table(normal(600, channels=19)), 10, PLAIN)
    model, _ = fit(wide, PLAIN)
    own = Graph(model, mean_square_error(model, Batches(wide.calibration)) + 0.01).eval()
    assert gate(own, to_onnx(own, model.shape), wide.calibration, seed=0)[0] == Batching()


def test_the_exporter_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    to_onnx(graph(), SHAPE)
    assert capfd.readouterr() == ("", "")


@thorough
def test_the_same_weights_give_the_same_bytes() -> None:
    lstm = fit(data(), FitSettings(model="lstm-aer", epochs=1, context="none"))[0]
    for network in (fit(data(), PLAIN)[0], lstm):
        own = Graph(network, torch.ones(len(network(torch.zeros(1, 10, 4)).expected), 4)).eval()
        assert to_onnx(own, SHAPE) == to_onnx(copy.deepcopy(own), SHAPE)


def test_what_is_fixed_in_the_file() -> None:
    model = onnx.load_from_string(to_onnx(graph(), SHAPE))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert [i.name for i in model.graph.input] == ["x", "mask", "loc", "scale"]
    assert [o.name for o in model.graph.output] == ["score", "error", "expected", "window"]
    assert all(i.type.tensor_type.shape.dim[0].dim_param for i in model.graph.input)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
