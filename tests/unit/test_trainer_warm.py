"""Starting from the weights of a model that is there: what is copied, what is new, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from thorough import thorough
from trainer_data import normal, table

from detector.adapters.folder import write_model
from schemas.errors import ModelError, ParityError, SettingsError
from trainer.data import Prepared, prepare
from trainer.fit import fit
from trainer.models import MODELS, Shape, Size
from trainer.pipeline import learn
from trainer.settings import FitSettings
from trainer.warm import WEIGHTS, Start, read_ancestor, weights_of

NAMES = tuple(f"c{c}" for c in range(4))


def settings(**flags: object) -> FitSettings:
    return FitSettings.model_validate({"model": "dense", "epochs": 4, "context": "none", **flags})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warm") / "model"
    learned = learn(table(normal(600)), settings())
    write_model(learned.model, path, {WEIGHTS: learned.weights})
    return path


def data(channels: int = 4) -> Prepared:
    return prepare(table(normal(600, channels)), 10, settings())


def begun(folder: Path, channels: tuple[str, ...] = NAMES) -> tuple[dict[str, torch.Tensor], list[str]]:
    network = MODELS["dense"].build(Shape(10, len(channels)), Size())
    start = Start(read_ancestor(str(folder), "dense"), channels)
    copied = start.give(network, MODELS["dense"], Size(), data(len(channels)).calibration)
    return network.state_dict(), copied


def test_the_same_channels_begin_where_the_ancestor_ended(folder: Path) -> None:
    state, copied = begun(folder)
    ancestor = read_ancestor(str(folder), "dense")
    assert set(copied) == set(state) == set(ancestor.weights)
    assert all(torch.equal(state[name], ancestor.weights[name]) for name in state)


def test_with_other_channels_the_first_and_last_layers_are_new(folder: Path) -> None:
    for channels in (("c0", "c1", "c2"), ("c1", "c0", "c2", "c3")):  # the second: as many, in another order
        state, copied = begun(folder, channels)
        fresh = set(state) - set(copied)
        assert fresh == {"inward.0.weight", "readings.weight", "readings.bias"}


def test_it_learns_in_fewer_epochs_than_from_nothing(folder: Path) -> None:
    start = Start(read_ancestor(str(folder), "dense"), NAMES)
    warm = fit(data(), settings(epochs=1), start)[1].validation[0]
    cold = fit(data(), settings(epochs=1))[1].validation[0]
    assert warm < cold


def test_frozen_layers_stay_as_they_are(folder: Path) -> None:
    start = Start(read_ancestor(str(folder), "dense"), NAMES)
    network, _ = fit(data(), settings(freeze="inward, code"), start)
    state = network.state_dict()
    assert torch.equal(state["inward.0.weight"], start.ancestor.weights["inward.0.weight"])
    assert not torch.equal(state["readings.weight"], start.ancestor.weights["readings.weight"])
    with pytest.raises(SettingsError, match="all layers are frozen"):
        fit(data(), settings(freeze="inward,code,outward,readings"), start)
    with pytest.raises(SettingsError, match="of --init-from"):
        fit(data(), settings(freeze="inward"))
    with pytest.raises(SettingsError, match=r"no layer is named encoder: there are code, inward\.0"):
        fit(data(), settings(freeze="encoder"), start)


def test_weights_that_are_not_the_graphs_are_refused(folder: Path, tmp_path: Path) -> None:
    learned = learn(table(normal(600)), settings())
    network = MODELS["dense"].build(Shape(10, 4), Size())
    write_model(learned.model, tmp_path / "m", {WEIGHTS: weights_of(network)})
    with pytest.raises(ParityError, match="changed by hand"):
        begun(tmp_path / "m")


def test_what_cannot_be_started_from_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--model dense"):
        read_ancestor(str(folder), "conv")
    learned = learn(table(normal(600)), settings())
    write_model(learned.model, tmp_path / "m")
    with pytest.raises(ModelError, match=WEIGHTS):
        read_ancestor(str(tmp_path / "m"), "dense")
    (tmp_path / "m" / WEIGHTS).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"is not a file that manifest\.json names"):
        read_ancestor(str(tmp_path / "m"), "dense")
    write_model(learned.model, tmp_path / "m", {WEIGHTS: b"nothing of the kind"})
    with pytest.raises(ModelError, match="cannot be read"):
        read_ancestor(str(tmp_path / "m"), "dense")
    write_model(learned.model, tmp_path / "m", {WEIGHTS: learned.weights})
    (tmp_path / "m" / WEIGHTS).write_bytes(learned.weights[:-1] + bytes([learned.weights[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"is not the file that manifest\.json names"):
        read_ancestor(str(tmp_path / "m"), "dense")


@thorough
def test_several_streams_and_a_season(tmp_path: Path) -> None:
    with_season = settings(context="40s")
    learned = learn(table(normal(900), normal(900, seed=1)), with_season)
    write_model(learned.model, tmp_path / "m", {WEIGHTS: learned.weights})
    again = learn(
        table(normal(900), normal(900, seed=1)), with_season.model_copy(update={"init_from": str(tmp_path / "m")})
    )
    assert np.isfinite(again.model.manifest.calibration.threshold)
    assert again.model.manifest.season is not None


@thorough
def test_another_window_is_inherited_or_made_do_with(tmp_path: Path) -> None:
    conv = settings(model="conv", window=32, epochs=2)
    first = learn(table(normal(600)), conv)
    write_model(first.model, tmp_path / "m", {WEIGHTS: first.weights})
    start = {"init_from": str(tmp_path / "m")}
    unnamed = FitSettings.model_validate({"epochs": 1, "context": "none", **start})
    assert learn(table(normal(600)), unnamed).model.manifest.window == 32
    shorter = learn(table(normal(600)), conv.model_copy(update={"window": 16, **start}))
    assert shorter.model.manifest.window == 16


@thorough
def test_what_is_solved_for_needs_no_start(tmp_path: Path) -> None:
    first = learn(table(normal(600, 3)), settings(model="pca+linear"))
    write_model(first.model, tmp_path / "m", {WEIGHTS: first.weights})
    again = learn(table(normal(600, 4)), settings(model="pca+linear", init_from=str(tmp_path / "m")))
    assert len(again.model.manifest.channels) == 4


@thorough
def test_joined_models_start_from_their_members_and_no_name_means_the_ancestors(tmp_path: Path) -> None:
    joined = settings(model="pca+mlp", epochs=6)
    first = learn(table(normal(600)), joined)
    write_model(first.model, tmp_path / "m", {WEIGHTS: first.weights})
    unnamed = FitSettings.model_validate({"epochs": 1, "context": "none", "init_from": str(tmp_path / "m")})
    again = learn(table(normal(600)), unnamed)
    assert again.model.manifest.model == "pca+mlp"
    cold = learn(table(normal(600)), joined.model_copy(update={"epochs": 1}))
    weights = [load(learned.weights)["members.1.straight.weight"] for learned in (first, again, cold)]
    assert (weights[1] - weights[0]).abs().mean() < 0.2 * (weights[2] - weights[0]).abs().mean()
