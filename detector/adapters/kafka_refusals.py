"""Why a connection to a broker was not made, where only an operator can change it.

kafka-python 3.0.12 tries again whatever happened, until its time-out, and then says that nobody answered. Here each
failure is looked at: what cannot pass by itself becomes one of our errors at once. A broker that hangs up may just be
starting, or be a proxy without one behind it; so where that is all that is known, it is asked in the other way.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import errors as vendor

from schemas.errors import AccessError, ResidualError, SettingsError, UserError
from schemas.security import OAUTH

# Seconds that a broker may take to answer when it is asked in the other way: one short exchange.
PROBE_S = 2.0

# Times in a row that a broker may hang up, at a login or at the first question after its greeting, before it counts as
# a refusal: it takes about 3 s, and a broker that is being started or stopped does so once or twice.
HANG_UPS = 6

# OpenSSL's codes of what is wrong with a certificate (X509_V_ERR_…).
_EXPIRED, _NOT_YET = (10,), (9,)
_OTHER_HOST = (62, 64)
_UNTRUSTED = (2, 18, 19, 20, 21)

# First two bytes of a TLS alert, read as those of a Kafka answer's length.
_TLS_ALERT = 0x1503


class Refusals:
    """Looks at failed connections of one client. ``config``: its settings of kafka-python."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._protocol: str = config.get("security_protocol", "PLAINTEXT")
        self._hung_up = self._questions = 0

    def failed(self, error: Exception, host: str, port: int) -> ResidualError | None:
        """What to tell the operator about a connection that was not made; None: it may pass."""
        chain, where = list(_chain(error)), f"{host}:{port}"
        for cause in chain:
            if isinstance(cause, UserError):
                return cause
            told = self._certificate(cause, where) or self._login(cause, where) or self._other_protocol(cause, where)
            if told is not None:
                return told
        if not any(_hang_up(cause) for cause in chain):
            self._hung_up = 0
            return None
        self._hung_up += 1
        return self._asked_otherwise(host, port) or self._hung_up_at_login(where)

    def lost(self, error: Exception, host: str, port: int) -> ResidualError | None:
        """The same of a connection that was made, and broke before the first question was answered."""
        if not self._protocol.startswith("SASL") and _hang_up(error):
            self._questions += 1
            if self._questions == HANG_UPS:
                return AccessError(
                    f"{host}:{port} answers {self._protocol} and hangs up at the first question: it asks for a login; "
                    f"use security_protocol {'SASL_SSL' if self._tls else 'SASL_PLAINTEXT'} and sasl_mechanism"
                )
        return None

    @property
    def _tls(self) -> bool:
        return self._protocol.endswith("SSL")

    def _certificate(self, error: Exception, where: str) -> ResidualError | None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return AccessError(f"{where}: {_wrong_certificate(error)}; nothing was sent to it")
        if not isinstance(error, ssl.SSLError) or "ALERT" not in (error.reason or ""):
            return None
        alert = (error.reason or "").partition("ALERT_")[2].lower().replace("_", " ")
        if "certificate" in alert or alert in ("unknown ca", "access denied"):
            own = self._config.get("ssl_certfile")
            if own is None:
                return AccessError(f"{where} asks for a client certificate: name one with ssl_cert and ssl_key")
            return AccessError(
                f"{where} refuses the client certificate ssl_cert {own} ({alert}): it must not have expired, and be "
                "of an authority that the broker trusts"
            )
        return SettingsError(f"{where} refuses the TLS connection ({alert}): it must offer TLS 1.2 or newer")

    def _login(self, error: Exception, where: str) -> ResidualError | None:
        mechanism = self._config.get("sasl_mechanism")
        if isinstance(error, vendor.UnsupportedSaslMechanismError):
            return SettingsError(f"{where} does not offer sasl_mechanism {mechanism}: use one that it offers")
        if isinstance(error, vendor.IllegalSaslStateError):
            plain = "SSL" if self._tls else "PLAINTEXT"
            return SettingsError(f"{where} takes no login: use security_protocol {plain}, or its other port")
        if isinstance(error, vendor.SaslAuthenticationFailedError):
            return self._refused(where, error)
        if mechanism is not None and isinstance(error, ValueError):  # SCRAM: the broker proves that it knows it, too
            return AccessError(
                f"{where} could not prove that it knows the password of {self._user}: it may not be your broker; check "
                "its address"
            )
        return None

    def _refused(self, where: str, error: Exception | None = None) -> AccessError:
        mechanism = self._config.get("sasl_mechanism")
        if mechanism == OAUTH:
            endpoint = self._config["sasl_oauth_token_provider"].endpoint
            return AccessError(
                f"{where} refuses the token of {endpoint}: it may have expired, or name another issuer, audience or "
                "scope than the broker expects; check oauth_scope, the clocks, and the broker's settings"
            )
        said = "" if error is None else f" ({_last_sentence(error)})"
        return AccessError(
            f"{where} refuses the login of {self._user} by {mechanism}{said}; check sasl_username and sasl_password"
        )

    @property
    def _user(self) -> str:
        user = str(self._config.get("sasl_plain_username", ""))
        return user if self._config.get("sasl_mechanism") == "PLAIN" else user.replace("=2C", ",").replace("=3D", "=")

    def _other_protocol(self, error: Exception, where: str) -> ResidualError | None:
        if isinstance(error, vendor.InvalidReceiveError) and not self._tls:
            length = str(error).rpartition(" ")[2]
            if length.isdigit() and int(length) >> 16 == _TLS_ALERT:
                return self._speaks_tls(where)
        if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER"):
            return self._speaks_no_tls(where)
        return None

    def _speaks_tls(self, where: str) -> ResidualError:
        return SettingsError(
            f"{where} speaks TLS, and security_protocol is {self._protocol}: use "
            f"{'SASL_SSL' if self._protocol.startswith('SASL') else 'SSL or SASL_SSL'}, or its other port"
        )

    def _speaks_no_tls(self, where: str) -> ResidualError:
        clear = self._protocol.replace("SASL_SSL", "SASL_PLAINTEXT").replace("SSL", "PLAINTEXT")
        return SettingsError(
            f"{where} speaks no TLS, and security_protocol is {self._protocol}: use its TLS port (or {clear}: then "
            "everything is sent in the clear)"
        )

    def _asked_otherwise(self, host: str, port: int) -> ResidualError | None:
        if self._tls:
            return self._speaks_no_tls(f"{host}:{port}") if answers_in_the_clear(host, port) else None
        return self._speaks_tls(f"{host}:{port}") if answers_by_tls(host, port) else None

    def _hung_up_at_login(self, where: str) -> ResidualError | None:
        return self._refused(where) if self._protocol.startswith("SASL") and self._hung_up >= HANG_UPS else None


def answers_in_the_clear(host: str, port: int) -> bool:
    """Whether a Kafka answers there without TLS: to ApiVersions, which every listener answers before a login."""
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((host, port), PROBE_S) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            reply = connection.makefile("rb").read(8)
    except OSError:
        return False
    return len(reply) == 8 and struct.unpack(">ii", reply)[1] == 1  # its length, and the number of the question


def answers_by_tls(host: str, port: int) -> bool:
    """Whether somebody there speaks TLS. Whoever it is: nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PROBE_S) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False


def _wrong_certificate(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in _EXPIRED:
        return "its certificate has expired; have it renewed, and check this machine's clock"
    if code in _NOT_YET:
        return "its certificate is not valid yet; check this machine's clock"
    if code in _OTHER_HOST:
        return (
            "its certificate is another host's; write the host as the certificate does, in the address and in "
            "the broker's advertised.listeners"
        )
    if code in _UNTRUSTED:
        return "its certificate is of an authority that is not trusted; name the right one with ssl_ca"
    return f"its certificate is not accepted ({error.verify_message}); have it renewed"


def _chain(error: BaseException, depth: int = 8) -> Iterator[Exception]:
    """The error and what it comes from: kafka-python hands causes on as arguments, or raises anew without a word."""
    if isinstance(error, Exception):
        yield error
    if depth:
        inner = [argument for argument in error.args if isinstance(argument, Exception)]
        for cause in [*inner, error.__cause__ or error.__context__]:
            if cause is not None:
                yield from _chain(cause, depth - 1)


def _hang_up(error: Exception) -> bool:
    return isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError) or (
        isinstance(error, vendor.KafkaConnectionError) and "socket disconnected" in str(error)
    )


def _last_sentence(error: Exception) -> str:
    """What the broker said, without the names of errors before it."""
    return " ".join(str(error).rpartition("Error: ")[2].split())[:200]
