"""`detector check` as a stranger meets it: each thing that may be wrong, one at a time, and then nothing."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest
from broker import Broker, free_port
from kafka.admin import KafkaAdminClient
from kafka_cluster import create_topic, produce, unique
from tiny_model import tiny_model

from detector import cli
from detector.adapters.folder import write_model
from detector.engine.model import Model

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Model]:
    path = tmp_path_factory.mktemp("check") / "model"
    made = tiny_model()
    write_model(made, path)
    return str(path), made


def reading(channels: tuple[str, ...], at_s: float, **names: str) -> bytes:
    fields = {"stream": "stream", "timestamp": "timestamp", "values": "values"} | names
    return orjson.dumps({
        fields["stream"]: "pump", fields["timestamp"]: round(at_s * 1000),
        fields["values"]: dict.fromkeys(channels, 1.5),
    })  # fmt: skip


class Case:
    def __init__(self, broker: Broker, model: tuple[str, Model], capsys: pytest.CaptureFixture[str]) -> None:
        self.broker, self.capsys = broker, capsys
        self.path, self.channels = model[0], model[1].manifest.channel_names
        self.step_s = model[1].manifest.interval_s
        self.topic = create_topic(broker.bootstrap, unique("readings"), 3)

    def fill(self, *values: bytes | None) -> None:
        produce(self.broker.bootstrap, self.topic, [(n % 3, b"k", value) for n, value in enumerate(values)])

    def readings(self, count: int, **names: str) -> list[bytes]:
        now = time.time()
        return [reading(self.channels, now - self.step_s * (count - n), **names) for n in range(count)]

    def check(self, *flags: str, wait: str = "2s") -> tuple[int, str]:
        named = ["--model", self.path, "--bootstrap-servers", self.broker.bootstrap, "--readings-topic", self.topic]
        code = cli.main(["check", *named, "--group-id", unique("g"), "--wait", wait, *flags])
        return code, " ".join(self.capsys.readouterr().out.split())


@pytest.fixture
def case(broker: Broker, model: tuple[str, Model], capsys: pytest.CaptureFixture[str]) -> Case:
    return Case(broker, model, capsys)


def test_all_is_well_and_nothing_is_left_behind(case: Case) -> None:
    case.fill(*case.readings(150))
    admin = KafkaAdminClient(bootstrap_servers=case.broker.bootstrap)
    try:
        before = set(admin.list_topics()), {str(group) for group in admin.list_groups()}
        code, out = case.check()
        assert (set(admin.list_topics()), {str(group) for group in admin.list_groups()}) == before
    finally:
        admin.close()
    assert code == 0, out
    assert "100 looked at" in out
    assert "keeps 150" in out
    assert f"all {len(case.channels)} of the model's have values" in out
    assert "all well" in out
    assert "not there yet; made at the first start" in out


def test_no_records_is_something_to_put_right(case: Case) -> None:
    code, out = case.check(wait="500ms")
    assert (code, "holds none, and none arrived" in out, "1 to put right" in out) == (2, True, True)


def test_names_of_fields_are_guessed(case: Case) -> None:
    case.fill(*case.readings(20, stream="host", timestamp="ts", values="metrics"))
    code, out = case.check()
    assert code == 2
    assert "--values-field metrics --timestamp-field ts --stream-field host" in out
    flags = ["--values-field", "metrics", "--timestamp-field", "ts", "--stream-field", "host"]
    assert case.check(*flags)[0] == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'[{"values":[1],"dsnames":["value"],"plugin":"cpu","host":"a"}]', "collectd's"),
        (b'{"fields":{"a":1},"name":"cpu","tags":{"host":"a"},"timestamp":1}', "Telegraf's"),
        (b'{"labels":{"__name__":"up"},"name":"up","value":"1","timestamp":"x"}', "Prometheus remote write's"),
        (b"cpu,host=a usage=0.5 1690000000", "line protocol"),
        (b"1,2,3", "CSV"),
        (b"\0\0\0\0\1abcdef", "schema registry"),
        (b"\x89PNG\r\n\x1a\nxxxx", "pictures"),
        (b'{"host":"a","temp":3.5,"load":1}', "put them into an object"),
        (b"\xff\xfe", "neither text nor pictures"),
    ],
)
def test_formats_are_recognised(case: Case, value: bytes, said: str) -> None:
    case.fill(value)
    code, out = case.check()
    assert code == 2
    assert said in out


def test_what_does_not_fit_the_model_is_said(case: Case) -> None:
    now = time.time()
    half = case.channels[:1]
    case.fill(*[reading((*half, "noise\x1b[31m"), now - 500 * n) for n in range(9)], b"garbage")
    code, out = case.check()
    assert code == 2
    assert "have no value in any" in out
    assert "and ignored: noise" in out
    assert "\x1b" not in out
    assert "1 would be set aside" in out
    assert "fit a model on readings of this interval" in out


def test_a_topic_a_model_and_a_broker_that_are_not_there(case: Case, tmp_path: Path) -> None:
    code, out = case.check("--readings-topic", "nowhere")
    assert (code, "there is no topic nowhere" in out) == (2, True)
    case.fill(*case.readings(3))
    code, out = case.check("--model", str(tmp_path / "none"))
    assert code == 2
    assert "3 are there to look at, once there is a model" in out
    code, out = case.check("--bootstrap-servers", f"127.0.0.1:{free_port()}", "--startup-timeout", "2s")
    assert (code, "no Kafka broker answered" in out) == (75, True)
