"""From settings to what kafka-python needs for TLS and SASL; and what a refused connection means.

kafka-python builds its TLS context anew for every connection, from files: a certificate that is renewed on disk is used
from the next connection on. Here the files are tried once, so that a wrong one is named before anything is connected.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

from detector.adapters.oauth import Tokens
from schemas.errors import SettingsError
from schemas.security import OAUTH, Security

log = logging.getLogger(__name__)


def client_settings(security: Security) -> dict[str, Any]:
    """Settings for every connection of kafka-python. Raises SettingsError for a file that does not serve.

    Warns of what is sent in the clear.
    """
    found: dict[str, Any] = {"security_protocol": security.security_protocol}
    try:
        if security.tls:
            found |= _tls(security)
        if security.sasl:
            found |= _sasl(security)
    except ValueError as error:  # a secret's file
        raise SettingsError(str(error)) from None
    if security.security_protocol == "SASL_PLAINTEXT":
        named = {"PLAIN": "the password", OAUTH: "the token"}
        what = named.get(security.sasl_mechanism or OAUTH, "all but the password")
        log.warning("security_protocol SASL_PLAINTEXT: %s travels to the brokers in the clear; prefer SASL_SSL", what)
    if security.tls and not security.ssl_check_hostname:
        log.warning("ssl_check_hostname=false: whoever holds any certificate of these authorities can pose as a broker")
    return found


def _tls(security: Security) -> dict[str, Any]:
    # "" and not None: of None OpenSSL would ask the terminal for the password of a key that has one, and wait
    password = security.secret("ssl_key_password") or ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security.ssl_ca is not None:
        try:
            context.load_verify_locations(security.ssl_ca)
        except ssl.SSLError:
            raise SettingsError(f"ssl_ca {security.ssl_ca} holds no certificates in PEM: name another file") from None
        except OSError as error:
            raise SettingsError(f"ssl_ca {security.ssl_ca}: {(error.strerror or str(error)).lower()}") from None
    if security.ssl_cert is not None:
        _try_certificate(context, security, password)
    return {
        "ssl_cafile": security.ssl_ca,
        "ssl_certfile": security.ssl_cert,
        "ssl_keyfile": security.ssl_key,
        "ssl_password": password,
        "ssl_check_hostname": security.ssl_check_hostname,
    }


def _try_certificate(context: ssl.SSLContext, security: Security, password: str) -> None:
    cert, key = security.ssl_cert, security.ssl_key
    assert cert is not None
    named = f"ssl_cert {cert}" + (f" with ssl_key {key}" if key else "")
    for flag, path in (("ssl_cert", cert), ("ssl_key", key)):
        try:
            if path is not None:
                open(path, "rb").close()
        except OSError as error:
            raise SettingsError(f"{flag} {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            why = "the key is another certificate's"
        elif reason in ("NO_START_LINE", "BAD_BASE64_DECODE"):
            why = "no certificate and key in PEM"
        elif password:
            why = "the key cannot be opened with this password"
        else:
            why = "the key cannot be opened: it may need a password (ssl_key_password)"
        raise SettingsError(f"{named}: {why}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{named}: {error}") from None


def _sasl(security: Security) -> dict[str, Any]:
    mechanism, username = security.sasl_mechanism, security.sasl_username or ""
    if mechanism == OAUTH:
        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": Tokens(security)}
    if "\0" in username + (security.secret("sasl_password") or ""):
        raise SettingsError("sasl_username and sasl_password must not hold a zero byte")
    if mechanism != "PLAIN":  # RFC 5802 section 5.1: kafka-python 3.0.12 does not do it
        username = username.replace("=", "=3D").replace(",", "=2C")
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": username,
        "sasl_plain_password": security.secret("sasl_password") or "",
    }
