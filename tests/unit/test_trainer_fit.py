"""Fitting: PCA against scikit-learn, early stopping, seeds, and what it prints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import decomposition
from trainer_data import normal, table

from schemas.errors import ResidualError, SettingsError
from trainer.batches import Batches
from trainer.data import Prepared, prepare
from trainer.fit import evaluate, fit
from trainer.models import MODELS, Shape, Size
from trainer.models.pca import PCA
from trainer.settings import FitSettings

PCA_SETTINGS = FitSettings(model="pca")


def data(window: int = 10) -> Prepared:
    return prepare(table(normal(800)), window, FitSettings(context="none"))


@pytest.mark.parametrize(("flags", "wanted"), [({"latent": 5}, 5), ({"variance": 0.9}, 0.9), ({"variance": 1.0}, 40)])
def test_pca_is_scikit_learns_without_all_windows_in_memory(flags: dict[str, float], wanted: float) -> None:
    prepared = data()
    model, _ = fit(prepared, FitSettings.model_validate({"model": "pca", **flags}))
    z = Batches(prepared.fit).gather(slice(None)).z
    flat = z.reshape(len(z), -1).double().numpy()
    count = None if wanted == 40 else wanted
    reference = decomposition.PCA(n_components=count, svd_solver="full").fit(flat)
    assert isinstance(model, PCA)
    assert model.components.shape == (40, reference.n_components_)
    expected = reference.inverse_transform(reference.transform(flat))
    with torch.no_grad():
        found = model.window(z).reshape(len(z), -1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pca_of_a_constant_stream_is_its_mean() -> None:
    prepared = prepare(table(np.full((300, 2), 5, np.float32)), 10, PCA_SETTINGS)
    model, _ = fit(prepared, PCA_SETTINGS)
    assert evaluate(model, Batches(prepared.calibration)) == 0


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    prepared = data()
    settings = FitSettings(model="dense", epochs=500, learning_rate=0.05, patience=2)
    model, curve = fit(prepared, settings)
    assert curve.best == int(np.argmin(curve.validation)) < len(curve.validation) - 1
    assert evaluate(model, Batches(prepared.validation)) == curve.validation[curve.best]
    assert not model.training


def test_training_stops_when_it_no_longer_helps() -> None:
    _, curve = fit(data(), FitSettings(model="dense", epochs=500, learning_rate=0.05, patience=2))
    assert len(curve.validation) == curve.best + 3 < 500


def test_seeds_make_models_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (
        fit(data(), FitSettings(model="dense", epochs=2, seed=seed))[0].state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_that_diverges_says_so() -> None:
    values = normal(400)
    prepared = prepare(table(values), 10, PCA_SETTINGS)
    prepared.scaled[50] = np.nan  # what no data can bring about
    with pytest.raises(ResidualError, match="learning_rate"):
        fit(prepared, FitSettings(model="dense", epochs=2))


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    fit(data(), FitSettings(model="dense", epochs=20, patience=20))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("epoch 1 of at most 20: loss ")
    assert len(lines) == 11
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_a_window_that_an_architecture_cannot_take_is_a_setting_out_of_range() -> None:
    with pytest.raises(SettingsError, match="multiple of 4"):
        MODELS["conv"].build(Shape(10, 3), Size())
    for name in ("linear", "mlp", "tcn"):
        with pytest.raises(SettingsError, match="at least 2"):
            MODELS[name].build(Shape(1, 3), Size())


@pytest.mark.parametrize("model", ["dense", "dense-vae", "lstm"])
def test_mixed_precision_learns_about_as_much_and_keeps_full_weights(model: str) -> None:
    prepared = data()
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(SettingsError, match="nothing in bfloat16"):
            fit(prepared, FitSettings.model_validate({"model": model, "window": 10, "precision": "mixed"}))
        return
    full, mixed = (
        fit(prepared, FitSettings.model_validate({"model": model, "window": 10, "epochs": 8, "precision": precision}))
        for precision in ("full", "mixed")
    )
    assert {tensor.dtype for tensor in mixed[0].state_dict().values()} == {torch.float32}
    assert mixed[1].fit != full[1].fit  # it was another way
    assert mixed[1].validation[-1] < 1.3 * full[1].validation[-1]
