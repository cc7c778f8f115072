"""How a program reaches Kafka: in the clear or by TLS, and as whom. Settings that every such program shares.

Secrets come by variable, by file or in the settings file, and never as flags: the arguments of a process can be read by
every user of its machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

OAUTH: Mechanism = "OAUTHBEARER"

#: Bytes of a file that holds one secret, at most: a longer one is another file, named by mistake.
SECRET_BYTES = 65_536

#: Hosts to which a client secret may travel without TLS: it does not leave the machine.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Each secret and the setting that names a file with it.
SECRETS = {
    "ssl_key_password": "ssl_key_password_file",
    "sasl_password": "sasl_password_file",
    "oauth_client_secret": "oauth_client_secret_file",
}

TLS_ONLY = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "ssl_key_password_file")
LOGIN_ONLY = ("sasl_username", "sasl_password", "sasl_password_file")
OAUTH_ONLY = (
    "oauth_token_url", "oauth_client_id", "oauth_client_secret", "oauth_client_secret_file", "oauth_scope", "oauth_ca",
)  # fmt: skip


class Security(BaseModel):
    """Transport and login. A combination that makes no sense is refused when it is made."""

    security_protocol: Protocol = Field("PLAINTEXT", description="of the brokers' listener")
    ssl_ca: str | None = Field(None, description="PEM file of the authorities that the brokers' are of; the system's")
    ssl_cert: str | None = Field(None, description="PEM file of this program's certificate, where brokers ask for one")
    ssl_key: str | None = Field(None, description="PEM file of its private key; else it lies in ssl_cert's")
    ssl_key_password: SecretStr | None = Field(None, description="password of that key")
    ssl_key_password_file: str | None = Field(None, description="file that holds the password of that key")
    ssl_check_hostname: bool = Field(True, description="the brokers' certificates must name the host that is asked")
    sasl_mechanism: Mechanism | None = Field(None, description="how SASL_… logs in")
    sasl_username: str | None = Field(None, min_length=1, description="user of PLAIN and SCRAM")
    sasl_password: SecretStr | None = Field(None, description="password of PLAIN and SCRAM")
    sasl_password_file: str | None = Field(None, description="file that holds the password of PLAIN and SCRAM")
    oauth_token_url: str | None = Field(None, description="OAUTHBEARER: token endpoint (client credentials grant)")
    oauth_client_id: str | None = Field(None, min_length=1, description="OAUTHBEARER: client id")
    oauth_client_secret: SecretStr | None = Field(None, description="OAUTHBEARER: client secret")
    oauth_client_secret_file: str | None = Field(None, description="OAUTHBEARER: file that holds the client secret")
    oauth_scope: str | None = Field(None, min_length=1, description="OAUTHBEARER: scope that is asked for")
    oauth_ca: str | None = Field(None, description="OAUTHBEARER: PEM file of the endpoint's authorities; the system's")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        """Whether the program logs in."""
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def secret(self, name: str) -> str | None:
        """A secret, from its setting or from its file as it is now. Raises ValueError where the file holds none."""
        given: SecretStr | None = getattr(self, name)
        if given is not None:
            return given.get_secret_value()
        file: str | None = getattr(self, SECRETS[name])
        return None if file is None else read_secret(file, SECRETS[name])

    @model_validator(mode="after")
    def _a_connection(self) -> Security:
        for name, file in SECRETS.items():
            given = getattr(self, name)
            if given is not None and getattr(self, file) is not None:
                raise ValueError(f"{name} and {file} are both set: remove one")
            if given is not None and not given.get_secret_value():
                raise ValueError(f"{name} is empty: set it, or leave it out")
        self._check_tls()
        self._check_login()
        return self

    def _check_tls(self) -> None:
        if not self.tls:
            self._refuse(TLS_ONLY, "it is used with security_protocol SSL or SASL_SSL only")
            if not self.ssl_check_hostname:
                raise ValueError("ssl_check_hostname=false means nothing without TLS: security_protocol SSL, SASL_SSL")
        elif self.ssl_cert is None:
            self._refuse(("ssl_key",), "it needs ssl_cert, the certificate that it belongs to")
            self._refuse(("ssl_key_password", "ssl_key_password_file"), "it needs ssl_cert, whose key it opens")

    def _check_login(self) -> None:
        if not self.sasl:
            self._refuse(
                ("sasl_mechanism", *LOGIN_ONLY, *OAUTH_ONLY),
                "it is used with security_protocol SASL_SSL or SASL_PLAINTEXT only",
            )
        elif self.sasl_mechanism is None:
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_mechanism")
        elif self.sasl_mechanism == OAUTH:
            self._refuse(LOGIN_ONLY, "OAUTHBEARER logs in with oauth_client_id and its secret instead")
            self._need(("oauth_token_url", "oauth_client_id"), "oauth_client_secret")
            _check_url(self.oauth_token_url or "", self.oauth_ca)
        else:
            self._refuse(OAUTH_ONLY, f"it is used with sasl_mechanism OAUTHBEARER only, not {self.sasl_mechanism}")
            self._need(("sasl_username",), "sasl_password")

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is set: {why}")

    def _need(self, names: tuple[str, ...], secret: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"sasl_mechanism {self.sasl_mechanism} needs {name}")
        if getattr(self, secret) is None and getattr(self, SECRETS[secret]) is None:
            raise ValueError(
                f"sasl_mechanism {self.sasl_mechanism} needs {secret}, as a variable, in the settings file or by "
                f"{SECRETS[secret]}"
            )


def _check_url(url: str, ca: str | None) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("https", "http") or not host or port == 0 or parts.fragment:
        raise ValueError("oauth_token_url must be written as https://HOST/PATH")
    if parts.username or parts.password:
        raise ValueError("oauth_token_url holds a password: use oauth_client_id and its secret")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError(f"oauth_token_url: the secret would travel to {host} in the clear; use https://")
    if parts.scheme == "http" and ca is not None:
        raise ValueError("oauth_ca is set: it is used with an https:// address only")


def read_secret(path: str, setting: str) -> str:
    """The file's text without the end of its line."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(SECRET_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ValueError(f"{setting} {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{setting} {path} is no UTF-8 text: name the file that holds the secret alone") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or len(data) > SECRET_BYTES or "\n" in secret:
        raise ValueError(f"{setting} {path} must hold the secret alone, in one line")
    return secret
