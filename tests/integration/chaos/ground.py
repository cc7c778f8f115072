"""What a lane of schedules runs on: a broker, doors to it through proxies, and a broker that may be broken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from broker import Broker, free_port
from integration.chaos.traffic import LEARNED
from tiny_model import tiny_model
from toxiproxy import Proxy, Toxiproxy
from troubles import KNOWN

from detector.adapters.folder import write_model
from detector.adapters.store import Store
from detector.engine.model import Model
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
            write_model(_models(seasonal)[0], folder)
        return folder

    def store(self, seasonal: bool, folder: Path) -> Path:
        """A store of its own for a schedule, under ``folder``: several models, of which one serves."""
        store = Store(str(folder / "store"))
        for number, model in enumerate(_models(seasonal)):
            write_model(model, folder / f"model-{number}")
            version = store.add("default", folder / f"model-{number}")
            if number == 0:
                store.promote("default", version, "director")
        return folder / "store"


def _models(seasonal: bool) -> list[Model]:
    """One that was fitted, one of another level, spread and threshold, and one of another window."""
    season = Season(period_s=40, bins=4) if seasonal else None
    plain = tiny_model(streams=LEARNED, known=KNOWN, span=2, season=season)
    other = tiny_model(streams=LEARNED, known=KNOWN, span=4, season=season, threshold=2.0)
    values = other.streams
    moved = replace(values, loc=values.loc + np.float32(0.3), scale=values.scale * np.float32(1.3))
    return [
        plain,
        replace(other, streams=moved),
        tiny_model(streams=LEARNED[:-1], known=KNOWN, span=2, season=season, window=6, threshold=4.0),
    ]
