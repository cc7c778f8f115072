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
from contextlib import ExitStack
from typing import Any

from kafka import errors as vendor

from schemas.errors import AccessError, ResidualError, SettingsError, UserError
from schemas.security import OAUTH

# Seconds that a broker may take to answer when it is asked in the other way: one short exchange.
PROBE_S = 2.0

# Times in a row that a broker may hang up at a login before it counts as a refusal: it takes about 3 s, and a broker
# that is being started or stopped does so once or twice.
HANG_UPS = 6

# Bytes of an answer that are read, at most.
MOST_BYTES = 65_536

# To find out what somebody speaks; nothing that matters is sent so.
_UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNCHECKED.check_hostname, _UNCHECKED.verify_mode = False, ssl.CERT_NONE

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
        self._hung_up = 0

    def failed(self, error: Exception, host: str, port: int) -> ResidualError | None:
        """What to tell the operator about a connection that was not made; None: it may pass."""
        chain, where = list(_chain(error)), f"{host}:{port}"
        for cause in chain:
            if isinstance(cause, UserError):
                return cause
            told = (
                self._certificate(cause, where) or self._login(cause, host, port) or self._other_protocol(cause, where)
            )
            if told is not None:
                return told
        if not any(_hang_up(cause) for cause in chain):
            self._hung_up = 0
            return None
        self._hung_up += 1
        return self._asked_otherwise(host, port) or self._hung_up_at_login(host, port)

    def lost(self, error: Exception, host: str, port: int) -> ResidualError | None:
        """The same of a connection that was made, and broke before the first question was answered."""
        if self._protocol.startswith("SASL") or not _hang_up(error):
            return None
        mechanisms = offered(host, port, self._tls)
        if not mechanisms:
            return None
        use = "SASL_SSL" if self._tls else "SASL_PLAINTEXT"
        return AccessError(
            f"{host}:{port} asks for a login: use security_protocol {use} and sasl_mechanism "
            f"({', '.join(mechanisms)} are offered)"
        )

    @property
    def _tls(self) -> bool:
        return self._protocol.endswith("SSL")

    def _certificate(self, error: Exception, where: str) -> ResidualError | None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return AccessError(f"{where}: {_wrong_certificate(error)}; nothing was sent to it")
        reason = _reason(error)
        if "ALERT" not in reason:
            return None
        alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
        if "certificate" in alert or alert in ("unknown ca", "access denied"):
            own = self._config.get("ssl_certfile")
            if own is None:
                return AccessError(f"{where} asks for a client certificate: name one with ssl_cert and ssl_key")
            return AccessError(
                f"{where} refuses the client certificate ssl_cert {own} ({alert}): it must not have expired, and be "
                "of an authority that the broker trusts"
            )
        return SettingsError(f"{where} refuses the TLS connection ({alert}): it must offer TLS 1.2 or newer")

    def _login(self, error: Exception, host: str, port: int) -> ResidualError | None:
        mechanism, where = self._config.get("sasl_mechanism"), f"{host}:{port}"
        if isinstance(error, vendor.UnsupportedSaslMechanismError):
            mechanisms = offered(host, port, self._tls)
            use = f"one of {', '.join(mechanisms)}" if mechanisms else "one that it offers"
            return SettingsError(f"{where} does not offer sasl_mechanism {mechanism}: use {use}")
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
        if _reason(error) in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
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
            return self._speaks_no_tls(f"{host}:{port}") if answers(host, port, False) else None
        return self._speaks_tls(f"{host}:{port}") if answers_by_tls(host, port) else None

    def _hung_up_at_login(self, host: str, port: int) -> ResidualError | None:
        if not self._protocol.startswith("SASL") or self._hung_up % HANG_UPS:
            return None
        # a broker that answers before the login, and not after it; a proxy without a broker does neither
        return self._refused(f"{host}:{port}") if answers(host, port, self._tls) else None


def answers(host: str, port: int, tls: bool) -> bool:
    """Whether a Kafka answers there, by TLS or not: to ApiVersions, which every listener answers before a login."""
    return _asked(host, port, 18, 0, b"", tls=tls) is not None


def offered(host: str, port: int, tls: bool) -> list[str]:
    """The login mechanisms of a listener, by SaslHandshake; none where it takes no login, or does not answer."""
    asked = b"PLAIN"
    reply = _asked(host, port, 17, 1, struct.pack(">h", len(asked)) + asked, tls=tls)
    if reply is None or len(reply) < 6:
        return []
    refusal, count = struct.unpack_from(">hi", reply)  # 0, or 33: it does not offer this one
    found, at = [], 6
    for _ in range(count if refusal in (0, 33) else 0):
        length = int.from_bytes(reply[at : at + 2], "big")
        name = reply[at + 2 : at + 2 + length].decode("ascii", "replace")
        found.append("".join(c for c in name[:40] if c.isprintable()))
        at += 2 + length
        if at >= len(reply):
            break
    return sorted(found)


def _asked(host: str, port: int, question: int, version: int, body: bytes, *, tls: bool) -> bytes | None:
    """What a Kafka answers to one question, after its number; None where nobody does. No secret is sent."""
    message = struct.pack(">hhih", question, version, 1, -1) + body
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), PROBE_S))
            if tls:
                connection = stack.enter_context(_UNCHECKED.wrap_socket(connection))
            connection.sendall(struct.pack(">i", len(message)) + message)
            file = stack.enter_context(connection.makefile("rb"))
            head = file.read(8)
            if len(head) < 8 or head[4:] != b"\0\0\0\1":  # the number of the question
                return None
            return file.read(min(max(int.from_bytes(head[:4], "big") - 4, 0), MOST_BYTES))
    except OSError:
        return None


def answers_by_tls(host: str, port: int) -> bool:
    """Whether somebody there speaks TLS. Whoever it is: nothing is sent."""
    try:
        with socket.create_connection((host, port), PROBE_S) as connection, _UNCHECKED.wrap_socket(connection):
            return True
    except OSError:
        return False


def _reason(error: Exception) -> str:
    """OpenSSL's name of what went wrong; errors that Python made itself have none."""
    return getattr(error, "reason", None) or "" if isinstance(error, ssl.SSLError) else ""


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
