"""Every way in which a connection to Kafka is refused, and what the operator is told: run against a real broker.

python tests/secured_cases.py      # writes docs/security-cases.md from what was really said
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS.parent / "deploy" / "kafka")] * (__name__ == "__main__")

import orjson  # noqa: E402
from forked import Commands, Ended  # noqa: E402
from kafka.admin import ACLOperation, ResourceType  # noqa: E402
from kafka_cluster import create_topic, produce, read_all  # noqa: E402
from pipeline import MODEL_CHANNELS, rows  # noqa: E402
from secured import CLIENT_SECRET, KEY_PASSWORD, PASSWORDS, Secured, secured  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from detector.adapters.folder import write_model  # noqa: E402

DOCUMENT = TESTS.parent / "docs" / "security-cases.md"

#: What no output may hold.
SECRETS = (*PASSWORDS.values(), KEY_PASSWORD, CLIENT_SECRET, "not-the-password-Qj5")

READINGS = "readings"
PARTITIONS = 2

Right = tuple[ResourceType, str, ACLOperation]
_TOPIC, _GROUP, _TRANSACTION = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
READ, WRITE, CREATE = ACLOperation.READ, ACLOperation.WRITE, ACLOperation.CREATE


def minimal(group: str) -> dict[str, Right]:
    """What SECURITY.md says that a detector needs, by a name for each; Create is needed where topics are missing."""
    return {
        "readings": (_TOPIC, READINGS, READ),
        "alerts": (_TOPIC, f"{group}-alerts", WRITE),
        "dead letters": (_TOPIC, f"{group}-dead", WRITE),
        "state, to read": (_TOPIC, f"{group}-state", READ),
        "state, to write": (_TOPIC, f"{group}-state", WRITE),
        "commands": (_TOPIC, f"{group}-commands", READ),
        "group": (_GROUP, group, READ),
        "transactions": (_TRANSACTION, f"{group}-*", WRITE),
    }


def to_create(group: str) -> list[Right]:
    """Where the topics of the detector's own are to be made by it."""
    return [(_TOPIC, f"{group}-{name}", CREATE) for name in ("alerts", "dead", "state", "commands")]


@dataclass(frozen=True)
class Place:
    """Where the cases run: the broker, a folder with the model and the certificates, the programs."""

    broker: Secured
    folder: Path
    commands: Commands

    def file(self, name: str) -> str:
        """Path of a file in the folder."""
        return str(self.folder / name)

    def written(self, name: str, content: str) -> str:
        """Path of a new file."""
        (self.folder / name).write_text(content)
        return self.file(name)

    def shown(self, text: str) -> str:
        """Without the ports and folders of this run."""
        for listener in ("TLS", "EXPIRED", "OTHERHOST", "MUTUAL", "LOGIN", "CLEARLOGIN", "ONLYSCRAM"):
            text = text.replace(self.broker.address(listener), "kafka.example:9093")
        text = text.replace(self.broker.broker.bootstrap, "kafka.example:9092").replace(f"{self.folder}/", "")
        text = text.replace(self.broker.issuer.url, "https://issuer.example")
        text = text.replace("http://127.0.0.1:1/", "https://issuer.example/")
        text = re.sub(r"127\.0\.0\.1:\d+", "kafka.example:9094", text)
        return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "REPLICA", text)


Setting = Callable[[Place], dict[str, str]]


@dataclass(frozen=True)
class Case:
    """A run of ``detector``: settings as variables, the exit code and words of its last line."""

    name: str
    settings: Setting
    code: int
    words: str
    behaviour: str = "well"
    lacks: str = ""
    program: tuple[str, ...] = ("run",)
    arguments: tuple[str, ...] = ()
    listener: str = "LOGIN"
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """A consumer group and topics of the case's own."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")

    def run(self, place: Place, **more: str) -> Ended:
        """Prepare the broker, run, and put it back. ``more``: other settings."""
        place.broker.issuer.behaviour = self.behaviour
        if self.lacks:
            self._give_rights(place)
        variables = {
            "MODEL": place.file("model"), "BOOTSTRAP_SERVERS": self._address(place), "READINGS_TOPIC": READINGS,
            "GROUP_ID": self.group, "ALERTS_TOPIC": f"{self.group}-alerts", "DEAD_LETTERS_TOPIC": f"{self.group}-dead",
            "STATE_TOPIC": f"{self.group}-state", "COMMANDS_TOPIC": f"{self.group}-commands", "STOP_AT_END": "true",
            "CHECKPOINT_AGE": "0", "LOG_LEVEL": "warning", "STARTUP_TIMEOUT": "20s", **self.settings(place),
        }  # fmt: skip
        environment = {f"RESIDUAL_{name}": value for name, value in (variables | more).items()} | self.extra
        try:
            return place.commands.run([*self.program, *self.arguments], environment)
        finally:
            place.broker.issuer.behaviour = "well"

    def _address(self, place: Place) -> str:
        return place.broker.broker.bootstrap if self.listener == "PLAINTEXT" else place.broker.address(self.listener)

    def _give_rights(self, place: Place) -> None:
        """All that is needed but what the case lacks; the topics are there, except where making them is lacking."""
        rights = minimal(self.group)
        if self.lacks not in ("nothing", "create", "nothing, topics there"):
            for name in self.lacks.split(" + "):
                del rights[name]
        given = list(rights.values())
        if self.lacks == "nothing":
            given += to_create(self.group)
        elif self.lacks != "create":
            for name, partitions in {"alerts": 2, "dead": 2, "state": 2, "commands": 1}.items():
                create_topic(place.broker.broker.bootstrap, f"{self.group}-{name}", partitions)
        place.broker.allow(self.group, *given)


def tls(place: Place) -> dict[str, str]:
    """TLS with the right authority."""
    return {"SECURITY_PROTOCOL": "SSL", "SSL_CA": str(place.broker.authority.file)}


def login(mechanism: str, user: str = "alice", password: str | None = None, protocol: str = "SASL_SSL") -> Setting:
    """A login by name and password; by default the right one."""

    def settings(place: Place) -> dict[str, str]:
        found = {
            "SECURITY_PROTOCOL": protocol, "SASL_MECHANISM": mechanism, "SASL_USERNAME": user,
            "SASL_PASSWORD": PASSWORDS[user] if password is None else password,
        }  # fmt: skip
        return found | ({"SSL_CA": str(place.broker.authority.file)} if protocol == "SASL_SSL" else {})

    return settings


def oauth(**more: str) -> Setting:
    """A login by token; by default with the right secret, from a file."""

    def settings(place: Place) -> dict[str, str]:
        return {
            "SECURITY_PROTOCOL": "SASL_SSL", "SSL_CA": str(place.broker.authority.file),
            "SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN_URL": f"{place.broker.issuer.url}/token",
            "OAUTH_CLIENT_ID": "alice", "OAUTH_SCOPE": "kafka",
            "OAUTH_CLIENT_SECRET_FILE": place.written("client-secret", more.get("secret", CLIENT_SECRET) + "\n"),
        } | {name: value for name, value in more.items() if name != "secret"}  # fmt: skip

    return settings


def certified(who: str, **more: str) -> Setting:
    """TLS with a client certificate: ``client``, ``locked``, ``stranger``, ``expired``."""

    def settings(place: Place) -> dict[str, str]:
        cert, key = getattr(place.broker, who)
        return tls(place) | {"SSL_CERT": str(cert), "SSL_KEY": str(key)} | more

    return settings


def with_file(base: Setting, setting: str, name: str, content: str | None) -> Setting:
    """A setting that names a file, of this content or none."""

    def settings(place: Place) -> dict[str, str]:
        path = place.file(name) if content is None else place.written(name, content)
        return {k: v for k, v in base(place).items() if k != setting.removesuffix("_FILE")} | {setting: path}

    return settings


def limited(name: str) -> Setting:
    """The user of a case that is about rights: called as its group."""
    return login("SCRAM-SHA-256", re.sub(r"\W+", "-", name.lower()).strip("-"), PASSWORDS["limited"])


WRONG = "not-the-password-Qj5"
DONE = "watched and published"


def works(name: str, settings: Setting, listener: str = "LOGIN", lacks: str = "") -> Case:
    """A case that is none."""
    return Case(name, settings, 0, "", listener=listener, lacks=lacks)


def right(name: str, lacks: str, words: str) -> Case:
    """A user who lacks something."""
    return Case(name, limited(name), 2, words, lacks=lacks)


CASES = (
    works("TLS", tls, "TLS"),
    works("TLS, a client certificate", certified("client"), "MUTUAL"),
    works("TLS, a client certificate whose key has a password",
          with_file(certified("locked"), "SSL_KEY_PASSWORD_FILE", "key-password", KEY_PASSWORD), "MUTUAL"),
    works("TLS and PLAIN", login("PLAIN")),
    works("TLS and SCRAM-SHA-256", login("SCRAM-SHA-256")),
    works("TLS and SCRAM-SHA-512, the password in a file",
          with_file(login("SCRAM-SHA-512"), "SASL_PASSWORD_FILE", "password", PASSWORDS["alice"] + "\n")),
    works("TLS and SCRAM, a user with a comma", login("SCRAM-SHA-512", "odd,user=1")),
    works("TLS and OAUTHBEARER", oauth()),
    works("SCRAM without TLS", login("SCRAM-SHA-256", protocol="SASL_PLAINTEXT"), "CLEARLOGIN"),
    works("Just the rights it needs, topics missing", limited("Just the rights it needs, topics missing"),
          lacks="nothing"),
    works("Just the rights it needs, topics there", limited("Just the rights it needs, topics there"),
          lacks="nothing, topics there"),
    # -- logins
    Case("Wrong password, PLAIN", login("PLAIN", password=WRONG), 2, "refuses the login of alice by PLAIN"),
    Case("Wrong password, SCRAM-SHA-256", login("SCRAM-SHA-256", password=WRONG), 2, "by SCRAM-SHA-256"),
    Case("Wrong password, SCRAM-SHA-512", login("SCRAM-SHA-512", password=WRONG), 2, "by SCRAM-SHA-512"),
    Case("Wrong password, without TLS", login("PLAIN", password=WRONG, protocol="SASL_PLAINTEXT"), 2,
         "refuses the login of alice by PLAIN", listener="CLEARLOGIN"),
    Case("Unknown user", login("SCRAM-SHA-512", "nobody", WRONG), 2, "refuses the login of nobody"),
    Case("Mechanism not offered", login("PLAIN"), 2, "does not offer sasl_mechanism PLAIN", listener="ONLYSCRAM"),
    Case("A login where none is asked for", login("PLAIN"), 2, "takes no login", listener="TLS"),
    Case("No login where one is asked for", tls, 2, "asks for a login"),
    Case("No login where one is asked for, without TLS", lambda _: {}, 2, "asks for a login", listener="CLEARLOGIN"),
    Case("The password's file is missing", with_file(login("PLAIN"), "SASL_PASSWORD_FILE", "no-file", None), 2,
         "no-file: no such file"),
    Case("The password as a flag", login("PLAIN"), 2, "can be read by every user",
         arguments=("--sasl-password", WRONG)),
    Case("A slip in a variable's name", login("PLAIN"), 2, "did you mean RESIDUAL_SASL_PASSWORD?",
         extra={"RESIDUAL_SASL_PASWORD": WRONG}),
    # -- certificates
    Case("The broker's certificate has expired", tls, 2, "its certificate has expired", listener="EXPIRED"),
    Case("The broker's certificate is another host's", tls, 2, "is another host's", listener="OTHERHOST"),
    Case("The broker's authority is not trusted",
         lambda place: {**tls(place), "SSL_CA": str(place.broker.other.file)}, 2, "not trusted", listener="TLS"),
    Case("The broker's authority is not among the system's", lambda _: {"SECURITY_PROTOCOL": "SSL"}, 2,
         "not trusted", listener="TLS"),
    Case("A client certificate is asked for", tls, 2, "asks for a client certificate", listener="MUTUAL"),
    Case("The client certificate is a stranger's", certified("stranger"), 2, "refuses the client certificate",
         listener="MUTUAL"),
    Case("The client certificate has expired", certified("expired"), 2, "refuses the client certificate",
         listener="MUTUAL"),
    Case("The key's password is wrong", certified("locked", SSL_KEY_PASSWORD=WRONG), 2,
         "cannot be opened with this password", listener="MUTUAL"),
    Case("The key has a password, and none is set", certified("locked"), 2, "it may need a password",
         listener="MUTUAL"),
    Case("The file of authorities is missing", with_file(tls, "SSL_CA", "no-file", None), 2, "no-file: no such file",
         listener="TLS"),
    Case("The file of authorities holds none", with_file(tls, "SSL_CA", "empty.pem", ""), 2, "no certificates in PEM",
         listener="TLS"),
    # -- protocols
    Case("In the clear to a TLS port", lambda _: {}, 2, "speaks TLS", listener="TLS"),
    Case("In the clear with a login to a TLS port", login("SCRAM-SHA-256", protocol="SASL_PLAINTEXT"), 2,
         "speaks TLS"),
    Case("TLS to a port in the clear", tls, 2, "speaks no TLS", listener="PLAINTEXT"),
    Case("Nobody listens", lambda place: {**tls(place), "BOOTSTRAP_SERVERS": "127.0.0.1:1", "STARTUP_TIMEOUT": "2s"},
         75, "no Kafka broker answered"),
    # -- tokens
    Case("The token endpoint is down", oauth(STARTUP_TIMEOUT="2s"), 75, "does not answer: HTTP 503", "down"),
    Case("Nobody listens at the token endpoint",
         lambda place: {**oauth()(place), "OAUTH_TOKEN_URL": "http://127.0.0.1:1/token", "STARTUP_TIMEOUT": "2s"},
         75, "does not answer: Connection refused"),
    Case("The token endpoint refuses the client", oauth(secret=WRONG), 2, "refuses the client alice"),
    Case("The token endpoint sends the secret back", oauth(), 2, "refuses the client alice", "echo"),
    Case("The token endpoint is a web page", oauth(), 2, "answers without an access token", "html"),
    Case("The token has expired", oauth(), 2, "refuses the token of", "expired"),
    # -- rights
    right("No right to the readings", "readings", "Read on readings"),
    right("No right to the group", "group", "this user lacks Read on the consumer group"),
    right("No right to write alerts", "alerts", "Write on no-right-to-write-alerts-alerts"),
    right("No right to write dead letters", "dead letters", "Write on no-right-to-write-dead-letters-dead"),
    right("No right to write the state", "state, to write", "Write on no-right-to-write-the-state-state"),
    right("No right to read the state", "state, to read", "Read on no-right-to-read-the-state-state"),
    right("No right to read commands", "commands", "Read on no-right-to-read-commands-commands"),
    right("No right to two of them", "alerts + commands", "Write on no-right-to-two-of-them-alerts"),
    right("No right to the transactional id", "transactions", "this user lacks Write on its transactional ids"),
    right("No right to make topics", "create", "may not make the topic"),
    # -- detector tell
    Case("tell: wrong password", login("SCRAM-SHA-256", password=WRONG), 2, "refuses the login of alice",
         program=("tell", "accept", "s")),
    Case("tell: no right to write commands", limited("tell: no right to write commands"), 2, "Write on",
         program=("tell", "accept", "s"), lacks="nothing, topics there"),
)  # fmt: skip

#: Users of the cases that are about rights, called as their groups.
LIMITED = tuple(case.group for case in CASES if case.lacks)


def prepare(folder: Path, broker: Secured) -> None:
    """A model, and readings that make one incident."""
    write_model(tiny_model(threshold=1.0), folder / "model")
    create_topic(broker.broker.bootstrap, READINGS, PARTITIONS)
    records = [
        (0, name.encode(), orjson.dumps({
            "stream": name, "timestamp": t * 1000, "values": dict(zip(MODEL_CHANNELS, values, strict=True)),
        }))
        for name, t, values in rows("a")
    ]  # fmt: skip
    produce(broker.broker.bootstrap, READINGS, records)
    broker.add_users(dict.fromkeys(LIMITED, PASSWORDS["limited"]))


def alerts(place: Place, group: str) -> int:
    """Events that were published."""
    return len(read_all(place.broker.broker.bootstrap, f"{group}-alerts"))


def last_line(place: Place, ended: Ended) -> str:
    """What the operator reads, made the same for every run."""
    lines = [line for line in ended.said.splitlines() if line.startswith("detector: ")]
    return place.shown(lines[-1]) if lines else DONE


def document(found: dict[str, tuple[str, int]]) -> str:
    """docs/security-cases.md."""
    rows_ = [f"| {name} | {line.removeprefix('detector: ')} | {code} |" for name, (line, code) in found.items()]
    return "\n".join([
        "# What the operator sees where a connection to Kafka is refused",
        "",
        "Written by `python tests/secured_cases.py` from real runs of `detector` against a real Apache Kafka with TLS,",
        "SASL and ACLs; `tests/integration/test_secured.py` holds it to what is said today. Every line is the whole of",
        "what stands on stderr, after `detector: `. Exit code 2: change something first; 75: start it again, it passes",
        "by itself.",
        "",
        "| Case | What the operator sees | Exit code |",
        "|---|---|---|",
        *rows_,
        "",
    ])  # fmt: skip


def places() -> Iterator[Place]:
    """One place, for all cases."""
    with tempfile.TemporaryDirectory(prefix="residual-secured-") as name, secured(Path(name)) as broker:
        prepare(Path(name), broker)
        commands = Commands(Path(name))
        try:
            yield Place(broker, Path(name), commands)
        finally:
            commands.close()


def main() -> None:
    """Run all cases and write the document."""
    for place in places():
        found = {}
        for case in CASES:
            ended = case.run(place)
            found[case.name] = last_line(place, ended), ended.code
            print(f"{ended.code:3d} {ended.seconds:4.1f} s  {case.name}: {found[case.name][0]}", flush=True)
        DOCUMENT.write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
