"""A real broker with TLS, SASL and ACLs, with authorities, certificates and a token endpoint of its own.

Listeners of one broker, all on 127.0.0.1: in the clear for the tests themselves (ANONYMOUS may do everything), TLS with
a right, an expired and another host's certificate, TLS that asks for a client certificate, SASL with and without TLS,
and SASL that offers one mechanism only.
"""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from broker import Broker, free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

HOST = "127.0.0.1"
AUDIENCE, ISSUER = "residual-test", "https://issuer.test"

#: Passwords by user; each is unlike anything else, so that a test can look for it in whatever is printed.
PASSWORDS = {name: f"pw-{name}-Xq7" for name in ("alice", "limited", "teller", "learner", "odd,user=1")}
KEY_PASSWORD = "pw-key-Zr9"
CLIENT_SECRET = "secret-client-Kw3"

#: Name of each listener, its security protocol, and its mechanisms.
LISTENERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "TLS": ("SSL", ()),
    "EXPIRED": ("SSL", ()),
    "OTHERHOST": ("SSL", ()),
    "MUTUAL": ("SSL", ()),
    "LOGIN": ("SASL_SSL", ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")),
    "CLEARLOGIN": ("SASL_PLAINTEXT", ("PLAIN", "SCRAM-SHA-256")),
    "ONLYSCRAM": ("SASL_SSL", ("SCRAM-SHA-512",)),
}


class Authority:
    """A certificate authority, and what it signed, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self._subject, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self.certificate))

    def issue(
        self, name: str, host: str | None = None, days: int = 1, password: str | None = None
    ) -> tuple[Path, Path]:
        """A certificate and its key; ``days`` < 0: expired; ``host``: an IP address or a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[x509.ExtensionType] = [x509.BasicConstraints(ca=False, path_length=None)]
        if host is not None:
            extensions.append(x509.SubjectAlternativeName([_general(host)]))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key, *extensions, days=days)
        files = self._folder / f"{name}-cert.pem", self._folder / f"{name}-key.pem"
        files[0].write_bytes(_pem(certificate))
        files[1].write_bytes(_key_pem(key, password))
        return files

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey, password: str | None = None) -> bytes:
    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


class Issuer:
    """A token endpoint over HTTP on 127.0.0.1: client credentials in, signed JSON Web Tokens out, and its public key.

    ``behaviour``: "well", "down" (503), "silent" (no answer), "expired" (tokens of yesterday), "echo" (refuses and
    sends the secret back), "redirect" (to an address that counts), "html", "text" (JSON that is no object), "mac" (a
    token of another kind), "spaces" (what cannot be a token), "short" (tokens good for 3 s).
    """

    def __init__(self) -> None:
        self.behaviour = "well"
        self.issued = self.elsewhere = 0
        self._key = rsa.generate_private_key(65537, 2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, json.dumps({"keys": [issuer.public()]}).encode())

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"]))
                with suppress(OSError):  # the client has given up
                    if self.path.startswith("/elsewhere"):
                        issuer.elsewhere += 1
                    if issuer.behaviour == "redirect":
                        self.send_response(307)
                        self.send_header("Location", f"{issuer.url}/elsewhere")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                    else:
                        self._send(*issuer.answer(form, self.headers.get("Authorization", "")))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def public(self) -> dict[str, str]:
        """The public key as a JSON Web Key."""
        numbers = self._key.public_key().public_numbers()
        return {
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1",
            "n": _b64(numbers.n.to_bytes(256, "big")), "e": _b64(numbers.e.to_bytes(3, "big")),
        }  # fmt: skip

    def answer(self, form: bytes, authorization: str) -> tuple[int, bytes]:
        """Status and body for a request."""
        fields = urllib.parse.parse_qs(form.decode())
        kind, _, login = authorization.partition(" ")
        client, _, secret = base64.b64decode(login).decode().partition(":")
        if self.behaviour == "silent":
            time.sleep(30)
        if self.behaviour == "down":
            return 503, b""
        other = {
            "html": b"<html>log in here</html>",
            "text": b'"token"',
            "mac": b'{"access_token": "t", "token_type": "mac"}',
            "spaces": b'{"access_token": "t\\u0001auth=evil", "token_type": "bearer"}',
        }
        if self.behaviour in other:
            return 200, other[self.behaviour]
        if self.behaviour == "echo":
            said = {"error": "invalid_client", "error_description": f"no such secret: {urllib.parse.unquote(secret)}"}
            return 401, json.dumps(said).encode()
        if kind != "Basic" or urllib.parse.unquote_plus(secret) != CLIENT_SECRET:
            return 401, json.dumps({"error": "invalid_client"}).encode()
        if fields.get("grant_type") != ["client_credentials"]:
            return 400, json.dumps({"error": "unsupported_grant_type"}).encode()
        self.issued += 1
        life = {"short": 3, "expired": -86_400}.get(self.behaviour, 300)
        token = self.token(urllib.parse.unquote_plus(client), life, fields.get("scope", ["kafka"])[0])
        said = {"access_token": token, "token_type": "Bearer", "expires_in": life if life > 0 else 300}
        return 200, json.dumps(said).encode()

    def claims(self, token: str) -> bytes:
        """What a token says."""
        middle = token.split(".")[1]
        return base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))

    def token(self, subject: str, life_s: int, scope: str) -> str:
        """A signed JSON Web Token."""
        now = int(time.time())
        issued_at = now - 1 if life_s > 0 else now + life_s - 60
        claims = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "iat": issued_at, "exp": now + life_s, "scope": scope}
        head = _b64(json.dumps({"alg": "RS256", "kid": "1"}).encode())
        said = f"{head}.{_b64(json.dumps(claims).encode())}"
        return f"{said}.{_b64(self._key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Secured:
    """The broker with its listeners, files and users. ``address(listener)``: HOST:PORT."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.other = Authority(folder, "authority"), Authority(folder, "other")
        self.client = self.authority.issue("alice")
        self.locked = self.authority.issue("locked", password=KEY_PASSWORD)
        self.stranger = self.other.issue("stranger")
        self.expired = self.authority.issue("bygone", days=-1)
        self.issuer = Issuer()
        self._ports = {name: free_port() for name in LISTENERS}
        certificates = {
            "EXPIRED": self.authority.issue("expired", HOST, days=-1),
            "OTHERHOST": self.authority.issue("otherhost", "elsewhere.test"),
        }
        right = self.authority.issue("right", HOST)
        self.broker = Broker(
            settings=dict(self._settings(folder, {name: certificates.get(name, right) for name in LISTENERS})),
            jvm=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.url}/keys"],
        )
        self._listeners()

    def start(self) -> Secured:
        """Start the broker and make its users."""
        self.broker.start()
        self.add_users(PASSWORDS)
        return self

    def add_users(self, passwords: Mapping[str, str]) -> None:
        """Make users of both kinds of SCRAM."""
        with KafkaAdminClient(bootstrap_servers=self.broker.bootstrap) as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                failed = admin.alter_user_scram_credentials([
                    UserScramCredentialUpsertion(user, mechanism, password.encode(), iterations=4096)
                    for user, password in passwords.items()
                ])  # fmt: skip
                assert not any(failed.values()), failed

    def close(self) -> None:
        """Stop everything."""
        self.broker.close()
        self.issuer.close()

    def address(self, listener: str) -> str:
        """HOST:PORT."""
        return f"{HOST}:{self._ports[listener]}"

    def allow(self, user: str, *rights: tuple[ResourceType, str, ACLOperation]) -> None:
        """Give a user rights on resources; a name that ends with * is a prefix."""
        acls = [
            ACL(
                f"User:{user}", "*", operation, ACLPermissionType.ALLOW,
                ResourcePattern(kind, name.removesuffix("*"),
                    ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL),
            )
            for kind, name, operation in rights
        ]  # fmt: skip
        everything = ACLFilter(
            f"User:{user}", "*", ACLOperation.ANY, ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )  # fmt: skip
        with KafkaAdminClient(bootstrap_servers=self.broker.bootstrap) as admin:
            failed = admin.create_acls(acls)["failed"]
            assert not failed, failed
            deadline = time.monotonic() + 20
            while len(admin.describe_acls(everything)[0]) < len(set(rights)):  # the broker learns of them a bit later
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def _listeners(self) -> None:
        listeners = {"PLAINTEXT": self.broker.port, **self._ports}
        known = {name: protocol for name, (protocol, _) in LISTENERS.items()}
        spoken = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **known}
        addresses = [f"{name}://{HOST}:{port}" for name, port in listeners.items()]
        self.broker._settings |= {
            "listeners": ",".join([*addresses, f"CONTROLLER://{HOST}:{self.broker.controller_port}"]),
            "advertised.listeners": ",".join(addresses),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in spoken.items()),
        }

    def _settings(self, folder: Path, certificates: Mapping[str, tuple[Path, Path]]) -> Iterator[tuple[str, str]]:
        yield "authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        yield "super.users", "User:ANONYMOUS;User:alice;User:CN=alice;User:CN=locked;User:odd,user=1"
        yield "sasl.oauthbearer.jwks.endpoint.url", f"{self.issuer.url}/keys"
        yield "sasl.oauthbearer.expected.audience", AUDIENCE
        yield "sasl.oauthbearer.expected.issuer", ISSUER
        yield "connections.max.reauth.ms", "60000"
        yield "connection.failed.authentication.delay.ms", "50"  # what a refused client waits for; 100 by default
        for name, (protocol, mechanisms) in LISTENERS.items():
            start = f"listener.name.{name.lower()}"
            if protocol.endswith("SSL"):
                cert, key = certificates[name]
                both = folder / f"{name}.pem"
                both.write_bytes(key.read_bytes() + cert.read_bytes())
                yield f"{start}.ssl.keystore.type", "PEM"
                yield f"{start}.ssl.keystore.location", str(both)
                yield f"{start}.ssl.truststore.type", "PEM"
                yield f"{start}.ssl.truststore.location", str(self.authority.file)
                yield f"{start}.ssl.client.auth", "required" if name == "MUTUAL" else "none"
            if mechanisms:
                yield f"{start}.sasl.enabled.mechanisms", ",".join(mechanisms)
            for mechanism in mechanisms:
                yield from _login(f"{start}.{mechanism.lower()}", mechanism)


def _login(start: str, mechanism: str) -> Iterator[tuple[str, str]]:
    module = "org.apache.kafka.common.security"
    if mechanism == "PLAIN":
        users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items() if name.isidentifier())
        yield f"{start}.sasl.jaas.config", f"{module}.plain.PlainLoginModule required {users};"
    elif mechanism == "OAUTHBEARER":
        yield f"{start}.sasl.jaas.config", f"{module}.oauthbearer.OAuthBearerLoginModule required ;"
        yield f"{start}.sasl.server.callback.handler.class", f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler"
    else:
        yield f"{start}.sasl.jaas.config", f"{module}.scram.ScramLoginModule required ;"


@contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """A running broker."""
    made = Secured(folder)
    try:
        yield made.start()
    finally:
        made.close()
