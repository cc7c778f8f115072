"""Settings: which source wins, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.cli import main
from schemas.errors import SettingsError
from schemas.settings import DetectorSettings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "residual.toml").write_text('group_id = "file"\nbatch_size = 7\nfrom = "latest"\n')
    monkeypatch.setenv("RESIDUAL_GROUP_ID", "environment")
    monkeypatch.setenv("RESIDUAL_BATCH_SIZE", "8")
    settings = DetectorSettings.load({"group_id": "flag"})
    assert (settings.group_id, settings.batch_size, settings.start, settings.batch_latency) == (
        "flag",
        8,
        "latest",
        200,
    )
    assert settings.state_topic_name == "residual-state-flag"
    with (tmp_path / "residual.toml").open("a") as file:
        file.write('[trainer]\nmodel = "conv"\n')  # not ours
    monkeypatch.setenv("RESIDUAL_FROM", "earliest")
    assert DetectorSettings.load({}).start == "earliest"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"nonsense": 1}, "unknown setting 'nonsense'"),
        ({"batch_size": "0"}, "batch_size"),
        ({"batch_size": "many"}, "batch_size"),
        ({"start": "yesterday"}, "earliest, latest or a time"),
        ({"readings_topic": "a b"}, "only letters"),
        ({"startup_timeout": "soon"}, "not a duration"),
        ({"startup_timeout": "0"}, "startup_timeout"),
        ({"max_ahead": "99999999999999d"}, "max_ahead"),
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
        ({"start": "noon"}, "RESIDUAL_FROM"),
        ({"incident_k": 5, "incident_n": 3}, "can never be reached"),
        ({"dead_letters_topic": "readings"}, "each needs a topic of its own"),
        ({"state_topic": "alerts"}, "each needs a topic of its own"),
    ],
)
def test_what_does_not_fit_is_named(flags: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        DetectorSettings.load(flags)


def test_a_file_with_an_unknown_key_or_no_toml(tmp_path: Path) -> None:
    (tmp_path / "residual.toml").write_text("nonsense = 1")
    with pytest.raises(SettingsError, match="unknown setting 'nonsense'"):
        DetectorSettings.load({})
    (tmp_path / "residual.toml").write_text("= what")
    with pytest.raises(SettingsError, match="cannot be read as TOML"):
        DetectorSettings.load({})
    with pytest.raises(SettingsError, match="no settings file other"):
        DetectorSettings.load({}, "other.toml")


@pytest.mark.parametrize("text", ["60", "60s", "1min", "60000ms"])
def test_durations(text: str) -> None:
    assert DetectorSettings.load({"startup_timeout": text}).startup_timeout == 60


def test_every_setting_is_a_flag_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for name, field in DetectorSettings.model_fields.items():
        assert "--" + (field.alias or name).replace("_", "-") in text


def test_errors_are_one_line_and_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "nowhere"]) == 2
    assert capsys.readouterr().err == (
        "detector: no model folder at nowhere: make one with `trainer fit … --out nowhere`\n"
    )
    assert main(["run", "--batch-size", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
