"""What every architecture has to keep. A new one is one file and one line in ``trainer/models/__init__.py``."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from safetensors.torch import load
from thorough import few
from trainer_data import normal, table

from detector.adapters.files import Table
from detector.engine.engine import Engine
from detector.engine.model import Model
from detector.engine.scorer import Scorer
from schemas.manifest import Batching
from trainer.batches import Batch, Batches
from trainer.calibrate import calibrate
from trainer.data import Given, Prepared
from trainer.fit import evaluate, fit, mean_square_error
from trainer.graph import BROAD, Graph
from trainer.manifests import finished
from trainer.models import AUTOENCODERS, MODELS, Architecture
from trainer.pipeline import Draft, drafted
from trainer.settings import FitSettings
from trainer.warm import weights_of

C = 4

NAMES = [*MODELS, "pca+mlp"]
#: Those with a code of their own, and those that gradient descent fits.
CODED = [name for name in NAMES if name.split("-")[0] in AUTOENCODERS and "-aer" not in name]
TRAINED = [name for name in NAMES if name not in ("pca", "linear")]
#: Each architecture and each head once: `make prove` tries every pair of them.
OF_EACH_KIND = ("pca", "linear", "mlp", "dense", "conv-vae", "lstm-aer", "tcn", "pca+mlp")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = {
        "test_a_larger_code_holds_more": CODED,
        "test_with_noise_an_overcomplete_code_is_no_copy": [name for name in CODED if name in TRAINED],
        "test_gradients_are_finite_where_much_is_missing": TRAINED,
    }
    metafunc.parametrize("name", few(OF_EACH_KIND, names.get(metafunc.function.__name__, NAMES)))


def settings_of(name: str, **flags: object) -> FitSettings:
    small = {"window": 8, "hidden": 32, "epochs": 15} if "lstm" in name else {}  # whose steps take long
    return FitSettings.model_validate({"model": name, "epochs": 30, "learning_rate": 4e-3, **small, **flags})


#: Channels beside the C that move: one that is constant, one that nobody ever observed.
CONSTANT, ABSENT = C, C + 1


def readings(rows: int, seed: int, phase: float = 0.0) -> NDArray[np.float32]:
    still = np.tile(np.array([5, np.nan], np.float32), (rows, 1))
    return np.concatenate([normal(rows, C, seed, phase=phase), still], axis=1)


@cache
def drafted_once(name: str) -> tuple[Table, Draft]:
    """Fitted on two streams with holes and exported: what most of the tests look at."""
    values = [readings(1500, 0), readings(1500, 1, phase=9)]
    for number, own in enumerate(values):
        own[np.random.default_rng(number).random(own.shape) < 0.05] = np.nan
    log = table(*values)
    return log, drafted(log, settings_of(name, false_alarms="1/100s"), None, lambda _: None)


def data_of(name: str) -> Prepared:
    return drafted_once(name)[1].data


def fitted(name: str) -> Architecture:
    return drafted_once(name)[1].network


@cache
def exported(name: str) -> tuple[Graph, bytes]:
    draft = drafted_once(name)[1]
    graph = Graph(draft.network, torch.from_numpy(draft.mean_square) + draft.settings.error_floor).eval()
    return graph, draft.model.graph


@cache
def finished_once(name: str) -> Model:
    log, draft = drafted_once(name)
    return finished(draft.model, calibrate(draft.model, log, draft.data, draft.settings.false_alarms))


def windows(name: str) -> Batch:
    return Batches(data_of(name).calibration).gather(slice(0, 33))


def given(name: str, rows: slice) -> dict[str, torch.Tensor]:
    found = data_of(name).calibration.raw(rows)
    columns = {column: value for column, value in found._asdict().items() if value is not None}
    return {column: torch.from_numpy(value) for column, value in columns.items()}


def test_shapes(name: str) -> None:
    network, batch = fitted(name), windows(name)
    assert batch.context is not None  # the rhythm was found
    with torch.no_grad():
        outcome = network(batch.z, batch.context)
        newest = network.newest(batch.z, batch.context)
        assert network.window(batch.z, batch.context).shape == batch.z.shape
    assert all(expected.shape[::2] == (33, C + 2) for expected in outcome.expected)
    assert newest.shape == (33, len(outcome.expected), C + 2)
    for head, expected in enumerate(outcome.expected):  # the way that is cheaper says the same
        torch.testing.assert_close(newest[:, head], expected[:, -1], rtol=1e-5, atol=1e-5)


def test_it_learns(name: str) -> None:
    """Held-out readings are met with at most a quarter of their variance lost; expecting the mean would lose it all."""
    held_out = data_of(name).calibration
    variance = float(np.square(held_out.data.scaled[held_out.ends, :C]).mean())
    assert float(mean_square_error(fitted(name), Batches(held_out))[:, :C].mean()) < 0.25 * variance


def test_a_larger_code_holds_more(name: str) -> None:
    data = data_of(name)
    loss = [evaluate(fit(data, settings_of(name, latent=n, epochs=10))[0], Batches(data.fit)) for n in (1, 4)]
    assert loss[1] < loss[0]


def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    """And the same weights the same file: see the tests of the export."""
    one, again = (fit(data_of(name), settings_of(name, epochs=2))[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[tensor], again[tensor]) for tensor in one)


def test_the_gate_opens_and_batches_need_no_fixed_size(name: str) -> None:
    draft = drafted_once(name)[1]
    assert draft.model.manifest.batching == Batching()
    assert draft.parity < 1e-5


def test_what_is_saved_is_what_is_loaded(name: str) -> None:
    """Into a network that has learned nothing, with the sizes of the one that was saved."""
    network = fitted(name)
    fresh = copy.deepcopy(network)
    for tensor in fresh.state_dict().values():
        tensor.zero_()
    fresh.load_state_dict(load(weights_of(network)))
    batch = windows(name)
    with torch.no_grad():
        assert torch.equal(fresh.newest(batch.z, batch.context), network.newest(batch.z, batch.context))


def test_with_noise_an_overcomplete_code_is_no_copy(name: str) -> None:
    """A copy would meet whatever is put before it; one that had to tell signal from noise leaves most of a spike."""
    data = data_of(name)
    settings = settings_of(name, latent=2 * data.window * data.channels, noise=1.0, epochs=20)
    network = fit(data, settings)[0]
    z = Batches(data.calibration).gather(slice(0, 200))
    spiked = z.z.clone()
    spiked[:, -1, 2] += 6
    with torch.no_grad():
        followed = network.newest(spiked, z.context) - network.newest(z.z, z.context)  # [200, 1, C]
    assert float(followed[:, 0, 2].mean()) < 3


def test_gradients_are_finite_where_much_is_missing(name: str) -> None:
    network, batch = copy.deepcopy(fitted(name)).train(), windows(name)
    z = torch.where(torch.rand_like(batch.z) < 0.5, 0.0, batch.z)
    z[5] = 0
    outcome = network(z, batch.context)
    sum(expected.square().sum() for expected in outcome.expected).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_missing_cells_have_no_say(name: str) -> None:
    """Whatever stands in them, NaN and infinity included; and a channel that is missing now has no error."""
    graph, _ = exported(name)
    rows = given(name, slice(0, 16))
    x = rows.pop("x")
    mask = ~torch.isnan(x)
    mask[:, :, 1] = False
    mask[3] = False
    with torch.no_grad():
        first = graph(torch.where(mask, x, torch.nan), mask, **rows)
        second = graph(torch.where(mask, x, torch.inf), mask, **rows)
        third = graph(torch.where(mask, x, 1e30), mask, **rows)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    score, error = first[:2]
    assert (error[~mask[:, -1]] == 0).all()
    assert score[3] == 0
    observed = mask[:, -1].sum(1).clamp(min=1)
    breadth = (error / (error + BROAD)).sum(1) / observed
    torch.testing.assert_close(score, error.sum(1) / observed * torch.sqrt(breadth * (1 + BROAD)))


def test_one_wild_reading_is_bounded(name: str) -> None:
    graph, _ = exported(name)
    rows = given(name, slice(0, 8))
    x = rows.pop("x").nan_to_num()
    x[:, -1] = 3e38
    with torch.no_grad():
        assert all(torch.isfinite(output).all() for output in graph(x, torch.ones_like(x, dtype=torch.bool), **rows))


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
        assert text.encode() not in b"\0".join(onnx_strings(onnx_bytes)), text


def onnx_strings(onnx_bytes: bytes) -> list[bytes]:
    """Every text in the file: names, types and notes."""
    found: list[bytes] = []

    def collect(message: Message) -> None:
        for field, value in message.ListFields():
            for item in value if field.is_repeated else [value]:
                if isinstance(item, Message):
                    collect(item)
                elif isinstance(item, str):
                    found.append(item.encode())

    collect(onnx.load_from_string(onnx_bytes))
    return found


def test_channels_that_are_constant_or_never_observed_harm_nothing(name: str) -> None:
    """They add nothing to a score of normal data, and one that was constant still counts when it moves."""
    model = finished_once(name)
    fresh = readings(300, seed=5)
    fresh[250:, CONSTANT] = 7
    scored = Engine(model).process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert np.isfinite(scored.score[model.manifest.window - 1 :]).all()
    assert np.isfinite(scored.error[model.manifest.window - 1 :]).all()
    assert np.nanmedian(scored.score[:250]) < 1
    assert (scored.error[:, ABSENT] == 0)[model.manifest.window - 1 :].all()
    assert scored.score[250] > 1
    assert scored.error[250].argmax() == CONSTANT


@pytest.mark.parametrize("channel", range(C))
def test_a_spike_scores_above_all_normal_readings(name: str, channel: int) -> None:
    """Raw scores, before any smoothing: ranking is the model's, not the threshold's."""
    data, scorer = data_of(name), Scorer(exported(name)[1], Batching())
    rows = data.calibration.raw(slice(None))
    seen = ~np.isnan(rows.x[:, -1, :C]).any(axis=1)
    rows = Given(*(None if column is None else column[seen] for column in rows))
    usual = scorer.score(*rows)[0]
    spiked = rows.x.copy()
    spiked[:, -1, channel] += 6 * rows.scale[:, channel]
    score, error, _ = scorer.score(*rows._replace(x=spiked))
    assert score.min() > usual.max()
    assert (error.argmax(axis=1) == channel).mean() > 0.9


def test_outputs_are_in_engineering_units(name: str) -> None:
    _, onnx_bytes = exported(name)
    rows = data_of(name).calibration.raw(slice(0, 200))
    scorer = Scorer(onnx_bytes, Batching())
    score, error, expected = scorer.score(*rows)
    # level and spread differ by orders of magnitude between channels, and every one is met
    off = np.abs(expected - rows.x[:, -1]) / rows.scale
    assert (np.nanmean(off[:, :ABSENT], axis=0) < 0.6).all()
    if "aer" not in name and "+" not in name:  # whose expectation is that of two heads
        np.testing.assert_allclose(scorer.window(*rows)[:, -1], expected, rtol=1e-4, atol=1e-3)
    assert 0.3 < score.mean() < 3  # on the data whose mean square error is the unit
    assert error.shape == (200, C + 2)


def test_what_is_learned_finds_a_fault_and_its_channel(name: str) -> None:
    model = finished_once(name)
    engine = Engine(model)
    fresh = readings(1200, seed=5)
    quiet = engine.process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert np.nanmean(quiet.score[100:] > 1) < 0.05  # its rhythm is known after two periods of 40
    fresh = readings(300, seed=6)
    fresh[200:220, 2] = fresh[:200, 2].mean() + 3 * fresh[:200, 2].std()
    faulty = Engine(model).process(table(fresh, names=("s0",)).slice(0, len(fresh)))
    assert faulty.score[205:220].min() > 1
    # at once; a fault that stays may be explained away through channels that go with it
    assert faulty.error[200].argmax() == 2
    assert [p.alert.type for p in faulty.published][:1] == ["residual.incident.opened"]
