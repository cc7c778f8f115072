"""The page in a real browser, over a real Kafka: an incident opens, is seen, is judged, and the verdict arrives."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from alerts import alert
from broker import Broker, Missing
from browser import Browser
from kafka_cluster import create_topic, produce, read_all, unique

from schemas.alert import EventType, Severity
from schemas.command import Command, Verb
from schemas.feedback import Feedback, Verdict
from schemas.moment import SECOND_NS, format_time

pytestmark = pytest.mark.kafka

#: Where pictures are kept to be looked at; nowhere by default.
PICTURES = os.environ.get("PAGE_PICTURES")


class Page:
    """`detector page` over topics of its own."""

    def __init__(self, broker: Broker, log: Path, *flags: str) -> None:
        self.bootstrap, self.group = broker.bootstrap, unique("page")
        self.alerts, self.scores, self.feedback = (create_topic(broker.bootstrap, unique(what), 1) for what in "asf")
        self.commands = create_topic(broker.bootstrap, unique("commands"), 1)
        named = {
            "bootstrap-servers": broker.bootstrap, "alerts-topic": self.alerts, "scores-topic": self.scores,
            "feedback-topic": self.feedback, "commands-topic": self.commands, "http": "0",
        }  # fmt: skip
        command = [sys.executable, "-m", "detector.cli", "page", *flags]
        command += [part for name, value in named.items() for part in (f"--{name}", value)]
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file)
        self.url = self._found()

    def _found(self) -> str:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"the page is at (\S+)", self._log.read_text())):
            assert time.monotonic() < deadline, self._log.read_text()
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.1)
        return found[1]

    def publish(self, *events: bytes) -> None:
        produce(self.bootstrap, self.alerts, [(0, b"k", event) for event in events])

    def score(self, stream: str, count: int, worst: float) -> None:
        now = time.time()
        values = [worst if n > count - 6 else 0.4 + 0.2 * math.sin(n) for n in range(count)]
        records = [
            orjson.dumps({"stream": stream, "timestamp": format_time(round((now - count + n) * SECOND_NS)), "score": v})
            for n, v in enumerate(values)
        ]
        produce(self.bootstrap, self.scores, [(0, stream.encode(), record) for record in records])


@pytest.fixture
def page(broker: Broker, tmp_path: Path) -> Iterator[Page]:
    own = Page(broker, tmp_path / "page.log")
    yield own
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(30) == 0


@contextlib.contextmanager
def opened(url: str, mobile: bool = False) -> Iterator[Browser]:
    try:
        browser = Browser(390, 844, mobile=True) if mobile else Browser()
    except Missing as missing:
        pytest.skip(str(missing))
    with browser:
        browser.open(url)
        yield browser


def keep(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES) / f"{name}.png")


def drawn(event: bytes) -> bytes:
    """With the windows of its channels."""
    document = orjson.loads(event)
    seen = [12 + math.sin(n) for n in range(12)] + [None, 40.0, 80.0, 97.5]
    wanted = [12 + 0.9 * math.sin(n) for n in range(16)]
    document["data"]["channels"][0] |= {"observed_window": seen, "expected_window": wanted}
    return orjson.dumps(document)


def test_an_incident_opens_is_judged_false_and_the_verdict_arrives(page: Page) -> None:
    now = time.time()
    past = [alert("db-1", now - 9000), alert("db-1", now - 9000, 1, EventType.RESOLVED, after_s=60)]
    page.publish(*past, alert("<img src=x onerror=alert(1)>", now - 50, severity=Severity.MAJOR))
    before = orjson.loads(past[0])["data"]["incident"]
    said = Feedback(incident=before, stream="db-1", verdict=Verdict.CONFIRMED, by="eve")
    produce(page.bootstrap, page.feedback, [(0, before.encode(), said.to_bytes())])
    with opened(page.url) as browser:
        browser.until("document.querySelectorAll('#open .card').length === 1")
        page.publish(drawn(alert("db-3", now, severity=Severity.CRITICAL)))
        page.score("db-3", 100, 3.2)
        page.score("web-1", 100, 0.8)
        browser.until("document.querySelectorAll('#open .card').length === 2")
        browser.until("document.querySelectorAll('#streams .stream').length === 2")
        assert "db-3: cpu.user 8× its expected level" in browser.text()
        assert "<img src=x" in browser.text()  # as text
        assert browser.run("document.querySelector('#open img')") is None
        keep(browser, "wide-list")
        browser.run("document.querySelector('.card.critical').click()")
        browser.until("document.querySelector('#one figure svg path.seen')")
        browser.until("document.querySelector('#nearest .row .confirmed')")
        browser.run("document.getElementById('by').value = 'ada'")
        keep(browser, "wide-incident")
        browser.run("document.querySelector('button[data-what=false]').click()")
        browser.until("document.getElementById('said').textContent.includes('false alarm')")
        browser.until("document.querySelector('button[data-what=false]').getAttribute('aria-pressed') === 'true'")
        assert browser.errors == []
    *_, (_, key, value) = read_all(page.bootstrap, page.feedback)
    found = Feedback.from_bytes(value)
    assert (found.stream, found.verdict, found.by) == ("db-3", Verdict.REJECTED, "ada")
    assert key == found.incident.encode()
    assert read_all(page.bootstrap, page.commands) == []


def test_on_a_phone_a_level_is_accepted(page: Page) -> None:
    now = time.time()
    page.publish(drawn(alert("db-3", now)), alert("web-1", now, severity=Severity.MAJOR))
    page.score("db-3", 60, 2.0)
    with opened(page.url, mobile=True) as browser:
        browser.until("document.querySelectorAll('#open .card').length === 2")
        assert browser.run("document.documentElement.scrollWidth <= 390")
        keep(browser, "phone-list")
        browser.run("[...document.querySelectorAll('.card')].find(one => one.textContent.includes('db-3')).click()")
        browser.until("document.querySelector('button[data-what=accept]')")
        assert browser.run("document.documentElement.scrollWidth <= 390")
        keep(browser, "phone-incident")
        browser.run("document.querySelector('button[data-what=accept]').click()")
        browser.until("document.getElementById('said').textContent.includes('accepted')")
        assert browser.errors == []
    ((_, _, value),) = read_all(page.bootstrap, page.commands)
    assert (Command.from_bytes(value).command, Command.from_bytes(value).stream) == (Verb.ACCEPT, "db-3")
    ((_, _, verdict),) = read_all(page.bootstrap, page.feedback)
    assert Feedback.from_bytes(verdict).verdict is Verdict.REJECTED


def request(url: str, body: object = None, **headers: str) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, data, named)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_other_sites_cannot_judge(page: Page) -> None:
    page.publish(alert("a", time.time()))
    deadline = time.monotonic() + 30
    while '"open":[]' in request(f"{page.url}/api/state")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    incident = json.loads(request(f"{page.url}/api/state")[1])["open"][0]["id"]
    asked = {"incident": incident, "what": "true"}
    well = {"Content_Type": "application/json", "X_Residual": "page"}
    judge = f"{page.url}/api/judge"
    assert request(judge, asked, Content_Type="application/json")[0] == 403
    assert request(judge, asked, Content_Type="text/plain", X_Residual="page")[0] == 403
    assert request(judge, asked, **well, Origin="http://evil.example")[0] == 403
    assert request(judge, asked, **well, Host="evil.example")[0] == 403
    assert request(f"{page.url}/api/state", Host="evil.example")[0] == 421
    assert request(judge, {"incident": incident, "what": "maybe"}, **well)[0] == 400
    assert request(judge, [], **well)[0] == 400
    assert request(judge, {"incident": "none", "what": "true"}, **well) == (409, "no such incident is remembered\n")
    assert request(f"{page.url}/../../etc/passwd")[0] == 404
    assert read_all(page.bootstrap, page.feedback) == []
    status, said = request(judge, asked, **well)
    assert (status, "judged a fault" in said) == (200, True)
    assert len(read_all(page.bootstrap, page.commands)) == 1
