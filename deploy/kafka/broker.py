"""A single-node Apache Kafka (KRaft) for trying things out and for the tests: needs Java 17 or newer, and Maven once.

    python deploy/kafka/broker.py                 # in the foreground at 127.0.0.1:9092, until ctrl-C
    with Broker() as broker: use(broker.bootstrap)  # on free ports, e.g. in tests

Its data lies in a temporary folder and goes with it, however the process ends. Standard library only, so that it runs
before anything is set up. Errors:

* BrokerError     the broker did not start, or went away: the end of its log is in the message
  x Missing       Java or Maven is not there, or the artifacts could not be fetched: the message says what to install
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
LIB = HERE / "lib"  # git ignores it

START_SECONDS = 90.0  # from the start of the JVM until the broker answers: 4 s on an idle machine, more on a busy one
STOP_SECONDS = 20.0  # an orderly stop takes 1 to 3 s; past this the process is killed
FETCH_SECONDS = 600.0  # 45 MB by Maven: 10 s on a good line
OLDEST_JAVA = 17

# Below the ranges from which Linux (32768–60999) and macOS (49152–65535) take the ports of outgoing connections: while
# the broker is down between two starts, none of its clients can be given its port.
FREE_PORTS = range(20000, 32000)

# Waits for the end of its standard input, which the parent holds open, and then clears up what the parent could not:
# a JVM (the last process id it was told) and the folder. It also works where the parent got kill -9.
CARETAKER = """
while read -r line; do pid=$line; done
[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null && sleep 1
for _ in 1 2 3 4 5; do rm -rf "$1" && break; sleep 1; done
"""


class BrokerError(RuntimeError):
    """The broker did not start or went away: the end of its log is in the message."""


class Missing(BrokerError):
    """Something the broker needs is not on this machine: the message says what to install."""


def find_java() -> str:
    """Path of a Java of at least version 17, from JAVA_HOME or PATH. Raises Missing."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    wanted = f"a local Kafka needs Java {OLDEST_JAVA} or newer"
    if java is None:
        raise Missing(
            f"{wanted}: none found in {'JAVA_HOME ' + home if home else 'PATH'}; install a JDK, or set JAVA_HOME"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if said.returncode or not found:  # macOS has a stub at /usr/bin/java where none is installed
        raise Missing(f"{wanted}: {java} does not run; install a JDK, or set JAVA_HOME")
    if int(found[1]) < OLDEST_JAVA:
        raise Missing(f"{wanted}: {java} is {found[1]}; install a newer JDK, or set JAVA_HOME")
    return java


def kafka_version() -> str:
    """The version that the Maven project names."""
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text(encoding="utf-8"))
    if not found:
        raise BrokerError(f"{POM} names no kafka.version")
    return found[1]


def fetch_jars(lib: Path = LIB) -> Path:
    """Folder with the broker's jars, fetched by Maven where it is not there yet. Raises Missing.

    Fetched aside and renamed: a fetch that was interrupted does not count, and two at a time do no harm.
    """
    folder = lib / kafka_version()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("a local Kafka is fetched with Maven, and there is no mvn in PATH: install Maven")
    lib.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=lib) as aside:
        print(f"Fetching Apache Kafka {kafka_version()} with Maven (45 MB, once) …", file=sys.stderr, flush=True)
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={aside}/jars"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"Maven could not fetch Apache Kafka within {FETCH_SECONDS:.0f} s: try again") from None
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")] or ["no message"]
            raise Missing(f"Maven could not fetch Apache Kafka: {lines[0]}")
        try:
            os.rename(f"{aside}/jars", folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def free_port(but: int = 0) -> int:
    """A port of 127.0.0.1 on which nothing listens now, other than ``but``."""
    for port in random.sample(FREE_PORTS, 200):
        if port != but and not port_taken(port):
            return port
    raise BrokerError(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def port_taken(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def answers(port: int, timeout: float = 2.0) -> bool:
    """Whether a broker at 127.0.0.1 answers and counts itself as alive, so that topics can be created.

    It listens a moment before that. Asks by Metadata version 1 for no topics and counts the brokers in the answer.
    """
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            reply = connection.makefile("rb").read(12)  # size, correlation id, number of brokers
    except OSError:
        return False
    return len(reply) == 12 and struct.unpack(">iii", reply)[2] > 0


class Broker:
    """An Apache Kafka of one node, on 127.0.0.1. ``port`` 0 takes a free one; ``settings`` go over server.properties,
    ``jvm`` are further arguments of Java.

    As a context manager it starts on entry and is gone, data and all, on exit. Not for use by several threads.
    """

    def __init__(self, port: int = 0, settings: Mapping[str, str] | None = None, jvm: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        self.controller_port = free_port(but=self.port)
        self._settings = dict(settings or {})
        self._jvm = list(jvm)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._caretaker: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM, None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def folder(self) -> Path:
        """The temporary folder: data/, server.properties, broker.log."""
        if self._folder is None:
            raise BrokerError("the broker was never started, or was closed")
        return self._folder

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of what the JVM wrote."""
        with contextlib.suppress(OSError):
            return "\n".join((self.folder / "broker.log").read_text("utf-8", "replace").splitlines()[-lines:])
        return ""

    def start(self) -> Broker:
        """Start, or start again on the same port and data; returns when the broker answers. Raises BrokerError."""
        if self.pid is not None:
            return self
        java, jars = find_java(), fetch_jars()
        if port_taken(self.port):
            raise BrokerError(f"port {self.port} of 127.0.0.1 is taken: choose another with --port")
        command = [java, "-Xmx512m", "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={HERE}/log4j2.properties"]
        command += [*self._jvm, "-cp", f"{jars}/*"]
        try:
            if self._folder is None:
                self._make_folder(command)
            with (self.folder / "broker.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, "kafka.Kafka", str(self.folder / "server.properties")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                    start_new_session=True,  # ctrl-C in a terminal must not reach it: it is stopped in order
                )  # fmt: skip
            self._tell_caretaker(str(self._process.pid))
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Stop in order; data and port stay for the next start."""
        if self.pid is not None:
            self.resume()
            self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a power cut would (SIGKILL); data and port stay for the next start."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)
        if self._process is not None and self._process.poll() is None:
            os.waitpid(self._process.pid, os.WUNTRACED)  # on a busy machine its threads run on for a moment

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the process and remove its folder. May be called twice."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._caretaker is not None:
            self._stdin().close()
            self._caretaker.wait()
            self._caretaker = None

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_folder(self, java: list[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="residual-kafka-"))
        self._caretaker = subprocess.Popen(
            ["/bin/sh", "-c", CARETAKER, "caretaker", str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        properties = self._properties() | self._settings
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self._folder / "server.properties").write_text(text, encoding="utf-8")
        command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c"]
        command.append(str(self._folder / "server.properties"))
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise BrokerError(f"Kafka could not format its folder:\n{(done.stdout + done.stderr).strip()}")

    def _properties(self) -> dict[str, str]:
        broker, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": f"{self.folder}/data",
            "auto.create.topics.enable": "false",  # a typo in a topic's name must be an error
            "group.initial.rebalance.delay.ms": "0",
            # one node: nothing to replicate to, and 4 partitions of the inner topics instead of 50 start faster
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # after a kill, the controller waits for the old session to end before it takes the new one: 9 s by default
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.cleaner.dedupe.buffer.size": "16777216",  # 128 MB by default, of 512 MB of heap
        }

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.port):
            if self.pid is None:
                raise BrokerError(f"Kafka ended while starting; the end of its log:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(f"no answer after {START_SECONDS:.0f} s; the end of its log:\n{self.log_tail()}")
            time.sleep(0.1)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise BrokerError("the broker does not run")
        os.kill(self.pid, number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._tell_caretaker("")

    def _tell_caretaker(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody ended it: then what it would do is left to close
            os.write(self._stdin().fileno(), f"{line}\n".encode())

    def _stdin(self) -> IO[bytes]:
        assert self._caretaker is not None
        assert self._caretaker.stdin is not None
        return self._caretaker.stdin


def cluster_id() -> str:
    """A random UUID as Kafka writes it: 22 characters of URL-safe base64, of which the first is no dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run a broker in the foreground until ctrl-C, SIGTERM or SIGHUP (0); 1 where it fails, 2 where something lacks."""
    parser = argparse.ArgumentParser(description="A local Apache Kafka of one node; its data goes when it stops.")
    parser.add_argument("--port", type=int, default=9092, help="port on 127.0.0.1; 0: a free one (default 9092)")
    port = parser.parse_args(arguments).port
    if not 0 <= port <= 65535:
        parser.error(f"--port {port}: must lie between 0 and 65535")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    broker = Broker(port)
    try:
        broker.start()
        print(
            f"Apache Kafka {kafka_version()} listens at {broker.bootstrap} (ctrl-C stops it and removes its data)",
            flush=True,
        )
        while broker.pid is not None:
            time.sleep(0.2)
        print(f"Kafka ended by itself; the end of its log:\n{broker.log_tail()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second ctrl-C must not leave half of it behind
        print("\nstopping …", file=sys.stderr, flush=True)
        broker.stop()
        return 0
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 2 if isinstance(error, Missing) else 1
    finally:
        broker.close()


if __name__ == "__main__":
    sys.exit(main())
