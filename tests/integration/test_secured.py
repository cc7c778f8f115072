"""TLS, SASL and ACLs on a real Kafka: every refusal is one clear line, in time, and shows no secret."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from broker import Missing
from conftest import absent
from kafka.admin import ACLOperation, ResourceType
from kafka_cluster import create_topic, produce, read_all, unique
from pipeline import MODEL_CHANNELS, rows
from secured import CLIENT_SECRET, PASSWORDS
from secured_cases import (
    CASES,
    DOCUMENT,
    DONE,
    LIMITED,
    READINGS,
    SECRETS,
    WRONG,
    Case,
    Place,
    alerts,
    last_line,
    login,
    minimal,
    oauth,
    places,
)
from servers import Detector

from detector.adapters.kafka_security import client_settings
from schemas.errors import AccessError, TopicError
from schemas.security import Security
from trainer.data import load
from trainer.settings import FitSettings

pytestmark = pytest.mark.kafka

#: Seconds that a refusal may take; half a second where nothing else runs.
SOON_S = 15.0


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    try:
        yield from places()
    except Missing as missing:
        absent(str(missing))


def documented() -> dict[str, tuple[str, int]]:
    """Line and exit code by case, as docs/security-cases.md has them."""
    cells = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    return {row[0]: (row[1], int(row[2])) for row in cells if len(row) == 3 and row[2].isdigit()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.group)
def test_what_the_operator_sees(case: Case, place: Place) -> None:
    ended = case.run(place)
    for secret in SECRETS:
        assert secret not in ended.said
    assert ended.code == case.code, ended.said
    assert ended.seconds < SOON_S
    told = [line for line in ended.said.splitlines() if not re.match(r"\d{4}-\d\d-\d\d .* WARNING ", line)]
    if case.code:
        assert len(told) == 1, ended.said
        assert told[0].startswith("detector: ")
        assert case.words in told[0]
    else:
        assert told == []
        assert alerts(place, case.group) == 2
    line, code = documented()[case.name]
    # what the broker said itself stands in brackets, and may be lost with the connection
    assert code == case.code
    assert re.sub(r" \(.*?\)", "", f"detector: {line}") == re.sub(r" \(.*?\)", "", last_line(place, ended)) or (
        line == last_line(place, ended) == DONE
    ), "run python tests/secured_cases.py"


def test_the_document_has_every_case() -> None:
    assert list(documented()) == [case.name for case in CASES]


@pytest.mark.parametrize("name", ["TLS and PLAIN", "TLS and OAUTHBEARER", "Wrong password, SCRAM-SHA-256"])
def test_the_most_talkative_log_shows_no_secret(name: str, place: Place) -> None:
    case = next(case for case in CASES if case.name == name)
    ended = replace(case, name=unique("talkative")).run(place, LOG_LEVEL="debug")
    assert ended.code == case.code
    for secret in SECRETS:
        assert secret not in ended.said
    assert "eyJ" not in ended.said  # how every JSON Web Token begins


@pytest.mark.parametrize(
    ("settings", "listener", "times"),
    [
        (login("PLAIN", protocol="SASL_PLAINTEXT"), "CLEARLOGIN", 1),
        (login("SCRAM-SHA-256", protocol="SASL_PLAINTEXT"), "CLEARLOGIN", 1),
        (login("PLAIN"), "LOGIN", 0),
    ],
)
def test_what_travels_in_the_clear_is_warned_of_once(settings, listener: str, times: int, place: Place) -> None:
    ended = Case(unique("clear"), settings, 0, "", listener=listener).run(place)
    assert ended.code == 0, ended.said
    assert ended.said.count("in the clear") == times


def test_a_word_with_just_the_rights_it_needs(place: Place) -> None:
    topic = create_topic(place.broker.broker.bootstrap, unique("commands"), 1)
    place.broker.allow("teller", (ResourceType.TOPIC, topic, ACLOperation.WRITE))
    case = Case("tell", login("SCRAM-SHA-512", "teller"), 0, "", program=("tell", "accept", "s"))
    ended = case.run(place, COMMANDS_TOPIC=topic)
    assert ended.code == 0, ended.said
    assert len(read_all(place.broker.broker.bootstrap, topic)) == 1


def source(place: Place) -> list[str]:
    return [f"kafka://{place.broker.address('LOGIN')}/{READINGS}"]


def learner(place: Place, password: str) -> FitSettings:
    return FitSettings.model_validate({
        "security_protocol": "SASL_SSL", "ssl_ca": str(place.broker.authority.file), "startup_timeout": "20s",
        "sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "learner", "sasl_password": password,
    })  # fmt: skip


def test_learning_from_a_topic_with_just_the_rights_it_needs(place: Place) -> None:
    with pytest.raises(TopicError, match="this user has no right to it"):
        load(source(place), learner(place, PASSWORDS["learner"]), None)
    place.broker.allow("learner", (ResourceType.TOPIC, READINGS, ACLOperation.READ))
    assert len(load(source(place), learner(place, PASSWORDS["learner"]), None)) == len(rows("a"))
    began = time.monotonic()
    with pytest.raises(AccessError, match="refuses the login of learner"):
        load(source(place), learner(place, WRONG), None)
    assert time.monotonic() - began < SOON_S


def test_the_trainer_says_it_in_one_line(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUAL_TRAINER_SASL_PASSWORD", WRONG)
    settings = {
        "security_protocol": "SASL_SSL", "ssl_ca": str(place.broker.authority.file), "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": "learner",
    }  # fmt: skip
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "trainer", "fit", *source(place), "--out", str(tmp_path / "m"), *pairs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "refuses the login of learner" in done.stderr
    assert WRONG not in done.stderr + done.stdout


@contextmanager
def watching(place: Place, group: str, topic: str, log: Path, *flags: str) -> Iterator[Detector]:
    detector = Detector(place.broker.address("LOGIN"), topic, place.folder / "model", group, log, *flags)
    try:
        yield detector
    finally:
        detector.kill()


def test_tokens_are_renewed_while_it_runs(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens good for 3 s, over three lives of them: the broker ends a connection whose token has expired."""
    topic, group = create_topic(place.broker.broker.bootstrap, unique("tokens"), 1), unique("tokens")
    for name, value in oauth()(place).items():
        monkeypatch.setenv(f"RESIDUAL_{name}", value)
    place.broker.issuer.behaviour, issued = "short", place.broker.issuer.issued
    try:
        with watching(place, group, topic, tmp_path / "log", "--unseen-readings", "0") as detector:
            for number in range(3):
                records = [(0, s.encode(), orjson.dumps(r)) for s, r in readings(f"s{number}")]
                produce(place.broker.broker.bootstrap, topic, records)
                until(lambda number=number: alerts(place, group) == 2 * (number + 1))
                time.sleep(3.5)
            assert detector.process.poll() is None
            said = (tmp_path / "log").read_text()
            detector.terminate()
            assert detector.wait(20) == 0
    finally:
        place.broker.issuer.behaviour = "well"
    assert place.broker.issuer.issued - issued >= 3
    assert "WARNING" not in said
    assert CLIENT_SECRET not in said


def readings(stream: str) -> Iterator[tuple[str, dict]]:
    for name, t, values in rows(stream):
        yield name, {"stream": name, "timestamp": t * 1000, "values": dict(zip(MODEL_CHANNELS, values, strict=True))}


def until(what, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.2)


def test_no_secret_is_in_the_list_of_processes(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group = create_topic(place.broker.broker.bootstrap, unique("listed"), 1), unique("listed")
    for name, value in login("PLAIN")(place).items():
        monkeypatch.setenv(f"RESIDUAL_{name}", value)
    with watching(place, group, topic, tmp_path / "log") as detector:
        until(lambda: "watching" in (tmp_path / "log").read_text())
        listed = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(detector.process.pid)], capture_output=True)
        assert b"detector.cli" in listed.stdout
        assert PASSWORDS["alice"].encode() not in listed.stdout


def test_secrets_are_not_in_what_can_be_printed_of_a_connection(place: Place) -> None:
    settings = Security.model_validate({name.lower(): value for name, value in oauth()(place).items()})
    assert CLIENT_SECRET not in repr(client_settings(settings))
    assert LIMITED


def test_the_rights_that_are_documented_are_those_that_were_given() -> None:
    text = (DOCUMENT.parent.parent / "SECURITY.md").read_text(encoding="utf-8")
    rows_ = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| detector run | ")]
    said = {(resource, operation) for _, resource, operation in rows_}
    names = {"g-alerts": "alerts", "g-dead": "dead-letters", "g-state": "residual-state-GROUP"}
    names |= {"g-commands": "residual-commands-GROUP", "g": "GROUP", "g-*": "GROUP- (prefixed)", READINGS: "readings"}
    kinds = {ResourceType.TOPIC: "Topic", ResourceType.GROUP: "Group", ResourceType.TRANSACTIONAL_ID: "TransactionalId"}
    given = {(f"{kinds[kind]} {names[name]}", right.name.capitalize()) for kind, name, right in minimal("g").values()}
    assert said == given
