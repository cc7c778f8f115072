"""Tokens for OAUTHBEARER, from a real endpoint over HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from secured import CLIENT_SECRET, Issuer

from detector.adapters.oauth import Tokens
from schemas.errors import AccessError, SettingsError, TemporaryError
from schemas.security import Security


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


def settings(url: str, secret: str = CLIENT_SECRET, **more: str) -> Security:
    return Security.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": f"{url}/token?tenant=1",
            "oauth_client_id": "a client:1",
            "oauth_client_secret": secret,
            **more,
        }
    )


def ready(tokens: Tokens, seconds: float = 0.0) -> None:
    tokens.ready(time.monotonic() + seconds)


def test_a_token_is_kept_while_it_is_good_and_shared_by_all(issuer: Issuer) -> None:
    tokens = Tokens(settings(issuer.url, oauth_scope="kafka read"))
    ready(tokens)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(tokens.token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert issuer.issued == 1
    claims = json.loads(issuer.claims(found[0]))
    assert (claims["sub"], claims["scope"]) == ("a client:1", "kafka read")


def test_it_is_renewed_before_it_expires(issuer: Issuer) -> None:
    issuer.behaviour = "short"  # good for 3 s, renewed after 2.4
    tokens = Tokens(settings(issuer.url))
    first = tokens.token()
    time.sleep(1)
    assert tokens.token() == first
    time.sleep(1.6)
    assert tokens.token() != first
    assert issuer.issued == 2


def test_while_the_last_one_is_good_an_endpoint_that_is_down_does_no_harm(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.behaviour = "short"
    tokens = Tokens(settings(issuer.url))
    first = tokens.token()
    issuer.behaviour = "down"
    time.sleep(2.5)
    assert tokens.token() == first
    assert "is not renewed yet" in caplog.text
    time.sleep(0.6)
    with pytest.raises(TemporaryError, match="does not answer: HTTP 503"):
        tokens.token()
    issuer.behaviour = "well"
    assert tokens.token() != first
    assert first not in caplog.text
    assert CLIENT_SECRET not in caplog.text


def test_an_endpoint_that_comes_back_in_time_is_waited_for(issuer: Issuer) -> None:
    issuer.behaviour = "down"
    threading.Timer(1.0, lambda: setattr(issuer, "behaviour", "well")).start()
    began = time.monotonic()
    ready(Tokens(settings(issuer.url)), 20)
    assert 0.9 < time.monotonic() - began < 10


@pytest.mark.parametrize("behaviour", ["echo", "html", "wrong secret", "redirect", "text", "mac", "spaces"])
def test_what_the_endpoint_refuses_is_not_asked_again_and_never_shows_the_secret(
    behaviour: str, issuer: Issuer
) -> None:
    secret = "a wrong/secret+é" if behaviour == "wrong secret" else CLIENT_SECRET
    issuer.behaviour = behaviour
    began = time.monotonic()
    with pytest.raises(AccessError) as raised:
        ready(Tokens(settings(issuer.url, secret)), 60)
    assert time.monotonic() - began < 30
    said = str(raised.value)
    assert said.startswith(f"the token endpoint {issuer.url}/token ")
    assert "check " in said
    assert said.isprintable()
    assert secret not in said
    assert "tenant" not in said
    assert issuer.elsewhere == 0


def test_out_of_reach_or_silent_is_temporary() -> None:
    with socket.socket() as taken:  # nobody listens on it
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TemporaryError, match=r"does not answer: Connection refused \(tried for 1 s\)"):
            ready(Tokens(settings(url)), 1.4)
        assert time.monotonic() - began < 15


def test_a_silent_endpoint_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.adapters.oauth.TIMEOUT_S", 0.5)
    issuer.behaviour = "silent"
    with pytest.raises(TemporaryError, match="does not answer: timed out"):
        ready(Tokens(settings(issuer.url)))


def test_authorities_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"oauth_ca .*ca: no certificates in PEM"):
        Tokens(settings("https://127.0.0.1", oauth_ca=str(tmp_path / "ca")))
    with pytest.raises(SettingsError, match="oauth_ca nowhere: no such file"):
        Tokens(settings("https://127.0.0.1", oauth_ca="nowhere"))
