"""`detector notify` between a real Kafka and a real Alertmanager, killed where it hurts."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from alertmanager import Alertmanager, Receiver
from alerts import alert
from broker import Broker, Missing
from conftest import absent
from kafka_cluster import create_topic, produce, read_all, unique

from schemas.alert import EventType, Severity
from schemas.moment import SECOND_NS, format_time
from schemas.silence import Silence

pytestmark = pytest.mark.kafka


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def manager(hook: Receiver) -> Iterator[Alertmanager]:
    try:
        server = Alertmanager(hook.url)
    except Missing as missing:
        absent(str(missing))
        raise
    with server:
        yield server


class Case:
    """Topics of one test, and `detector notify` over them."""

    def __init__(self, broker: Broker, *flags: str) -> None:
        self.broker, self.group = broker, unique("notify")
        self.alerts = create_topic(broker.bootstrap, unique("alerts"), 3)
        self.silences = create_topic(broker.bootstrap, unique("silences"), 1, cleanup_policy="compact")
        self.dead = unique("dead")
        named = {
            "bootstrap-servers": broker.bootstrap, "alerts-topic": self.alerts, "group-id": self.group,
            "silences-topic": self.silences, "dead-letters-topic": self.dead, "wait": "300ms",
        }  # fmt: skip
        self._command = [sys.executable, "-m", "detector.cli", "notify"]
        self._command += [part for name, value in named.items() for part in (f"--{name}", value)] + list(flags)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def to_the_end(self, *flags: str) -> tuple[str, str]:
        done = subprocess.run(
            [*self._command, "--stop-at-end", *flags], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def publish(self, events: list[bytes]) -> None:
        keys = [orjson.loads(event)["subject"].encode() for event in events]
        produce(
            self.broker.bootstrap, self.alerts,
            [(sum(key) % 3, key, event) for key, event in zip(keys, events, strict=True)],
        )  # fmt: skip


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_killed_again_and_again_nothing_is_missing_and_nothing_is_new_twice(
    broker: Broker, hook: Receiver, manager: Alertmanager
) -> None:
    now, dice = time.time() - 200, random.Random(4)
    with Receiver(lambda number: 503 if number % 7 == 3 else 200) as direct:
        case = Case(broker, "--alertmanager", manager.url, "--webhook", direct.url, "--fleet-streams", "0")
        case_rate = ["--rate", "6000"]
        opened = [alert(f"pump-{n}", now + n) for n in range(60)]
        ended = [alert(f"pump-{n}", now + n, 1, EventType.RESOLVED, after_s=30) for n in range(40)]
        lines = ""
        process = case.start(*case_rate)
        for number, part in enumerate([opened[:20], opened[20:40], opened[40:], ended[:20], ended[20:]]):
            case.publish(part)
            if number == 2:
                manager.stop()
            time.sleep(dice.uniform(0.5, 3.0))
            process.kill()
            lines += process.communicate()[0]
            if number == 2:
                manager.start()  # it has forgotten everything
                until(lambda: _told(direct, "opened") >= {f"pump-{n}" for n in range(40)} or True, 1)
            process = case.start(*case_rate)
        until(lambda: _told(direct, "opened") >= {f"pump-{n}" for n in range(40, 60)})
        until(lambda: {one["labels"]["stream"] for one in manager.alerts()} == {f"pump-{n}" for n in range(40, 60)}, 90)
        process.kill()
        lines += process.communicate()[0]
        # an incident that opened and ended while nobody told is in the digest; all others are told, and their ends
        told, over = _told(direct, "opened"), _told(direct, "resolved")
        assert over == told & {f"pump-{n}" for n in range(40)}
        ids = Counter(header["Idempotency-Key"] for header in direct.headers)
        bodies = {body["id"]: body for body in direct.bodies}
        assert set(ids) == set(bodies)
        assert all(count <= 2 for count in ids.values())  # once more, under the same id, where it died over it
        assert sum(count - 1 for count in ids.values()) <= 5 * 20
        until(lambda: _seen(hook, "firing") >= {f"pump-{n}" for n in range(40, 60)})
        assert all(f"pump-{n}:" in lines for n in range(40, 60))


def _told(receiver: Receiver, event: str) -> set[str]:
    return {body["stream"] for body in list(receiver.bodies) if body["event"] == event and body["about"] == "incident"}


def _seen(hook: Receiver, status: str) -> set[str]:
    return {
        one["labels"].get("stream", "")
        for body in list(hook.bodies)
        for one in body["alerts"]
        if one["status"] == status
    }


def test_alertmanager_groups_resolves_and_is_told_of_what_becomes_worse(
    broker: Broker, hook: Receiver, manager: Alertmanager
) -> None:
    now = time.time() - 100
    case = Case(broker, "--alertmanager", manager.url, "--no-lines", "--page-url", "http://page:8080")
    case.publish([alert("a", now), alert("b", now + 400), alert("fan-1", now, group="fans")])
    case.to_the_end()
    found = {one["labels"]["stream"]: one for one in manager.alerts()}
    assert found.keys() == {"a", "b", "fan-1"}
    assert found["a"]["labels"]["severity"] == "minor"
    assert "cpu.user: 97.5 %, expected 12 % (70% of the error)" in found["a"]["annotations"]["description"]
    assert found["a"]["generatorURL"].startswith("http://page:8080/#incident=")
    until(lambda: _seen(hook, "firing") == {"a", "b", "fan-1"})
    assert {body["groupLabels"]["model_group"] for body in hook.bodies} == {"default", "fans"}
    case.publish([alert("a", now, 1, EventType.UPDATED, Severity.CRITICAL, after_s=50)])
    case.publish([alert("b", now + 400, 1, EventType.RESOLVED, after_s=50)])
    case.to_the_end()
    active = {("a", "critical"), ("fan-1", "minor")}
    until(lambda: {(one["labels"]["stream"], one["labels"]["severity"]) for one in manager.alerts()} == active)
    until(lambda: "b" in _seen(hook, "resolved"))


def test_budget_fleet_silence_and_what_is_no_alert(broker: Broker) -> None:
    now = time.time() - 100
    case = Case(broker, "--page-budget", "3/day")
    silence = Silence(
        id="s", streams="quiet-*", start=format_time(round(now - 60) * SECOND_NS),
        end=format_time(round(now + 3600) * SECOND_NS),
    )  # fmt: skip
    produce(broker.bootstrap, case.silences, [(0, b"s", silence.to_bytes()), (0, b"bad", b"{}")])
    case.publish([alert(f"rack-{n}", now + n) for n in range(12)])
    case.publish([alert("quiet-1", now)])
    case.publish([alert(f"far-{n}", now - 5000 - 1000 * n) for n in range(4)])
    produce(broker.bootstrap, case.alerts, [(0, b"x", b"no alert"), (1, b"y", None)])
    out, err = case.to_the_end()
    lines = out.splitlines()
    assert len([line for line in lines if line.startswith("OPENED")]) == 2  # minor ones may use half of three
    assert any("12 streams of default broke together" in line for line in lines)
    assert "quiet-1" not in out
    assert "a silence that is none" in err
    letters = read_all(broker.bootstrap, case.dead)
    assert sorted(value or b"" for _, _, value in letters) == [b"", b"no alert"]
    again, _ = case.to_the_end()
    assert again == ""


def test_whoever_starts_later_takes_over(broker: Broker) -> None:
    with Receiver() as hook:
        case = Case(broker, "--webhook", hook.url, "--fleet-streams", "0", "--no-lines")
        first = case.start()
        second = None
        try:
            case.publish([alert("a", time.time())])
            until(lambda: _told(hook, "opened") == {"a"})
            second = case.start()
            until(lambda: first.poll() is not None or case.publish([alert("b", time.time() + 1000)]) is not None)
            case.publish([alert("c", time.time() + 2000)])
            until(lambda: _told(hook, "opened") == {"a", "b", "c"})
            assert second.poll() is None
        finally:
            for process in (first, second):
                if process is not None:
                    process.kill()
            said = first.communicate()[1]
            if second is not None:
                second.communicate()
        assert first.returncode == 75
        assert "has taken over" in said.splitlines()[-1]


def test_a_template_makes_the_body_and_what_is_refused_is_set_aside(
    broker: Broker, hook: Receiver, tmp_path: Path
) -> None:
    template = tmp_path / "slack.json.j2"
    template.write_text('{"text": {{ (severity ~ ": " ~ summary) | tojson }}}')
    case = Case(broker, "--webhook", hook.url, "--webhook-template", str(template), "--no-lines")
    case.publish([alert("a", time.time())])
    case.to_the_end()
    assert hook.bodies == [{"text": "minor: a: cpu.user 8× its expected level"}]
    with Receiver(lambda _: 400) as never:
        other = Case(broker, "--webhook", never.url, "--no-lines")
        other.publish([alert("a", time.time())])
        other.to_the_end()
        ((_, key, value),) = read_all(broker.bootstrap, other.dead)
        assert key is not None
        assert orjson.loads(value or b"")["stream"] == "a"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--alerts-topic", "nowhere"], "there is no topic nowhere"),
        (["--webhook", "ftp://x"], "an address such as"),
        (["--page-budget", "some"], "N/day"),
        (["--no-lines"], "nobody would be told"),
        (["--webhook", "http://x", "--webhook-template", "/nowhere"], "cannot be read"),
        (["--webhook-template", "x.j2"], "of use with --webhook only"),
        (["--calendars", "/nowhere.ics"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(broker: Broker, flags: list[str], said: str) -> None:
    command = [sys.executable, "-m", "detector.cli", "notify", "--bootstrap-servers", broker.bootstrap, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
