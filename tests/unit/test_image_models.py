"""Image models: shapes, what a score tolerates, what ONNX Runtime makes of them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from thorough import few
from torch import Tensor, nn

from schemas.errors import DataError, SettingsError
from schemas.frame import Frame
from trainer.images.architecture import as_images, as_readings
from trainer.images.augmentation import Augmentation, read_region, shifted
from trainer.images.autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from trainer.images.score import PixelScore, Reduction, blurred, least_dissimilarity, least_squared_error, tolerance
from trainer.models.architecture import Size

MODELS = {"conv": ConvAutoencoder, "vae": VariationalConvAutoencoder}
FRAMES = [Frame(8, 8, 1), Frame(28, 28, 1), Frame(9, 33, 3), Frame(64, 40, 2), Frame(1, 5, 1)]
REDUCTIONS = [
    Reduction(),
    Reduction(("error",), reach=2, top=0.1),
    Reduction(("error",), blur=0, reach=0),
    Reduction(("ssim",), top=0.05),
]


def blobs(count: int, frame: Frame, seed: int = 0) -> Tensor:
    """Soft spots of light at places around the middle, ``[count, bands, H, W]``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: frame.height, : frame.width].astype(np.float32)
    at = np.array([frame.height, frame.width]) * (0.5 + 0.15 * rng.standard_normal((count, 2)))
    wide = 0.02 * (frame.height**2 + frame.width**2) + 1
    far = (y - at[:, :1, None]) ** 2 + (x - at[:, 1:, None]) ** 2
    spots = np.exp(-far / wide)[:, None] * np.linspace(0.5, 1, frame.bands)[None, :, None, None]
    return torch.from_numpy(spots.astype(np.float32))


def trained(network: nn.Module, z: Tensor, steps: int) -> list[float]:
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = (network(z) - z).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


# networks


@pytest.mark.parametrize("frame", FRAMES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_shapes(name: str, frame: Frame) -> None:
    network = MODELS[name](frame, Size(latent=5, hidden=8)).eval()
    z = blobs(3, frame)
    code = network.encode(z)
    assert code[0].numel() == network.code_size
    assert network.decode(code).shape == z.shape == network(z).shape


def test_one_code_for_a_small_image_and_a_grid_for_a_large_one() -> None:
    assert ConvAutoencoder(Frame(28, 28, 1), Size()).grid == (1, 1)
    assert ConvAutoencoder(Frame(8, 8, 1), Size()).grid == (1, 1)
    assert ConvAutoencoder(Frame(64, 100, 1), Size()).grid == (2, 4)


def test_no_weight_depends_on_the_size_of_the_image() -> None:
    small, large = (ConvAutoencoder(Frame(side, side, 3), Size()) for side in (32, 96))
    large.load_state_dict(small.state_dict())
    tile = blobs(1, Frame(32, 32, 3))
    middle = large(tile.repeat(1, 1, 3, 3))[:, :, 44:52, 44:52]
    torch.testing.assert_close(middle, small(tile)[:, :, 12:20, 12:20], atol=0.05, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_it_learns(name: str) -> None:
    frame = Frame(12, 12, 1)
    torch.manual_seed(0)
    network = MODELS[name](frame, Size(latent=4))
    z = blobs(32, frame)
    losses = trained(network, z, 120)
    assert losses[-1] < 0.2 * float(z.var(0).mean())


def test_the_variational_code() -> None:
    """In evaluation no chance; in training a draw that differs, and a price that is 0 only for the prior itself."""
    frame = Frame(16, 16, 1)
    network = VariationalConvAutoencoder(frame, Size(latent=3))
    z = blobs(6, frame)
    mean, log_variance = network.posterior(z)
    assert mean.shape == log_variance.shape == (6, 3, 1, 1)
    torch.testing.assert_close(network.encode(z), mean)
    torch.testing.assert_close(network(z), network(z), rtol=0, atol=0)
    (first, price), (second, _) = network.sample(z), network.sample(z)
    assert not torch.equal(first, second)
    assert price.shape == (6,)
    assert (price > 0).all()
    for layer in (network.code, network.log_variance):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    torch.testing.assert_close(network.sample(z)[1], torch.zeros(6))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_readings_and_images_are_the_same_numbers(height: int, width: int, bands: int) -> None:
    frame = Frame(height, width, bands)
    values = torch.arange(2 * frame.values, dtype=torch.float32).reshape(2, -1)
    images = as_images(values, frame)
    assert images.shape == (2, bands, height, width)
    assert images[1, bands - 1, height - 1, 0] == values.reshape(2, *frame)[1, height - 1, 0, bands - 1]
    assert torch.equal(as_readings(images), values)


# score


def test_blurring_keeps_a_plain_and_spreads_a_point() -> None:
    plain = torch.full((1, 2, 5, 5), 0.5)
    assert torch.equal(blurred(plain, 3), plain)
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 16
    assert blurred(point, 1)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_the_least_error_against_a_loop() -> None:
    torch.manual_seed(0)
    z, expected = torch.rand(2, 3, 6, 7), torch.rand(2, 3, 6, 7)
    found = least_squared_error(z, expected, 1)
    for b, y, x in np.ndindex(2, 6, 7):
        near = [
            (z[b, :, y, x] - expected[b, :, min(max(y + down, 0), 5), min(max(x + right, 0), 6)]).square().mean()
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        ]
        torch.testing.assert_close(found[b, y, x], min(near))


@pytest.mark.parametrize("reach", [1, 2])
def test_what_moved_within_reach_costs_nothing(reach: int) -> None:
    expected = blobs(1, Frame(20, 20, 2))
    moved = shifted(expected, torch.tensor([reach]), torch.tensor([-reach]))
    assert float(least_squared_error(moved, expected, reach).max()) == 0
    assert float(least_squared_error(moved, expected, 0).max()) > 0.01


def test_structure() -> None:
    image = blobs(1, Frame(20, 20, 1))
    torch.testing.assert_close(least_dissimilarity(image, image, 0), torch.zeros(1, 20, 20), atol=1e-5, rtol=0)
    brighter, inverted = least_dissimilarity(image, image * 1.1, 0), least_dissimilarity(image, 1 - image, 0)
    assert float(brighter.mean()) < 0.05 < 0.5 < float(inverted.mean())
    assert float(inverted.max()) <= 2


def test_a_normal_image_scores_about_one() -> None:
    torch.manual_seed(0)
    noise = 0.1 * torch.randn(400, 1, 12, 12) * torch.linspace(1, 2, 12)  # some columns are wilder than others
    still = torch.zeros_like(noise)
    for reduction in (Reduction(("error",), reach=0), Reduction()):
        score, error = PixelScore(reduction, reduction.maps(noise, still).mean(0))(noise, still)
        assert 0.8 < float(score.mean()) < 1  # not 1: the floor
        assert float(error.mean((0, 1)).std()) < 0.1, "every column counts the same"


@pytest.mark.parametrize("reduction", REDUCTIONS[:3], ids=str)  # structure alone does not see it
def test_a_spot_scores_higher_and_is_found(reduction: Reduction) -> None:
    torch.manual_seed(0)
    expected = blobs(50, Frame(24, 24, 1))
    normal = expected + 0.02 * torch.randn_like(expected)
    scorer = PixelScore(reduction, reduction.maps(normal, expected).mean(0))
    spoilt = normal.clone()
    spoilt[:, :, 3:6, 17:20] += 0.7
    (good, _), (bad, error) = scorer(normal, expected), scorer(spoilt, expected)
    assert float(bad.min()) > float(good.max())
    peaks = error.flatten(1).argmax(1)
    assert ((peaks // 24 - 4).abs() <= 3).all()
    assert ((peaks % 24 - 18).abs() <= 3).all()


def test_only_the_region_counts() -> None:
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[:, :4] = True
    expected, z = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    z[..., 6] = 1
    scorer = PixelScore(Reduction(("error",)), torch.ones(1, 8, 8), region)
    assert float(scorer(z, expected)[0]) == 0
    z[..., 1] = 1
    score, error = scorer(z, expected)
    assert float(score) > 0
    assert error[..., 4:].isnan().all()
    assert not error[..., :4].isnan().any()
    with pytest.raises(SettingsError, match="no pixel"):
        PixelScore(Reduction(), torch.ones(2, 8, 8), torch.zeros(8, 8, dtype=torch.bool))


def test_a_missing_pixel_is_as_expected() -> None:
    z, expected = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    observed = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    scorer = PixelScore(Reduction(), torch.ones(2, 6, 6))
    whole = scorer(z, expected, observed)[0]
    torch.testing.assert_close(whole, scorer(z, expected)[0])
    observed[0] = False
    score = scorer(torch.where(observed, z, float("nan")), expected, observed)[0]
    torch.testing.assert_close(score, whole * torch.tensor([0, 1]), atol=1e-6, rtol=1e-5)


def test_small_images_are_not_forgiven_a_pixel() -> None:
    assert [tolerance(Frame(side, 40, 1)) for side in (8, 16, 480)] == [0, 1, 1]


@pytest.mark.parametrize("bad", [{"blur": -1}, {"reach": 9}, {"top": 0}, {"top": 1.5}, {"measures": ()}])
def test_settings_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        Reduction(**bad)  # type: ignore[arg-type]


# ONNX


class Whole(nn.Module):
    """Images in, scores and maps out, as it would be served."""

    def __init__(self, network: ConvAutoencoder, scorer: PixelScore) -> None:
        super().__init__()
        self.network, self.scorer = network, scorer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = as_images(x, self.network.frame)
        score, error = self.scorer(z, self.network(z))
        return score, error


@cache
def served(name: str, reduction: Reduction) -> tuple[Whole, bytes]:
    frame = Frame(13, 18, 2)
    torch.manual_seed(0)
    network = MODELS[name](frame, Size(latent=4, hidden=16)).eval()
    normal = torch.rand(len(reduction.measures), 13, 18) + 0.1
    whole = Whole(network, PixelScore(reduction, normal)).eval()
    out = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        program = torch.onnx.export(
            whole,
            (torch.zeros(2, frame.values),),
            dynamic_shapes=({0: torch.export.Dim("B")},),
            dynamo=True,
            verbose=False,
        )
        logging.disable(logging.NOTSET)
    assert program is not None
    out.write(program.model_proto.SerializeToString(deterministic=True))
    return whole, out.getvalue()


def run(graph: bytes, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    score, error = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return score, error


@pytest.mark.parametrize("reduction", few(REDUCTIONS[:1], REDUCTIONS), ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_says_the_same(name: str, reduction: Reduction) -> None:
    whole, graph = served(name, reduction)
    x = as_readings(blobs(64, Frame(13, 18, 2)))
    score, error = run(graph, x)
    with torch.no_grad():
        expected_score, expected_error = whole(x)
    np.testing.assert_allclose(score, expected_score, rtol=1e-4)
    np.testing.assert_allclose(error, expected_error, rtol=1e-3, atol=1e-5)
    assert b"Random" not in graph


@pytest.mark.parametrize("reduction", few(REDUCTIONS[:1], REDUCTIONS), ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_score_does_not_depend_on_its_batch(name: str, reduction: Reduction) -> None:
    _, graph = served(name, reduction)
    x = as_readings(blobs(64, Frame(13, 18, 2)))
    score, _ = run(graph, x)
    for size in (8, 16, 24):
        np.testing.assert_array_equal(run(graph, x[:size])[0], score[:size])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(run(graph, x[order])[0], score[order.numpy()])


# augmentation


def test_nothing_set_changes_nothing() -> None:
    z = blobs(2, Frame(5, 5, 1))
    assert Augmentation()(z) is z


def test_augmented_images_are_moved_and_lit_otherwise() -> None:
    torch.manual_seed(0)
    z = torch.zeros(500, 2, 9, 9)
    z[:, :, 4, 4] = 0.5
    changed = Augmentation(shift=2, brightness=0.1)(z)
    bright = changed.amax((2, 3))
    assert float(bright.min()) >= 0.45
    assert float(bright.max()) <= 0.55 + 1e-6
    assert torch.equal(bright[:, 0], bright[:, 1]), "the bands of a pixel stay in step"
    places = changed[:, 0].flatten(1).argmax(1)
    assert {(int(p) // 9 - 4, int(p) % 9 - 4) for p in places} == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_a_shift_repeats_the_edge() -> None:
    z = torch.arange(9.0).reshape(1, 1, 3, 3)
    moved = shifted(z, torch.tensor([1]), torch.tensor([-1]))
    assert moved[0, 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]


def test_the_same_seed_gives_the_same_images() -> None:
    z, augmentation = blobs(8, Frame(7, 7, 1)), Augmentation(2, 0.2)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(augmentation(z))
    assert torch.equal(*drawn)


def test_a_region_from_a_picture(tmp_path: object) -> None:
    image = pytest.importorskip("PIL.Image")
    path = f"{tmp_path}/region.png"
    pixels = np.zeros((4, 5), np.uint8)
    pixels[1:3, 2:] = 9
    image.fromarray(pixels).save(path)
    assert torch.equal(read_region(path, Frame(4, 5, 3)), torch.from_numpy(pixels > 0))
    with pytest.raises(DataError, match="draw the region in their size"):
        read_region(path, Frame(5, 4, 3))
    image.fromarray(pixels * 0).save(path)
    with pytest.raises(DataError, match="black all over"):
        read_region(path, Frame(4, 5, 3))
    with pytest.raises(DataError, match="cannot be read"):
        read_region(f"{tmp_path}/absent.png", Frame(4, 5, 3))
