"""What every image model has to keep, and what files, the engine and a log make of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from image_data import FRAME, SPECK, png, scenes
from thorough import few, thorough
from trainer_data import normal, table, write_csv

from detector.adapters.folder import read_model, write_model
from detector.adapters.images import Images, read_images
from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.cli import main as detector
from detector.engine.engine import Engine
from detector.engine.pictures import image_peak
from detector.engine.scorer import Scorer
from detector.observer import Observer
from detector.run import decoder_of
from detector.service import Service
from schemas.frame import Frame
from schemas.manifest import Batching
from schemas.settings import DetectorSettings
from trainer.cli import main as trainer
from trainer.images.data import prepare_images
from trainer.images.fit import IMAGE_MODELS, fit_images
from trainer.images.pipeline import learn_images
from trainer.page import render
from trainer.pipeline import Learned
from trainer.report import Report
from trainer.settings import FitSettings

PIL = pytest.importorskip("PIL.Image")

NAMES = list(IMAGE_MODELS)
FAULTY = range(30, 36)


def settings_of(name: str, **flags: object) -> FitSettings:
    return FitSettings.model_validate({"model": name, "epochs": 12, "false_alarms": "1/1h", **flags})


def images_of(count: int = 300, frame: Frame = FRAME) -> Images:
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, x=scenes(count, frame))
        file.flush()
        return read_images([file.name])


@cache
def learned(name: str, frame: Frame = FRAME) -> Learned:
    return learn_images(images_of(frame=frame), settings_of(name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(learned("conv").model, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", few(["conv-vae"], NAMES))
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    data = prepare_images(images_of(60), settings_of(name))
    one, again = (fit_images(data, settings_of(name, epochs=1))[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[tensor], again[tensor]) for tensor in one)


@pytest.mark.parametrize("name", few(["pca", "conv"], NAMES))
def test_a_speck_scores_higher_than_anything_normal_and_its_place_is_told(name: str) -> None:
    """The gate has opened: PyTorch and ONNX Runtime agree, and a score does not depend on its batch."""
    model = learned(name).model
    assert model.manifest.batching == Batching()
    assert model.manifest.metrics["parity"] < 1e-4
    scorer = Scorer(model.graph, model.manifest.batching)
    values = scenes(60, seed=5, faulty=FAULTY).reshape(60, 1, -1).astype(np.float32)
    loc, scale = (np.tile(row, (60, 1)) for row in (model.streams.loc[0], model.streams.scale[0]))
    score, _, expected = scorer.score(values, loc, scale)
    assert score[FAULTY].min() > np.delete(score, FAULTY).max()
    np.testing.assert_allclose(expected[:, 0], values.mean(axis=(1, 2)), rtol=0.2)
    error = scorer.map(values, loc, scale)
    rows, columns = np.divmod(error[FAULTY].reshape(len(FAULTY), -1).argmax(axis=1), FRAME.width)
    assert np.abs(rows - SPECK[0]).max() <= 2
    assert np.abs(columns - SPECK[1]).max() <= 2


#: Bytes of a stream without any reading: names of arrays, an incident of each kind, recent scores.
LEAST_STATE = 4000


@pytest.mark.parametrize("name", few(["conv"], NAMES))
def test_an_engine_keeps_no_image_and_its_answer_does_not_depend_on_the_split(name: str) -> None:
    model = learned(name).model
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, x=scenes(60, seed=5, faulty=FAULTY))
        file.flush()
        table = read_images([file.name]).table
    answers = []
    for size in (60, 7, 1):
        engine = Engine(model)
        scored = [engine.process(batch) for batch in table.batches(size)]
        alerts = [p.alert.to_bytes() for s in scored for p in s.published]
        answers.append((np.concatenate([s.score for s in scored]).tobytes(), alerts))
        assert engine.state.raw.shape[1:] == (0, FRAME.values)
        dumped = max(len(engine.dump(0, bucket)) for bucket in range(256))
        assert dumped < LEAST_STATE + FRAME.values, "as large as an image of bytes"
    assert answers[0] == answers[1] == answers[2]
    opened = json.loads(answers[0][1][0])["data"]
    assert opened["image"]["error"] > 10
    assert (abs(opened["image"]["y"] - SPECK[0]), abs(opened["image"]["x"] - SPECK[1])) <= (2, 2)
    assert len(opened["image"]["map"]) <= 16_000
    picture = PIL.open(io.BytesIO(base64.b64decode(opened["image"]["map"])))
    assert (picture.width, picture.height) == (FRAME.width, FRAME.height)


def test_colour_and_a_large_image_scored_by_itself() -> None:
    small = learned("conv", Frame(12, 12, 3)).model.manifest
    assert [channel.name for channel in small.channels] == ["red", "green", "blue"]
    large = learn_images(images_of(40, Frame(200, 170, 1)), settings_of("conv", epochs=2)).model
    assert large.manifest.batching == Batching(fixed=1)


def test_a_folder_of_streams_scored_as_a_user_would(folder: Path, tmp_path: Path) -> None:
    for stream, faulty in (("north", FAULTY), ("south", range(0))):
        (tmp_path / "photos" / stream).mkdir(parents=True)
        for number, image in enumerate(scenes(50, seed=9, faulty=faulty)):
            (tmp_path / "photos" / stream / f"{number:04}.png").write_bytes(png(image))
    out, alerts = tmp_path / "s.csv", tmp_path / "a.jsonl"
    command = ["score", "--model", str(folder), str(tmp_path / "photos"), "--out", str(out), "--alerts", str(alerts)]
    assert detector([*command, "--unseen-readings", "0"]) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 100
    alerted = {row["stream"] for row in rows if row["alert"] == "1"}
    assert alerted == {"north"}
    assert {row["channels"] for row in rows} == {"grey:1.000"}
    events = [json.loads(line) for line in alerts.read_text(encoding="utf-8").splitlines()]
    assert {event["subject"] for event in events} == {"north"}


def test_a_log_says_what_files_say_and_a_broken_picture_is_set_aside() -> None:
    model = learned("conv").model
    broker = MemoryBroker(1)
    images = scenes(60, seed=5, faulty=FAULTY)
    for number, image in enumerate(images):
        value = png(image) if number % 2 else image.tobytes()
        broker.produce(value, b"default", timestamp_ms=number * 1000, partition=0)
        if number == 10:
            broker.produce(value[: len(value) // 2], b"default", timestamp_ms=number * 1000, partition=0)
    settings = DetectorSettings.load({"stop_at_end": True, "commit_interval": 0, "batch_latency": 0})
    decoder = decoder_of(settings, model.manifest)
    Service(MemoryLog(broker, "g"), Engine(model), decoder, settings, Observer()).run()
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, x=images)
        file.flush()
        table = read_images([file.name]).table
    offline = [p.alert.to_bytes() for b in table.batches(100) for p in Engine(model).process(b).published]
    assert [value for _, value in broker.alerts] == offline
    assert len(offline) == 2
    assert len(broker.dead_letters) == 1


@thorough
def test_a_warm_start_begins_where_the_ancestor_ended(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "x.npz"
    np.savez(source, x=scenes(120, seed=2))
    fit = ["fit", str(source), "--false-alarms", "1/1h", "--epochs", "1"]
    assert trainer([*fit, "--model", "conv", "--epochs", "20", "--out", str(tmp_path / "first")]) == 0
    assert trainer([*fit, "--init-from", str(tmp_path / "first"), "--out", str(tmp_path / "warm")]) == 0
    assert trainer([*fit, "--model", "conv", "--out", str(tmp_path / "cold")]) == 0
    loss = {n: read_model(tmp_path / n).manifest.metrics["validation_loss"] for n in ("first", "warm", "cold")}
    assert loss["warm"] < 1.5 * loss["first"] < loss["cold"]


@pytest.mark.parametrize("name", few(["pca", "conv"], NAMES))
def test_the_report_shows_the_worst_images_and_what_a_code_decodes_to(name: str) -> None:
    report, model = learned(name).report, learned(name).model
    assert len(report.pictures) == 8
    assert report.pictures[0].score == max(picture.score for picture in report.pictures)
    for text in (report.pictures[0].observed, report.pictures[0].expected, report.pictures[0].error):
        picture = PIL.open(io.BytesIO(base64.b64decode(text)))
        assert (picture.width, picture.height) == (FRAME.width, FRAME.height)
    assert report.latent is not None
    assert (report.grid is not None) == (name == "conv-vae")
    page = render(model, report)
    assert page.count("<figure>") == 8
    assert 'src="http' not in page
    assert render(model, Report.model_validate_json(report.model_dump_json())) == page


@thorough
def test_where_no_model_is_named_the_manifest_says_what_was_tried() -> None:
    model = learn_images(images_of(80), settings_of("auto", epochs=1)).model
    assert {candidate.model for candidate in model.manifest.candidates} == set(NAMES)
    assert model.manifest.model in NAMES


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "lstm"], "--model lstm is for sensors: images take auto, pca, conv, conv-vae"),
        (["--set", "loss=gaussian"], "setting 'loss': gaussian is for sensors"),
        (["--model", "conv", "--set", "depth=8"], "setting 'depth': 8 layers make patches of 1024 pixels"),
        (["--set", "window=3"], "setting 'window' is for sensors only: leave it out"),
        (["--set", "region=none.png"], "none.png cannot be read"),
        (["--set", "measures=both"], "one of error, ssim, error+ssim"),
    ],
)
def test_a_wrong_setting_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=scenes(60))
    assert trainer(["fit", str(tmp_path / "x.npz"), "--out", str(tmp_path / "m"), "--epochs", "1", *arguments]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", few(["pca"], NAMES))
def test_a_scene_that_hardly_changes_is_learned(name: str) -> None:
    """Nearly equal numbers must not be subtracted: PyTorch and ONNX Runtime would disagree, and nothing be written."""
    light = 1 + 0.1 * np.sin(np.arange(120))
    pictures = scenes(1).astype(np.float32) * light[:, None, None, None].astype(np.float32)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, x=pictures if name == "pca" else np.repeat(scenes(1), 120, axis=0))
        file.flush()
        model = learn_images(read_images([file.name]), settings_of(name, epochs=3)).model
    assert model.manifest.metrics["parity"] < 1e-4
    values = pictures[:8].reshape(8, 1, -1)
    loc, scale = (np.tile(row, (8, 1)) for row in (model.streams.loc[0], model.streams.scale[0]))
    changed = values.copy()
    changed[:, :, 100:110] += 100
    scorer = Scorer(model.graph, model.manifest.batching)
    assert np.isfinite(scorer.score(changed, loc, scale)[0]).all()


@thorough
def test_bce_takes_whatever_light_there_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=scenes(60))
    fit = ["fit", str(tmp_path / "x.npz"), "--out", str(tmp_path / "m"), "--model", "conv", "--epochs", "1"]
    assert trainer([*fit, "--set", "loss=bce", "--set", "brightness=0.3"]) == 0


def test_the_region_is_learned_and_shown(tmp_path: Path) -> None:
    mask = np.zeros(FRAME[:2], np.uint8)
    mask[:, :10] = 255
    PIL.fromarray(mask).save(tmp_path / "mask.png")
    settings = settings_of("pca", region=str(tmp_path / "mask.png"))
    model = learn_images(images_of(100), settings).model
    values = scenes(20, seed=5, faulty=range(20)).reshape(20, 1, -1).astype(np.float32)  # the speck is outside of it
    loc, scale = (np.tile(row, (20, 1)) for row in (model.streams.loc[0], model.streams.scale[0]))
    scorer = Scorer(model.graph, model.manifest.batching)
    error = scorer.map(values, loc, scale)
    assert np.isnan(error[:, :, 10:]).all()
    assert not np.isnan(error[:, :, :10]).any()
    assert image_peak(error[0]).x < 10


def test_the_wrong_kind_of_data_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "other.npz", x=scenes(5, Frame(9, 9, 1)))
    (tmp_path / "x.csv").write_text("timestamp,grey\n0,1\n")
    score = ["score", "--model", str(folder), "--out", str(tmp_path / "s.csv")]
    assert detector([*score, str(tmp_path / "other.npz")]) == 2
    assert "is 9×9, what the model was fitted on is 16×20" in capsys.readouterr().err.splitlines()[-1]
    assert detector([*score, str(tmp_path / "x.csv")]) == 2
    assert "the model was fitted on images of 16×20" in capsys.readouterr().err.splitlines()[-1]
    for name in ("one.npz", "more.npz"):
        np.savez(tmp_path / name, x=scenes(5))
    assert detector([*score, str(tmp_path / "one.npz"), str(tmp_path / "more.npz")]) == 2
    assert "name no times and are both of the stream 'default'" in capsys.readouterr().err.splitlines()[-1]
    sensors = write_csv(tmp_path / "sensors.csv", table(normal(400)))
    assert trainer(["fit", str(sensors), "--out", str(tmp_path / "s"), "--init-from", str(folder)]) == 2
    assert "it is a model of images: name one of sensors" in capsys.readouterr().err.splitlines()[-1]
    assert detector([*score, str(tmp_path / "x.csv"), str(tmp_path / "other.npz")]) == 2
    assert "name only one kind" in capsys.readouterr().err.splitlines()[-1]
