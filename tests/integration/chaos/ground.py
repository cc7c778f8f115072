"""What a lane of schedules runs on: a broker, doors to it through proxies, and a broker that may be broken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from broker import Broker, free_port
from integration.chaos.traffic import LEARNED
from tiny_model import tiny_model
from toxiproxy import Proxy, Toxiproxy
from troubles import KNOWN

from detector.adapters.folder import write_model
from schemas.manifest import Season

#: Doors of a lane, so that each of its replicas has one of its own.
DOORS = 4

#: Everything that a broker does now and then is done all the time.
HASTE = {
    "group.min.session.timeout.ms": "500",
    "log.cleaner.backoff.ms": "200",
    "log.segment.delete.delay.ms": "1000",
    # each of the many doors has threads of its own
    "num.network.threads": "1",
    "num.io.threads": "4",
}


@dataclass(frozen=True, slots=True)
class Door:
    """A way to the broker: whoever comes to ``proxy`` is told that the broker is there, and it hands on to ``port``."""

    port: int
    proxy: int


#: How often it looks for transactions that have timed out. Not so one that is killed: where it ends transactions in the
#: first second after its start, before its controller has it back, Kafka 4.3.1 takes their partitions for deleted, and
#: their ends are never written.
HASTE_OF_ENDS = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}


class DoorBroker(Broker):
    """A broker with doors beside its own port. What is done to a proxy befalls those only who came through it.

    ``lasting``: it is never killed.
    """

    def __init__(self, doors: int, lasting: bool) -> None:
        super().__init__(settings=HASTE | HASTE_OF_ENDS if lasting else HASTE)
        ports: set[int] = {self.port, self.controller_port}
        while len(ports) < 2 + 2 * doors:
            ports.add(free_port())
        free = sorted(ports - {self.port, self.controller_port})
        self.doors = [Door(port, proxy) for port, proxy in zip(free[:doors], free[doors:], strict=True)]

    def _properties(self) -> dict[str, str]:
        found = super()._properties()
        for number, door in enumerate(self.doors):
            found["listeners"] += f",DOOR{number}://127.0.0.1:{door.port}"
            found["advertised.listeners"] += f",DOOR{number}://127.0.0.1:{door.proxy}"
            found["listener.security.protocol.map"] += f",DOOR{number}:PLAINTEXT"
        return found


class Ground:
    """What one lane uses. What it needs is started when it is first asked for, and goes with ``close``."""

    def __init__(self, bootstrap: str, doors: Sequence[Door], folder: Path) -> None:
        self.bootstrap, self._doors = bootstrap, doors
        self.folder = folder
        self._stack = ExitStack()
        self._toxiproxy: Toxiproxy | None = None
        self._proxies: dict[Door, Proxy] = {}
        self._victim: DoorBroker | None = None

    @property
    def victim(self) -> DoorBroker:
        """A broker that may be killed and frozen; runs when it is handed out."""
        if self._victim is None:
            self._victim = DoorBroker(DOORS, lasting=False)
            self._stack.callback(self._victim.close)
        if self._victim.pid is not None:
            self._victim.resume()
        return self._victim.start()  # type: ignore[return-value]

    def proxies(self, broken: bool) -> list[Proxy]:
        """The lane's proxies to the broker, or to the one that may be broken; in order. Raises Missing without Go."""
        if self._toxiproxy is None:
            self._toxiproxy = self._stack.enter_context(Toxiproxy())
        doors = self.victim.doors if broken else self._doors
        for door in doors:
            if door not in self._proxies:
                self._proxies[door] = self._toxiproxy.proxy(f"{door.proxy}", door.proxy, door.port)
            self._proxies[door].heal()
        return [self._proxies[door] for door in doors]

    def close(self) -> None:
        """Everything that was started."""
        self._stack.close()

    def model(self, seasonal: bool) -> Path:
        """The folder of a model."""
        folder = self.folder / ("seasonal" if seasonal else "plain")
        if not folder.is_dir():
            season = Season(period_s=40, bins=4) if seasonal else None
            write_model(tiny_model(streams=LEARNED, known=KNOWN, span=2, season=season), folder)
        return folder
