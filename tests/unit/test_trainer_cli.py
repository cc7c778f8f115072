"""``trainer fit`` and ``trainer report`` as their users meet them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from trainer_data import normal, table, write_csv

from detector.adapters.folder import read_model
from trainer.cli import main
from trainer.settings import FitSettings


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file to learn from; the test runs in its folder."""
    monkeypatch.chdir(tmp_path)
    return str(write_csv(tmp_path / "data.csv", table(normal(600), normal(600, seed=1), names=("a", "b"))))


@pytest.fixture(autouse=True)
def _one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing between models takes time and is tested elsewhere."""
    monkeypatch.setenv("RESIDUAL_TRAINER_MODEL", "pca")


def test_fit_writes_a_model_folder(csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", csv, "--out", "m", "--false-alarms", "1/100s", "--seed", "3"]) == 0
    model = read_model(tmp_path / "m")
    assert model.streams.names == ("a", "b")
    assert model.manifest.training.seed == 3
    assert model.manifest.calibration.false_alarms == "1/100s"
    assert sorted(f.name for f in (tmp_path / "m").iterdir()) == [
        "manifest.json", "model.onnx", "report.html", "report.json", "streams.npz", "weights.safetensors",
    ]  # fmt: skip
    assert os.listdir(tmp_path) in (["m", "data.csv"], ["data.csv", "m"])
    out, err = capsys.readouterr()
    assert out == "m: pca model of 4 channels\n"
    assert all(line.startswith("trainer: ") for line in err.splitlines())
    assert not any("warning" in line for line in err.splitlines())


def test_the_page_stands_alone_and_can_be_made_again(csv: str, tmp_path: Path) -> None:
    assert main(["fit", csv, "--out", "m", "--model", "dense", "--epochs", "3"]) == 0
    page = tmp_path / "m" / "report.html"
    text = page.read_text()
    assert text.count("<svg") == 7
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert "<script" not in text
    assert "dense model" in text
    assert str(tmp_path) not in text
    page.unlink()
    assert main(["report", "m"]) == 0
    assert page.read_text() == text


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    readings = table(normal(400), names=("_<b>$x^$",))
    channels = ("<i>", "$a_b$", "c&d", "_e")
    file = write_csv(
        tmp_path / "d.csv", type(readings)(*(getattr(readings, n) for n in readings.__slots__[:4]), channels)
    )
    assert main(["fit", str(file), "--out", str(tmp_path / "m")]) == 0
    text = (tmp_path / "m" / "report.html").read_text()
    assert "&lt;i&gt;" in text
    assert "<i>" not in text
    assert "<b>$" not in text


def test_a_folder_that_holds_something_else_is_refused_before_training(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("years of work")
    assert main(["fit", "no-such-file.csv", "--out", "m"]) == 2  # the folder is looked at first
    assert "no model folder" in capsys.readouterr().err
    assert (tmp_path / "m" / "thesis.tex").read_text() == "years of work"


def test_a_model_folder_is_replaced_whole(csv: str, tmp_path: Path) -> None:
    assert main(["fit", csv, "--out", "m", "--set", "latent=2"]) == 0
    (tmp_path / "m" / "old").write_text("x")
    before = read_model(tmp_path / "m").manifest.graph_sha256
    assert main(["fit", csv, "--out", "m", "--set", "latent=3"]) == 0
    assert read_model(tmp_path / "m").manifest.graph_sha256 != before
    assert not (tmp_path / "m" / "old").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "colour=red"], "unknown setting 'colour'"),
        (["--set", "window"], "KEY=VALUE"),
        (["--set", "window=0"], "'window'"),
        (["--set", "latent=1000"], "'latent'"),
        (["--model", "transformer"], "one of pca, pca-aer, dense"),
        (["--model", "conv", "--set", "window=10"], "multiple of 4"),
        (["--seed", "1", "--set", "seed=2"], "set twice"),
        (["--seed", "x"], "'seed'"),
        (["--set", "window=590"], "bring at least 690 readings"),
        (["--channels", "none.toml"], "none.toml"),
        (["--config", "none.toml"], "none.toml"),
        (["--false-alarms", "0/7d"], "'false_alarms'"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_2(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["fit", csv, "--out", "m", *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not re.match(r"trainer: \d+ readings of", line)]
    assert len(lines) == 1
    assert lines[0].startswith("trainer: ")
    assert words in lines[0]
    assert not (tmp_path / "m").exists()


def test_flags_over_environment_over_file_over_defaults(
    csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("residual.toml").write_text("group_id = 'of the detector'\n[trainer]\nseed = 1\nepochs = 2\nwindow = 3\n")
    monkeypatch.setenv("RESIDUAL_TRAINER_SEED", "4")
    monkeypatch.setenv("RESIDUAL_TRAINER_EPOCHS", "5")
    settings = FitSettings.load({"seed": "6"})
    assert (settings.seed, settings.epochs, settings.window, settings.latent) == (6, 5, 3, None)
    Path("residual.toml").write_text("[trainer]\nsede = 1\n")
    assert main(["fit", csv, "--out", "m"]) == 2
    assert "'sede'" in capsys.readouterr().err
    Path("residual.toml").write_text("[trainer\n")
    assert main(["fit", csv, "--out", "m"]) == 2
    assert "residual.toml" in capsys.readouterr().err


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in FitSettings.model_fields)
    assert "RESIDUAL_TRAINER_" in text
    assert "kafka://" in text
    assert "14d" in text


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    """Where the script is not on the path."""
    command = [sys.executable, "-m", "trainer", "report", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_environment())
    assert ended.returncode == 2
    assert ended.stderr.startswith("trainer: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_catalogue_is_copied_into_the_manifest(csv: str, tmp_path: Path) -> None:
    Path("channels.toml").write_text(
        '[[channel]]\nname = "c2"\nunit = "bar"\nmax = 200.5\ndirection = "rise"\nweight = 2\nstuck_after = 0\n'
        '[[channel]]\nname = "c0"\n'
    )
    assert main(["fit", csv, "--out", "m", "--channels", "channels.toml"]) == 0
    first, second = read_model(tmp_path / "m").manifest.channels
    assert (first.name, first.unit, first.max) == ("c2", "bar", 200.5)
    assert first.min is not None
    assert (first.lowest, first.highest, first.direction, first.weight) == (None, 200.5, "rise", 2)
    assert (second.name, second.unit, second.highest, second.direction, second.weight) == ("c0", None, None, "both", 1)
    assert (first.stuck_after, second.stuck_after, second.missing_after) == (0, 12, 5)  # told, learned


def test_a_report_needs_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["gone", "garbled"])
def test_a_report_without_its_data_says_so(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    assert main(["fit", csv, "--out", "m"]) == 0
    file = tmp_path / "m" / "report.json"
    file.unlink() if damage == "gone" else file.write_text("{")
    capsys.readouterr()
    assert main(["report", "m"]) == 2
    assert "report.json" in capsys.readouterr().err
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_ctrl_c_leaves_nothing_behind(csv: str, tmp_path: Path) -> None:
    arguments = [
        "fit", csv, "--out", "m", "--model", "conv", "--epochs", "100000", "--set", "patience=100000",
    ]  # fmt: skip
    code = f"import sys; from trainer.cli import main; sys.exit(main({arguments!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=_environment())
    assert process.stderr is not None
    while not process.stderr.readline().startswith("epoch 1 of"):
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "trainer: interrupted; nothing half written"
    assert [f.name for f in tmp_path.iterdir()] == ["data.csv"]


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_a_run_in_another_folder_gives_the_same_files(csv: str, tmp_path: Path) -> None:
    """Byte for byte, so that a model can be made again and compared."""
    assert main(["fit", csv, "--out", "m"]) == 0
    (tmp_path / "elsewhere").mkdir()
    assert main(["fit", csv, "--out", "elsewhere/m"]) == 0
    for name in ("model.onnx", "manifest.json", "report.json", "report.html"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "elsewhere" / "m" / name).read_bytes(), name
    with np.load(tmp_path / "m" / "streams.npz") as one, np.load(tmp_path / "elsewhere" / "m" / "streams.npz") as two:
        assert all(np.array_equal(one[key], two[key]) for key in one.files)
    assert json.loads((tmp_path / "m" / "report.json").read_text())["warnings"]


def test_nothing_of_the_connection_is_in_the_model(
    csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "somebody-Qj5",
    }.items():
        monkeypatch.setenv(f"RESIDUAL_TRAINER_{name.upper()}", value)
    monkeypatch.setenv("RESIDUAL_TRAINER_SASL_PASSWORD", "hunter2-Xy9")
    assert main(["fit", csv, "--out", "m"]) == 0
    said = "".join(capsys.readouterr()).encode()
    for content in (said, *(path.read_bytes() for path in (tmp_path / "m").iterdir())):
        assert b"somebody-Qj5" not in content
        assert b"hunter2-Xy9" not in content
        assert b"security_protocol" not in content
