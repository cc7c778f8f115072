"""The plane of the codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainer_data import normal, table

from trainer.latent import DRAWN, STEPS, autoencoder_of, latent_space, principal
from trainer.models import MODELS, PLUS, Architecture, Several, Shape, Size, members_of
from trainer.models.variational import Variational
from trainer.pipeline import Draft, drafted
from trainer.settings import FitSettings


def fitted(model: str, **settings: object) -> Draft:
    readings = table(normal(500), normal(500, seed=1))
    given = FitSettings.model_validate({"model": model, "epochs": 2, "context": "none", **settings})
    return drafted(readings, given, None, lambda _: None)


def built(name: str) -> Architecture:
    networks = [MODELS[member].build(Shape(16, 3), Size()) for member in members_of(name)]
    return networks[0] if len(networks) == 1 else Several(networks)


@given(
    st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, 8), st.integers(0, 2**16)))
)  # fmt: skip
def test_axes_are_orthonormal_and_carry_what_they_say(drawn: tuple[int, int, int]) -> None:
    n, size, seed = drawn
    points = np.random.default_rng(seed).normal(size=(n, size)) * np.arange(1, size + 1)
    centred = points - points.mean(axis=0)
    axes, share = principal(centred)
    found = min(2, size, n)
    np.testing.assert_allclose(axes[:found] @ axes[:found].T, np.eye(found), atol=1e-9)
    assert (axes[found:] == 0).all()
    variance = (centred @ axes.T).var(axis=0) / centred.var(axis=0).sum()
    np.testing.assert_allclose(share, variance, atol=1e-9)
    assert share[0] >= share[1] >= 0
    for axis in axes[:found]:
        assert axis[np.abs(axis).argmax()] > 0


def test_points_that_are_all_the_same_have_no_axis_to_speak_of() -> None:
    _, share = principal(np.zeros((5, 3)))
    assert share.tolist() == [0, 0]


@pytest.mark.parametrize("name", [*MODELS, "pca+mlp", "pca+linear", "dense+conv-vae", "mlp+tcn", "pca+conv-aer"])
def test_what_encodes_has_a_code_and_forecasters_have_none(name: str) -> None:
    found = autoencoder_of(built(name), name)
    members = name.split(PLUS)
    coders = [member for member in members if member not in ("linear", "mlp", "tcn")]
    assert (found is not None) == bool(coders)
    if found is not None:
        assert found[0] in coders
        assert isinstance(found[1], Variational) == any(member.endswith("-vae") for member in members)


@pytest.mark.parametrize("name", ["pca", "dense", "conv-vae", "conv-aer", "pca+mlp"])
def test_codes_of_both_stretches_and_of_the_worst_windows_are_drawn(name: str) -> None:
    draft = fitted(name)
    worst = draft.data.calibration_ends[[3, 50]]
    latent, decoded = latent_space(draft.network, name, draft.data, worst)
    assert latent is not None
    assert len(latent.fit.x) == len(latent.fit.y) == min(DRAWN // 2, len(draft.data.fit))
    assert len(latent.calibration.x) == min(DRAWN // 2, len(draft.data.calibration))
    assert len(latent.worst.x) == 2
    assert 0 < sum(latent.share) <= 1 + 1e-3
    assert (decoded is not None) == name.endswith("-vae")
    # all calibration windows are few enough to be drawn, so the worst ones are among them
    assert latent.worst.x[0] == pytest.approx(latent.calibration.x[3], rel=1e-2, abs=1e-2)


def test_components_of_pca_are_the_axes_already() -> None:
    draft = fitted("pca", latent=2)
    latent, _ = latent_space(draft.network, "pca", draft.data, draft.data.calibration_ends[:0])
    assert latent is not None
    assert latent.size == 2
    assert sum(latent.share) == pytest.approx(1, abs=1e-3)


def test_the_middle_of_the_grid_is_the_window_of_the_mean_code() -> None:
    draft = fitted("dense-vae")
    latent, decoded = latent_space(draft.network, "dense-vae", draft.data, draft.data.calibration_ends[:0])
    assert latent is not None
    assert decoded is not None
    G, C = len(STEPS), len(decoded.channels)
    assert np.array(decoded.windows).shape == (G, G, C, draft.data.window)
    found = autoencoder_of(draft.network, "dense-vae")
    assert found is not None
    ends = np.concatenate([draft.data.fit_ends, draft.data.calibration_ends])
    W = draft.data.window
    z = torch.from_numpy(np.stack([draft.data.scaled[end - W + 1 : end + 1] for end in ends]))
    with torch.no_grad():
        window = found[1].decode(found[1].encode(z, None).mean(0, keepdim=True), None)[0].numpy()
    np.testing.assert_allclose(decoded.windows[G // 2][G // 2], window[:, decoded.channels].T, atol=2e-3)


def test_the_same_fit_gives_the_same_codes() -> None:
    one, other = (fitted("dense-vae") for _ in range(2))
    none = one.data.calibration_ends[:0]
    assert latent_space(one.network, "dense-vae", one.data, none) == latent_space(
        other.network, "dense-vae", other.data, none
    )
