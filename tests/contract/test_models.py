"""What every architecture has to keep. A new one is one file and one line in ``trainer/models/__init__.py``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from trainer_data import normal, table

from detector.engine.engine import Engine
from detector.engine.scorer import Scorer
from schemas.manifest import Batching
from trainer.data import Prepared, prepare
from trainer.export import gate, to_onnx
from trainer.fit import evaluate, fit
from trainer.graph import Graph, mean_square_error
from trainer.models import ARCHITECTURES, Architecture
from trainer.pipeline import Learned, learn
from trainer.settings import FitSettings

C = 4

pytestmark = pytest.mark.parametrize("name", list(ARCHITECTURES))


def settings_of(name: str, **flags: object) -> FitSettings:
    return FitSettings.model_validate({"model": name, "epochs": 40, **flags})


@cache
def data_of(name: str) -> Prepared:
    values = normal(1500)
    values[np.random.default_rng(3).random(values.shape) < 0.05] = np.nan
    return prepare(table(values), ARCHITECTURES[name].default_window, settings_of(name))


@cache
def fitted(name: str) -> Architecture:
    return fit(data_of(name), settings_of(name))[0]


@cache
def exported(name: str) -> tuple[Graph, bytes]:
    graph = Graph(fitted(name), mean_square_error(fitted(name), data_of(name).calibration) + 0.01).eval()
    return graph, to_onnx(graph, data_of(name).window, C)


@cache
def learned(name: str) -> Learned:
    return learn(table(normal(1500), normal(1500, seed=1, phase=9)), settings_of(name, rate=0.01))


def windows(name: str) -> torch.Tensor:
    return torch.from_numpy(data_of(name).calibration.scaled(slice(0, 33))[0])


def test_shapes(name: str) -> None:
    model, z = fitted(name), windows(name)
    with torch.no_grad():
        code = model.encode(z)
        assert len(code) == 33
        assert model.decode(code).shape == z.shape
        assert model.newest(code).shape == (33, C)


def test_the_newest_reading_alone_is_the_last_row_of_the_window(name: str) -> None:
    model, z = fitted(name), windows(name)
    with torch.no_grad():
        torch.testing.assert_close(model.newest(model.encode(z)), model(z)[:, -1], rtol=1e-5, atol=1e-5)


def test_it_learns(name: str) -> None:
    """Held-out windows come back with at most a fifth of their variance lost; expecting the mean would lose it all."""
    held_out = data_of(name).calibration
    variance = float(np.square(held_out.data.scaled[held_out.ends]).mean())
    assert evaluate(fitted(name), held_out) < 0.2 * variance


def test_a_larger_code_holds_more(name: str) -> None:
    loss = [evaluate(fit(data_of(name), settings_of(name, latent=n))[0], data_of(name).fit) for n in (1, 4)]
    assert loss[1] < loss[0]


def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    again = fit(data_of(name), settings_of(name))[0]
    graph = Graph(again, mean_square_error(again, data_of(name).calibration) + 0.01).eval()
    assert to_onnx(graph, data_of(name).window, C) == exported(name)[1]


def test_the_gate_opens_and_batches_need_no_fixed_size(name: str) -> None:
    graph, onnx_bytes = exported(name)
    assert gate(graph, onnx_bytes, data_of(name).calibration, seed=0) == Batching()


def test_missing_cells_have_no_say(name: str) -> None:
    """Whatever stands in them, NaN and infinity included; and a channel that is missing now has no error."""
    graph, _ = exported(name)
    x, loc, scale = (torch.from_numpy(a) for a in data_of(name).calibration.raw(slice(0, 16)))
    mask = ~torch.isnan(x)
    mask[:, :, 1] = False
    mask[3] = False
    with torch.no_grad():
        first = graph(torch.where(mask, x, torch.nan), mask, loc, scale)
        second = graph(torch.where(mask, x, torch.inf), mask, loc, scale)
        third = graph(torch.where(mask, x, 1e30), mask, loc, scale)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    score, error = first[:2]
    assert (error[~mask[:, -1]] == 0).all()
    assert score[3] == 0
    observed = mask[:, -1].sum(1).clamp(min=1)
    torch.testing.assert_close(score, error.sum(1) / observed)


def test_one_wild_reading_is_bounded(name: str) -> None:
    graph, _ = exported(name)
    x, loc, scale = (torch.from_numpy(np.nan_to_num(a)) for a in data_of(name).calibration.raw(slice(0, 8)))
    x[:, -1] = 3e38
    with torch.no_grad():
        assert all(
            torch.isfinite(output).all() for output in graph(x, torch.ones_like(x, dtype=torch.bool), loc, scale)
        )


def test_the_score_needs_no_window(name: str) -> None:
    """``window`` is asked for rarely: nothing that only it needs may lie on the way to the score."""
    model = onnx.load_from_string(exported(name)[1])
    producers = {output: node for node in model.graph.node for output in node.output}

    def behind(wanted: list[str]) -> set[str]:
        found: set[str] = set()
        while wanted:
            node = producers.get(wanted.pop())
            if node is not None and node.output[0] not in found:
                found.add(node.output[0])
                wanted += node.input
        return found

    assert behind(["window"]) - behind(["score", "error", "expected"])


def test_the_file_tells_nothing_of_where_it_was_made(name: str) -> None:
    onnx_bytes = exported(name)[1]
    for text in (str(Path(__file__).resolve().parents[2]), str(Path(torch.__file__).parent), "/", ".py", "trainer"):
        assert text.encode() not in b"".join(onnx_strings(onnx_bytes)), text


def onnx_strings(onnx_bytes: bytes) -> list[bytes]:
    """Everything in the file that is text rather than weights."""
    model = onnx.load_from_string(onnx_bytes)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.t.ClearField("raw_data")
    return [model.SerializeToString()]


def test_channels_that_are_constant_or_never_observed_harm_nothing(name: str) -> None:
    """They add nothing to a score of normal data, and one that was constant still counts when it moves."""
    values = normal(1500)
    values[:, 1], values[:, 3] = 5, np.nan
    model = learn(table(values), settings_of(name, rate=0.01)).model
    fresh = normal(300, seed=5)
    fresh[:, 1], fresh[:, 3] = 5, np.nan
    fresh[250:, 1] = 7
    scored = Engine(model).process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert np.isfinite(scored.score[model.manifest.window - 1 :]).all()
    assert np.isfinite(scored.error[model.manifest.window - 1 :]).all()
    assert np.nanmedian(scored.score[:250]) < 1
    assert (scored.error[:, 3] == 0)[model.manifest.window - 1 :].all()
    assert scored.score[250] > 1
    assert scored.error[250].argmax() == 1


@pytest.mark.parametrize("channel", range(C))
def test_a_spike_scores_above_all_normal_readings(name: str, channel: int) -> None:
    """Raw scores, before any smoothing: ranking is the model's, not the threshold's."""
    data, scorer = data_of(name), Scorer(exported(name)[1], Batching())
    x, loc, scale = data.calibration.raw(slice(None))
    seen = ~np.isnan(x[:, -1]).any(axis=1)
    x, loc, scale = x[seen], loc[seen], scale[seen]
    usual = scorer.score(x, loc, scale)[0]
    spiked = x.copy()
    spiked[:, -1, channel] += 6 * scale[:, channel]
    score, error, _ = scorer.score(spiked, loc, scale)
    assert score.min() > usual.max()
    assert (error.argmax(axis=1) == channel).mean() > 0.9


def test_outputs_are_in_engineering_units(name: str) -> None:
    _, onnx_bytes = exported(name)
    x, loc, scale = data_of(name).calibration.raw(slice(0, 200))
    scorer = Scorer(onnx_bytes, Batching())
    score, error, expected = scorer.score(x, loc, scale)
    # level and spread differ by orders of magnitude between channels, and every one is met
    assert (np.nanmean(np.abs(expected - x[:, -1]) / scale, axis=0) < 0.6).all()
    np.testing.assert_allclose(scorer.window(x, loc, scale)[:, -1], expected, rtol=1e-4, atol=1e-3)
    assert 0.3 < score.mean() < 3  # on the data whose mean square error is the unit
    assert error.shape == (200, C)


def test_what_is_learned_finds_a_fault_and_its_channel(name: str) -> None:
    model = learned(name).model
    engine = Engine(model)
    fresh = normal(1200, seed=5)
    quiet = engine.process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert np.nanmean(quiet.score > 1) < 0.05
    fresh = normal(300, seed=6)
    fresh[200:220, 2] = fresh[:200, 2].mean() + 3 * fresh[:200, 2].std()
    faulty = Engine(model).process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert faulty.score[205:220].min() > 1
    # at once; a fault that stays may be explained away through channels that go with it
    assert faulty.error[200].argmax() == 2
    assert [p.alert.type for p in faulty.published][:1] == ["residual.incident.opened"]
