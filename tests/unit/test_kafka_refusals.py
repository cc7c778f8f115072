"""Connections that fail: what may pass is waited for, in time, and what cannot pass is told apart from it."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from kafka import errors as vendor

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_refusals import HANG_UPS, Refusals, answers, answers_by_tls
from schemas.errors import AccessError, BrokerUnavailable, SettingsError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TLS = {"security_protocol": "SSL"}
LOGIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-256",
    "sasl_plain_username": "a=2Cb=3Dc",
    "sasl_plain_password": "p",
}


@pytest.fixture(autouse=True)
def _sockets_closed_here() -> Iterator[None]:
    """The client leaves some to the garbage collector: they must not be found during another test."""
    yield
    gc.collect()


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a server that does one thing to each connection; gives its address."""
    servers, kept = [], []

    def started(what: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                kept.append(connection)
                with suppress(OSError):
                    what(connection)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield started
    for opened in [*servers, *kept]:
        opened.close()


@pytest.mark.parametrize("security", [{}, TLS, LOGIN], ids=["clear", "tls", "login"])
@pytest.mark.parametrize("what", [lambda _: None, lambda c: c.close()], ids=["silent", "proxy without a broker"])
def test_what_may_pass_is_waited_for_until_the_time_out(security: dict, what, listen) -> None:
    address = listen(what)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=address):
        Clients(address, "test", security).admin(began + 1.5)
    assert 1.0 < time.monotonic() - began < 8


def test_another_service_is_not_taken_for_a_broker(listen) -> None:
    address = listen(lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    host, port = address.split(":")
    assert not answers(host, int(port), tls=False)
    assert not answers_by_tls(host, int(port))
    with pytest.raises(SettingsError, match="speaks no TLS"):
        Clients(address, "test", TLS).admin(time.monotonic() + 20)


def failed(config: dict, error: Exception, times: int = 1, address: str = "127.0.0.1:1") -> Exception | None:
    refusals, (host, port) = Refusals(config), address.split(":")
    found = [refusals.failed(error, host, int(port)) for _ in range(times)]
    return found[-1]


def greet(connection: socket.socket) -> None:
    """What a Kafka answers first, by its form: the question's number, no error, nothing that it can do."""
    connection.recv(1000)
    connection.sendall(struct.pack(">iihi", 10, 1, 0, 0))


def test_a_broker_that_cannot_prove_that_it_knows_the_password() -> None:
    said = failed(LOGIN, ValueError("Server sent wrong signature!"))
    assert isinstance(said, AccessError)
    assert "could not prove that it knows the password of a,b=c" in str(said)
    assert failed({}, ValueError("something else")) is None


def test_hang_ups_in_a_row_count_at_a_login_of_a_broker_that_answers_only(listen) -> None:
    hung_up, broker = vendor.KafkaConnectionError("socket disconnected"), listen(greet)
    assert failed(LOGIN, hung_up, HANG_UPS - 1, broker) is None
    said = failed(LOGIN, hung_up, HANG_UPS, broker)
    assert f"{broker} refuses the login of a,b=c by SCRAM-SHA-256" in str(said)
    assert failed(LOGIN, hung_up, HANG_UPS) is None
    assert failed({}, hung_up, 3 * HANG_UPS, broker) is None
    refusals = Refusals(LOGIN)
    for number in range(5 * HANG_UPS):  # never so many in a row
        error = vendor.KafkaTimeoutError() if number % HANG_UPS == 0 else hung_up
        assert refusals.failed(error, "127.0.0.1", 1) is None


@pytest.mark.parametrize(
    "error",
    [
        vendor.KafkaConnectionError("111 ECONNREFUSED"),
        vendor.KafkaTimeoutError("Timeout"),
        vendor.NodeNotReadyError(),
        vendor.InvalidReceiveError("Invalid frame length: 1213486160"),  # "HTTP"
        ssl.SSLError(1, "something that is no alert"),
        OSError(113, "No route to host"),
        RuntimeError(),
    ],
)
def test_what_is_not_known_to_last_may_pass(error: Exception) -> None:
    for config in ({}, TLS, LOGIN):
        assert failed(config, error, 3) is None
