"""Health and metrics, asked over real HTTP."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from prometheus_client.parser import text_string_to_metric_families

from detector.adapters import http_server as module
from detector.adapters.health import Health, HealthServer
from detector.adapters.http_server import parse_address
from detector.adapters.metrics import ArrayHistogram, Metrics
from schemas.errors import SettingsError


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health() -> Health:
    return Health(limit_s=30)


@pytest.fixture
def server(metrics: Metrics, health: Health) -> Iterator[HealthServer]:
    with HealthServer("127.0.0.1:0", metrics.registry, health) as server:
        yield server


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(server: HealthServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, text = ask(server, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_ready_only_once_it_says_so_and_the_reason_is_told(server: HealthServer, health: Health) -> None:
    assert ask(server, "/readyz") == (503, "starting\n")
    health.ready(True, "watching")
    assert ask(server, "/readyz") == (200, "watching\n")
    health.ready(False, "rebalancing")
    assert ask(server, "/readyz") == (503, "rebalancing\n")
    assert ask(server, "/healthz") == (200, "alive\n")


def test_without_progress_it_is_neither_alive_nor_ready_until_the_next_beat(metrics: Metrics) -> None:
    health = Health(limit_s=0.2)
    health.ready(True, "watching")
    with HealthServer("127.0.0.1:0", metrics.registry, health) as server:
        time.sleep(0.4)
        for path in ("/healthz", "/readyz"):
            status, line = ask(server, path)
            assert status == 503
            assert line.startswith("no progress for ")
        health.beat()
        assert ask(server, "/healthz")[0] == ask(server, "/readyz")[0] == 200


def test_other_paths_are_not_found_and_head_has_no_body(server: HealthServer) -> None:
    assert ask(server, "/")[0] == 404
    assert ask(server, "/metricsx")[0] == 404
    assert ask(server, "/healthz?verbose=1") == (200, "alive\n")
    assert ask(server, "/healthz", method="HEAD") == (200, "")


def test_metrics_are_those_that_were_counted(server: HealthServer, metrics: Metrics) -> None:
    metrics.readings_received.inc(7)
    metrics.readings_dropped.labels("late").inc(2)
    metrics.dead_letters.labels("not-json").inc()
    metrics.alert_events.labels("opened").inc()
    metrics.set_lag({0: 5, 1: 0})
    metrics.stage_seconds.labels("score").observe(0.003)
    metrics.scores.observe(np.array([0.2, 1.0, np.nan, 3.0, 1000.0]))
    got = samples(server)
    assert got["residual_readings_received_total", ()] == 7
    assert got["residual_readings_dropped_total", (("reason", "late"),)] == 2
    assert got["residual_dead_letters_total", (("reason", "not-json"),)] == 1
    assert got["residual_alert_events_total", (("type", "opened"),)] == 1
    assert got["residual_lag_records", (("partition", "0"),)] == 5
    assert got["residual_batch_stage_seconds_count", (("stage", "score"),)] == 1
    assert got["residual_score_thresholds_bucket", (("le", "1.0"),)] == 2
    assert got["residual_score_thresholds_count", ()] == 4
    assert got["residual_score_thresholds_sum", ()] == pytest.approx(1004.2)

    metrics.set_lag({1: 3})
    assert {key: value for key, value in samples(server).items() if key[0] == "residual_lag_records"} == {
        ("residual_lag_records", (("partition", "1"),)): 3
    }


def test_the_age_of_the_last_commit_grows_and_starts_again(server: HealthServer, metrics: Metrics) -> None:
    time.sleep(0.15)
    before = samples(server)["residual_last_commit_age_seconds", ()]
    assert before >= 0.15
    metrics.committed()
    after = samples(server)
    assert after["residual_last_commit_age_seconds", ()] < before
    assert after["residual_transactions_total", ()] == 1


def test_two_detectors_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.rebalances.inc()
    assert other.registry.get_sample_value("residual_rebalances_total") == 0


@given(npst.arrays(np.float64, st.integers(0, 50), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
def test_the_histogram_counts_as_the_definition_says(values: np.ndarray) -> None:
    histogram = ArrayHistogram("h", "", (0.5, 1.0, 10.0))
    histogram.observe(values[: len(values) // 2])
    histogram.observe(values[len(values) // 2 :])
    (family,) = histogram.collect()
    got = {s.labels["le"]: s.value for s in family.samples if s.name == "h_bucket"}
    assert got == {le: int((values <= float(le)).sum()) for le in ("0.5", "1.0", "10.0", "+Inf")}


@pytest.mark.parametrize(
    "address",
    ["", ":", "[]:1", "localhost", "localhost:", "a:b", "h:70000", "::1:80", "h:-1", "h:+1", "[h]:1", "h:²"],
)
def test_an_address_that_is_none_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^--http [^\n]*: write PORT, or HOST:PORT[^\n]*$"):
        parse_address(address)


def test_an_address_that_is_taken_is_refused_in_one_line(
    server: HealthServer, metrics: Metrics, health: Health
) -> None:
    with pytest.raises(SettingsError, match=rf"^--http 127.0.0.1:{server.port}: address already in use; [^\n]*$"):
        HealthServer(f"127.0.0.1:{server.port}", metrics.registry, health)


def test_a_host_that_is_not_this_one_is_refused_in_one_line(metrics: Metrics, health: Health) -> None:
    with pytest.raises(SettingsError, match=r"^--http 192.0.2.1:0: [^\n]*choose another[^\n]*$"):
        HealthServer("192.0.2.1:0", metrics.registry, health)  # a documentation address (RFC 5737)


def test_a_client_that_says_nothing_holds_nobody_up_and_closing_frees_the_port(
    metrics: Metrics, health: Health
) -> None:
    server = HealthServer("127.0.0.1:0", metrics.registry, health)
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/healthz")[0] == 200
        server.close()
        server.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "health"]
    with HealthServer(f"127.0.0.1:{server.port}", metrics.registry, health) as again:
        assert ask(again, "/healthz")[0] == 200


@pytest.mark.parametrize("address", ["0", ":0", "127.0.0.1:0", "localhost:0"])
def test_a_port_alone_is_of_this_machine_only(
    address: str, metrics: Metrics, health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    with HealthServer(address, metrics.registry, health) as server:
        assert server._listening.host in ("127.0.0.1", "localhost")
        assert ask(server, "/healthz")[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_another_address_is_used_where_it_is_written_out_and_warned_of_once(
    metrics: Metrics, health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    with HealthServer("0.0.0.0:0", metrics.registry, health) as server:
        assert ask(server, "/healthz")[0] == 200
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "0.0.0.0:0" in said[0]


def test_many_who_say_nothing_keep_nobody_out(server: HealthServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4 * module.MOST_CONNECTIONS)]
    try:
        for _ in range(20):
            began = time.monotonic()
            assert ask(server, "/healthz") == (200, "alive\n")
            assert time.monotonic() - began < module.REQUEST_S / 2  # nobody waits until the silent ones are cut off
        serving = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(serving) <= module.MOST_CONNECTIONS + 1
    finally:
        for connection in idle:
            connection.close()


def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        began = time.monotonic()
        with suppress(OSError):  # broken pipe or reset, as it happens
            while time.monotonic() - began < 30:
                slow.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 10_000_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: 1\r\n" * 1_000_000 + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
def test_a_request_that_is_too_large_is_not_read(server: HealthServer, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as large:
        try:
            large.sendall(request_)
            answer = large.makefile("rb").read()
        except OSError:  # it hung up while we were still sending
            answer = b""
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert ask(server, "/healthz")[0] == 200
