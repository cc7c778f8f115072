"""Made images: what a camera's pictures look like, by day and by group, and faults in them."""

from __future__ import annotations

import csv
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from sklearn.datasets import load_digits

from detector.adapters.files import Table
from detector.adapters.images import Images, read_images
from detector.decoding.images import decode_image
from schemas.errors import ModelError, SettingsError
from schemas.frame import Frame
from trainer import cli
from trainer.images.faults import KINDS
from trainer.synthesis.images.feed import ImageFeed
from trainer.synthesis.images.generator import doublings, sizes
from trainer.synthesis.images.lesson import Pixels, as_windows
from trainer.synthesis.images.pipeline import FittedImages, fit_image_generator
from trainer.synthesis.images.recipe import BATCH, read_image_recipe, write_image_recipe
from trainer.synthesis.images.records import Pictures
from trainer.synthesis.images.sampler import ImageSampler, spoil_images
from trainer.synthesis.planted import Faults
from trainer.synthesis.recipe import read_recipe
from trainer.synthesis.settings import SynthSettings

QUICK = {"steps": 400, "game_steps": 20, "hidden": 24, "model": "gan", "groups": "gate;yard"}


@cache
def images() -> Images:
    """Two cameras: one sees noughts, the other ones."""
    found = load_digits()
    rows = np.flatnonzero(found.target < 2)
    x, streams = found.images[rows], [("gate", "yard")[digit] for digit in found.target[rows]]
    times = np.arange(len(rows)) * 60 * 10**9
    table = Table(streams, times, x.reshape(len(rows), -1).astype(np.float32), [""] * len(rows), ())
    return Images(Frame(8, 8, 1), table)


@cache
def fitted() -> FittedImages:
    return fit_image_generator(images(), SynthSettings.load(QUICK))


@pytest.mark.parametrize("frame", [Frame(8, 8, 1), Frame(13, 30, 3), Frame(4, 4, 1), Frame(3, 5, 2), Frame(100, 64, 1)])
def test_every_size_of_image_has_its_stages(frame: Frame) -> None:
    stages = sizes(frame)
    assert len(stages) == doublings(frame) + 1
    assert stages[-1][0] >= frame.height
    assert stages[-1][1] >= frame.width
    assert all(later == (2 * h, 2 * w) for (h, w), later in pairwise(stages))


def test_a_pixel_has_only_values_that_the_camera_gives() -> None:
    pixels = Pixels.of(np.array([[0, 16, 3]], np.float32))
    assert pixels == Pixels(0, 16, whole=True)
    back = pixels.back(np.linspace(-1, 2, 50, dtype=np.float32))
    assert set(back.tolist()) == set(np.arange(17.0).tolist())
    assert not Pixels.of(np.array([[0.5, 1]], np.float32)).whole
    np.testing.assert_array_equal(pixels.scaled(np.array([[np.nan, 16]], np.float32)), [[0, 1]])


def test_large_images_are_compared_smaller() -> None:
    large = np.random.default_rng(0).random((5, 3, 100, 70)).astype(np.float32)
    assert as_windows(large).shape == (5, 25, 23 * 3)
    assert as_windows(large[:, :, :8, :8]).shape == (5, 8, 24)
    assert as_windows(large[:, :, :3, :]).shape == (5, 3, 23 * 3)


def test_the_same_seed_the_same_images_in_parts_or_at_once() -> None:
    sampler = ImageSampler(fitted().recipe, 4)
    times, whole = sampler.images(0, 0, 10**12, BATCH + 9)
    _, few = sampler.images(0, 0, 10**12, 9)
    np.testing.assert_array_equal(whole[:9], few)
    assert whole.shape == (BATCH + 9, 8, 8, 1)
    assert (np.diff(times) == 60 * 10**9).all() or (np.diff(times) == 120 * 10**9).all()
    assert not np.array_equal(ImageSampler(fitted().recipe, 5).images(0, 0, 10**12, 9)[1], few)
    assert (whole == np.round(whole)).all()


def test_groups_look_like_their_cameras() -> None:
    sampler = ImageSampler(fitted().recipe, 0)
    made = [sampler.images(group, group, 0, 200)[1] for group in (0, 1)]
    table = images().table
    measured = [table.values[np.array(table.streams) == name] for name in ("gate", "yard")]
    middle = [own.mean(axis=0).ravel() for own in (*made, *measured)]
    for own, other in ((0, 1), (1, 0)):  # each is most like its own camera's
        assert np.abs(middle[own] - middle[2 + own]).mean() < 0.5 * np.abs(middle[own] - middle[2 + other]).mean()


def test_faults_are_where_the_truth_says_and_nowhere_else() -> None:
    recipe = fitted().recipe
    _, clean = ImageSampler(recipe, 0).images(0, 0, 0, 300)
    times = np.arange(300) * 10**9
    spoilt, told = spoil_images(recipe.pixels, times, clean, "gate", 30, [2], tuple(KINDS))
    changed = np.flatnonzero((spoilt != clean).any(axis=(1, 2, 3)))
    assert times[changed].tolist() == [one.start_ns for one in told]
    assert 15 <= len(told) <= 30
    assert {one.cells[4:] for one in told} == {("", "")}
    assert json.loads(told[0].to_bytes()).keys() == {"stream", "kind", "start", "end"}


def test_a_feed_is_cut_into_blocks_that_nobody_sees() -> None:
    recipe = fitted().recipe
    faults = Faults(0.05, tuple(KINDS), seed=1)
    whole = list(ImageFeed(ImageSampler(recipe, 4), 2, 10**12, faults).of_all(BATCH + 9))
    endless = ImageFeed(ImageSampler(recipe, 4), 2, 10**12, faults).of_all()
    assert [len(stretch.times) for stretch in whole] == [BATCH, 9]
    for stretch in whole:
        same = next(endless)
        assert stretch.values.shape == (4, len(stretch.times), 8, 8, 1)
        np.testing.assert_array_equal(stretch.times, same.times[: len(stretch.times)])
    np.testing.assert_array_equal(
        np.concatenate([stretch.times for stretch in whole]), ImageSampler(recipe, 4).images(0, 0, 10**12, BATCH + 9)[0]
    )
    assert sum(stretch.asked for stretch in whole) in range(10, 19)  # .05 of 4 · 73


def test_images_that_are_no_bytes_are_no_records() -> None:
    manifest = fitted().recipe.manifest
    moments, images = np.array([0, 10**9]), np.arange(2 * 2 * 8 * 8 * 2).reshape(2, 2, 8, 8, 2).astype(np.float32) % 17
    two_bands = manifest.model_copy(update={"frame": Frame(8, 8, 2)})
    records = list(Pictures(two_bands).records(moments, images))
    assert [(one.stream, one.timestamp_ms) for one in records] == [(0, 0), (1, 0), (0, 1000), (1, 1000)]
    found = decode_image(records[1].value, Frame(8, 8, 2))
    np.testing.assert_array_equal(found, images[1, 0])  # raw: PNG has no pixels of two bands
    for other in ({"whole": False}, {"high": 300.0}, {"low": -1.0}):
        with pytest.raises(SettingsError, match="8 bits"):
            Pictures(manifest.model_copy(update=other))
    with pytest.raises(SettingsError, match="a millisecond apart"):
        Pictures(manifest.model_copy(update={"interval_ns": 1000}))


def test_a_folder_of_images_is_no_folder_of_readings(tmp_path: Path) -> None:
    write_image_recipe(fitted().recipe, tmp_path / "gen", {})
    again = read_image_recipe(tmp_path / "gen")
    assert again.graph == fitted().recipe.graph
    assert again.manifest.model_copy(update={"files": {}}) == fitted().recipe.manifest
    with pytest.raises(ModelError, match="generator of images"):
        read_recipe(tmp_path / "gen")


def test_fit_and_sample_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder, out, truth = (tmp_path / name for name in ("x.npz", "gen", "made.npz", "truth.csv"))
    found = images().table
    np.savez(source, x=found.values.reshape(-1, 8, 8).astype(np.uint8), timestamp=found.times // 10**6)
    quick = ["--steps", "300", "--model", "vae", "--hidden", "16"]
    assert cli.main(["synth", "fit", str(source), "--out", str(folder), *quick]) == 0
    assert "vae generator of images of 8×8" in capsys.readouterr().out
    assert (folder / "report.html").read_text().count('class="sheet"') == 2
    asked = ["synth", "sample", str(folder), "--length", "400", "--out", str(out), "--truth", str(truth)]
    assert cli.main([*asked, "--episodes", "20/1h"]) == 0
    read = read_images([str(out)])
    assert (read.frame, len(read.table)) == (Frame(8, 8, 1), 400)
    with truth.open() as file:
        told = list(csv.DictReader(file))
    assert 80 <= len(told) <= 140
    assert f"{len(told)} faults" in capsys.readouterr().out
    assert cli.main(["synth", "sample", str(folder), "--length", "4", "--out", str(tmp_path / "x.csv")]) == 2
    assert "one .npz" in capsys.readouterr().err
    streamed, told_again = tmp_path / "streamed.npz", tmp_path / "again.csv"
    asked = ["synth", "stream", str(folder), "--length", "400", "--to", str(streamed), "--truth", str(told_again)]
    assert cli.main([*asked, "--episodes", "20/1h"]) == 0
    assert told_again.read_text() == truth.read_text()
    np.testing.assert_array_equal(read_images([str(streamed)]).table.values, read.table.values)
    only = [*asked, "--episodes", "20/1h", "--kinds", "spot"]
    assert cli.main(only) == 0
    with told_again.open() as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"spot"}
    assert cli.main([*asked, "--kinds", "spike"]) == 2
    assert "--kinds spike: there are" in capsys.readouterr().err
    to_topic = ["synth", "stream", str(folder), "--to", "kafka://localhost:1/x"]
    assert cli.main([*to_topic, "--per-record", "2"]) == 2
    assert "a record holds one image" in capsys.readouterr().err
    assert cli.main([*to_topic, "--rate", "0"]) == 2
    assert "name --length" in capsys.readouterr().err
