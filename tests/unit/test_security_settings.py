"""Settings of TLS and SASL: what goes together, where secrets come from, and that none is ever shown."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.cli import main as detector
from schemas.errors import SettingsError
from schemas.security import SECRETS, Security
from schemas.settings import DetectorSettings
from schemas.variables import unknown
from trainer.cli import main as trainer
from trainer.settings import FitSettings

SECRET = "hunter2-Xy9"

PLAIN = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"}
OAUTH = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "oauth_token_url": "https://issuer.test/token",
    "oauth_client_id": "c",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ssl_ca": "f"}, "ssl_ca is set: it is used with security_protocol SSL or SASL_SSL only"),
        ({"ssl_check_hostname": False}, "means nothing without TLS"),
        ({"security_protocol": "SSL", "ssl_key": "f"}, "ssl_key is set: it needs ssl_cert"),
        ({"security_protocol": "SSL", "ssl_key_password": SECRET}, "ssl_key_password is set: it needs ssl_cert"),
        ({"security_protocol": "SSL", "sasl_username": "u"}, "sasl_username is set: it is used with"),
        ({"sasl_password": SECRET}, "sasl_password is set: it is used with"),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs sasl_username"),
        (PLAIN, "needs sasl_password, as a variable, in the settings file or by sasl_password_file"),
        (PLAIN | {"sasl_password": SECRET, "sasl_password_file": "f"}, "are both set: remove one"),
        (PLAIN | {"sasl_password": ""}, "sasl_password is empty"),
        (PLAIN | {"sasl_password": SECRET, "oauth_scope": "s"}, "oauth_scope is set: it is used with"),
        (PLAIN | {"sasl_mechanism": "GSSAPI", "sasl_password": SECRET}, "sasl_mechanism"),
        (PLAIN | {"security_protocol": "TLS", "sasl_password": SECRET}, "security_protocol"),
        (OAUTH, "needs oauth_client_secret"),
        (OAUTH | {"oauth_client_secret": SECRET, "sasl_username": "u"}, "sasl_username is set: OAUTHBEARER logs in"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "http://issuer.test/t"}, "in the clear"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": f"https://u:{SECRET}@h/t"}, "holds a password"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "ftp://h/t"}, "must be written as https://"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "https://"}, "must be written as https://"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "https://h:x/t"}, "must be written as https://"),
        (OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "http://localhost/t", "oauth_ca": "f"}, "oauth_ca"),
        (PLAIN | {"sasl_password": 12345}, r"setting 'sasl_password' \(RESIDUAL_SASL_PASSWORD or"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line_without_a_secret(given: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        DetectorSettings.load(given)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "12345" not in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"security_protocol": "SSL"},
        {"security_protocol": "SSL", "ssl_ca": "f", "ssl_cert": "c", "ssl_check_hostname": "false"},
        {"security_protocol": "SSL", "ssl_cert": "c", "ssl_key": "k", "ssl_key_password": SECRET},
        PLAIN | {"sasl_password": SECRET},
        PLAIN | {"sasl_password_file": "f", "security_protocol": "SASL_PLAINTEXT"},
        OAUTH | {"oauth_client_secret_file": "f", "oauth_ca": "f", "oauth_scope": "s"},
        OAUTH | {"oauth_client_secret": SECRET, "oauth_token_url": "http://127.0.0.1:8080/token"},
    ],
)  # fmt: skip
def test_what_makes_sense_is_taken_by_every_program_and_its_secret_is_not_shown(given: dict) -> None:
    for settings in (DetectorSettings.load(given), FitSettings.load(given)):
        for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
            assert SECRET not in text


def test_secrets_from_variables_the_file_and_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    by_file = DetectorSettings.load(PLAIN | {"sasl_password_file": str(tmp_path / "secret")})
    (tmp_path / "residual.toml").write_text(
        f'sasl_password = "{SECRET}"\n[trainer]\nsasl_password = "{SECRET}"\nmodel = "pca"\n'
    )
    in_file = DetectorSettings.load(PLAIN)
    of_trainer = FitSettings.load(PLAIN)
    (tmp_path / "residual.toml").unlink()
    monkeypatch.setenv("RESIDUAL_SASL_PASSWORD", SECRET)
    by_variable = DetectorSettings.load(PLAIN)
    for settings in (by_file, in_file, of_trainer, by_variable):
        assert settings.secret("sasl_password") == SECRET
    monkeypatch.delenv("RESIDUAL_SASL_PASSWORD")
    with pytest.raises(SettingsError, match="needs sasl_password"):
        FitSettings.load(PLAIN)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "the secret alone"),
        (b"\n", "the secret alone"),
        (b"one\ntwo\n", "the secret alone"),
        (b"x" * 70_000, "the secret alone"),
        (b"\xff\xfe", "no UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_secret(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        Security.model_validate(PLAIN | {"sasl_password_file": "f"}).secret("sasl_password")
    assert "two" not in str(raised.value)


@given(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_a_secret_comes_back_as_it_was_written(secret: str) -> None:
    path = Path("any-secret")
    for end in ("", "\n", "\r\n"):
        path.write_bytes((secret + end).encode())
        settings = Security.model_validate(PLAIN | {"sasl_password_file": str(path)})
        assert settings.secret("sasl_password") == secret


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--sasl-password", SECRET],
        ["run", f"--sasl-password={SECRET}"],
        ["run", "--sasl-pasword", SECRET],
        ["run", f"--sasl-pass={SECRET}"],
        ["run", "--ssl-key-password", SECRET],
        ["tell", "accept", "s", "--oauth-client-secret", SECRET],
        ["score", "x.csv", "--out", "o", "--sasl-password", SECRET],
    ],
)  # fmt: skip
def test_a_secret_as_a_flag_is_refused_and_not_shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert detector(arguments) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "can be read by every user of this machine" in said.err
    assert SECRET not in said.err + said.out


@pytest.mark.parametrize("arguments", [["--sasl-password", SECRET], ["--set", f"sasl_password={SECRET}"]])
def test_the_trainer_refuses_it_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert trainer(["fit", "kafka://h:1/t", "--out", "m", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "RESIDUAL_TRAINER_SASL_PASSWORD" in said.err
    assert SECRET not in said.err + said.out


def test_every_secret_has_a_file_and_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name for name in DetectorSettings.model_fields if DetectorSettings.is_secret(name)} == set(SECRETS)
    with contextlib.suppress(SystemExit):
        detector(["run", "--help"])
    flags = [word.rstrip(",") for word in capsys.readouterr().out.split() if word.startswith("--")]
    for secret, file in SECRETS.items():
        assert "--" + secret.replace("_", "-") not in flags
        assert "--" + file.replace("_", "-") in flags


def test_help_shows_no_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(f"RESIDUAL_{name.upper()}", SECRET)
        monkeypatch.setenv(f"RESIDUAL_TRAINER_{name.upper()}", SECRET)
    for program, command in ((detector, "run"), (detector, "tell"), (trainer, "fit")):
        with contextlib.suppress(SystemExit):
            program([command, "--help"])
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RESIDUAL_SASL_PASWORD", "RESIDUAL_SASL_PASSWORD"),
        ("residual_group", "RESIDUAL_GROUP_ID"),
        ("RESIDUAL_START", None),  # its name is RESIDUAL_FROM
        ("RESIDUAL_NOTHING_LIKE_IT", None),
    ],
)  # fmt: skip
def test_a_variable_that_nobody_reads_is_refused_with_the_nearest(
    name: str, nearest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(SettingsError, match=f"unknown variable {name.upper()}: ") as raised:
        DetectorSettings.load({})
    assert SECRET not in str(raised.value)
    if nearest is not None:
        assert f"did you mean {nearest}?" in str(raised.value)


def test_each_program_knows_the_variables_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUAL_TRAINER_EPOCHS", "3")
    monkeypatch.setenv("RESIDUAL_TRAINER_NO_SUCH_THING", "3")
    monkeypatch.setenv("RESIDUAL_GROUP_ID", "g")
    monkeypatch.setenv("RESIDUAL_DATA", "d")
    DetectorSettings.load({})
    with pytest.raises(SettingsError, match="RESIDUAL_TRAINER_NO_SUCH_THING"):
        FitSettings.load({})
    monkeypatch.delenv("RESIDUAL_TRAINER_NO_SUCH_THING")
    assert FitSettings.load({}).epochs == 3
    monkeypatch.setenv("RESIDUAL_TRAIN_EPOCHS", "3")
    for settings in (DetectorSettings, FitSettings):
        with pytest.raises(SettingsError, match="RESIDUAL_TRAIN_EPOCHS"):
            settings.load({})


def test_what_kubernetes_says_of_a_service_of_that_name_is_nobodys_slip() -> None:
    environment = {
        "RESIDUAL_SERVICE_HOST": "10.0.0.1",
        "RESIDUAL_SERVICE_PORT": "9100",
        "RESIDUAL_SERVICE_PORT_HTTP": "9100",
        "RESIDUAL_DETECTOR_PORT": "tcp://10.0.0.1:9100",
        "RESIDUAL_DETECTOR_PORT_9100_TCP": "tcp://10.0.0.1:9100",
        "RESIDUAL_DETECTOR_PORT_9100_TCP_PROTO": "tcp",
        "RESIDUAL_DETECTOR_PORT_9100_TCP_ADDR": "10.0.0.1",
    }
    assert unknown(environment, DetectorSettings.variables()) is None
    assert not [name for name in DetectorSettings.variables() + FitSettings.variables() if name.endswith("_PORT")]


def test_the_environment_of_the_tests_has_no_slip_either() -> None:
    assert unknown(os.environ, DetectorSettings.variables(), FitSettings.variables()) is None
