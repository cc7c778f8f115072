"""Tokens for OAUTHBEARER: the client credentials grant (RFC 6749 section 4.4), renewed before they expire."""

from __future__ import annotations

import base64
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from schemas.errors import AccessError, ResidualError, SettingsError, TemporaryError
from schemas.security import Security

log = logging.getLogger(__name__)

# Seconds that the endpoint may take to answer where there is no token yet: it is one small request.
TIMEOUT_S = 10.0

# Seconds that it may take while the last token is still good. The client's I/O thread waits so long, heartbeats too:
# it must stay well under the session's time-out (10 s).
RENEWAL_TIMEOUT_S = 3.0

# Seconds between two requests to an endpoint that does not answer.
RETRY_S = 0.5

# Seconds before the next attempt to renew a token that is still good.
RENEWAL_RETRY_S = 5.0

# Share of a token's life after which it is renewed. Kafka's clients log in again after 85 to 95 % of it (KIP-368).
RENEW_AFTER = 0.8

# Seconds that a token counts as good for where nothing says how long it is: RFC 6749 only recommends expires_in.
USUAL_LIFE_S = 300.0

# Bytes of an answer, at most: tokens have a few kilobytes.
MOST_BYTES = 1 << 20


class _Unavailable(TemporaryError):
    """The endpoint cannot be reached or says "not now"."""


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Bearer tokens of one client, for all of a process's connections. Safe for several threads.

    Raises AccessError where the endpoint refuses or answers something else, TemporaryError where it does not answer.
    Neither the secret nor a token is in any message.
    """

    def __init__(self, security: Security) -> None:
        super().__init__()
        assert security.oauth_token_url is not None
        assert security.oauth_client_id is not None
        self._url = security.oauth_token_url
        self.endpoint = _shown(self._url)
        self._client, self._secret = security.oauth_client_id, security.secret("oauth_client_secret") or ""
        self._scope = security.oauth_scope
        handlers: list[urllib.request.BaseHandler] = [
            _NoRedirect(), urllib.request.HTTPSHandler(context=_context(security.oauth_ca))
        ]  # fmt: skip
        if urllib.parse.urlsplit(self._url).scheme == "http":  # on this machine: no proxy must see the secret
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = self._expires_at = 0.0  # time.monotonic

    def ready(self, deadline: float) -> None:
        """Get a first token; an endpoint that does not answer is asked again until ``deadline`` (monotonic)."""
        began = time.monotonic()
        while True:
            try:
                self.token()
                return
            except _Unavailable as error:
                if time.monotonic() + RETRY_S > deadline:
                    waited = f"tried for {time.monotonic() - began:.0f} s"
                    raise TemporaryError(
                        f"{error} ({waited}); check oauth_token_url, and that the endpoint runs"
                    ) from error
                time.sleep(RETRY_S)

    def token(self) -> str:
        """A token that has not expired. What kafka-python calls at each login."""
        with self._lock:
            now = time.monotonic()
            if now >= self._renew_at:
                self._renew(now)
            return self._token

    def _renew(self, now: float) -> None:
        good = now < self._expires_at
        try:
            token, life_s = self._ask(RENEWAL_TIMEOUT_S if good else TIMEOUT_S)
        except ResidualError as error:
            if not good:
                raise
            self._renew_at = min(now + RENEWAL_RETRY_S, self._expires_at)
            log.warning("the token is not renewed yet, and good for another %.0f s: %s", self._expires_at - now, error)
            return
        self._token = token
        self._renew_at, self._expires_at = now + RENEW_AFTER * life_s, now + life_s
        log.debug("a token of %s, good for %.0f s", self.endpoint, life_s)

    def _ask(self, timeout_s: float) -> tuple[str, float]:
        """A fresh token, and the seconds that it is good for."""
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        # section 2.3.1: both are form-encoded before they are joined
        login = ":".join(urllib.parse.quote_plus(part) for part in (self._client, self._secret))
        request = urllib.request.Request(  # noqa: S310 — https, or http on this machine: the settings see to it
            self._url,
            urllib.parse.urlencode(form).encode(),
            {
                "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
                "Accept": "application/json",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
        where = f"the token endpoint {self.endpoint}"
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return _token_in(answer.read(MOST_BYTES), where)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, where) from None
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise AccessError(
                    f"{where}: its certificate is not accepted ({reason.verify_message}); check oauth_ca"
                ) from None
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise _Unavailable(f"{where} does not answer: {why}") from None

    def _refusal(self, error: urllib.error.HTTPError, where: str) -> ResidualError:
        """Section 5.2: an error answer says in JSON what it is."""
        if error.code >= 500 or error.code == 429:
            return _Unavailable(f"{where} does not answer: HTTP {error.code}")
        said: list[str] = []
        try:
            found = json.loads(error.read(MOST_BYTES))
            said = [found[key] for key in ("error", "error_description") if isinstance(found.get(key), str)]
        except (ValueError, AttributeError, OSError, HTTPException, RecursionError):
            pass
        text = " ".join(" ".join(said).split())[:200]
        for hidden in (self._secret, urllib.parse.quote_plus(self._secret)):
            text = text.replace(hidden, "…")  # nobody should send it back, but then it must not reach a log
        told = f": {''.join(c for c in text if c.isprintable())}" if text else ""
        return AccessError(
            f"{where} refuses the client {self._client} (HTTP {error.code}{told}); check oauth_client_id, its secret "
            "and oauth_scope"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The secret goes to the address that was named, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _token_in(body: bytes, where: str) -> tuple[str, float]:
    """Section 5.1: the token, and the seconds that it is good for."""
    try:
        found = json.loads(body)
        token, kind = found["access_token"], str(found.get("token_type", "bearer"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AccessError(f"{where} answers without an access token; check oauth_token_url") from None
    # RFC 6750: what a bearer token is written with; anything else would break the line that it is sent in
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise AccessError(f"{where} answers with a token that is none; check oauth_token_url")
    if kind.lower() != "bearer":
        raise AccessError(f"{where} answers with a token of another kind than bearer; check oauth_token_url")
    return token, _life(found.get("expires_in"), token)


def _life(expires_in: Any, token: str) -> float:
    """Seconds, as the endpoint says, else as a JSON Web Token says of itself."""
    try:
        return max(float(expires_in), 1.0)
    except (TypeError, ValueError):
        pass
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return max(float(claims["exp"]) - time.time(), 1.0)
    except (IndexError, ValueError, KeyError, TypeError):
        return USUAL_LIFE_S


def _context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"oauth_ca {ca}: {_why(error)}") from None


def _why(error: OSError) -> str:
    return "no certificates in PEM" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()


def _shown(url: str) -> str:
    """The address without its query, which may hold a secret."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
