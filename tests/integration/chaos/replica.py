"""One process of a detector, as ``detector run`` would be: but it strikes where the schedule says so.

Nothing in the product knows of it: the process hands a callback to the service, which is told of every step. Processes
are forked from one that has everything imported, so that one starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from integration.chaos.schedule import HASTY_DELIVERY_S, Strike, What
from kafka.producer.transaction_manager import TransactionManager

from detector.adapters import kafka_clients, kafka_publisher
from detector.adapters.kafka_publisher import Publisher
from detector.adapters.port import Step
from detector.checkpoints import Stored
from detector.restoration import Restoration
from detector.run import kafka, run
from schemas.errors import ResidualError
from schemas.settings import DetectorSettings

#: Makes processes whose parent has imported this module and started no thread.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

#: Seconds that a process waits for what it asked for. A broker needs 4 to start again, or several times that.
ASK_S = 120.0

#: Seconds that a question to the broker may take, and connecting: longer than any outage of a schedule.
PATIENCE_S = 40.0

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """What a process is to be."""

    settings: Mapping[str, Any]
    strikes: tuple[Strike, ...]
    session_s: float
    transaction_s: float
    hasty: bool
    log: str
    """File for what it says."""
    without: str | None = None
    """The protection that is taken out."""
    loud: bool = False
    """The Kafka client says all that it does."""


def start(order: Order) -> tuple[Any, Connection]:
    """A process, and the end of a pipe on which it tells of its steps and asks for strikes."""
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_main, args=(order, theirs))
    process.start()
    theirs.close()
    return process, ours


def _main(order: Order, pipe: Connection) -> None:
    if sys.platform == "linux":  # a frozen process does not notice that its parent is gone
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    faulthandler.register(signal.SIGUSR1)  # where it stands, when somebody wants to know
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("kafka").setLevel(logging.DEBUG if order.loud else logging.CRITICAL)
    if order.without is not None:
        PROTECTIONS[order.without]()
    try:
        run(DetectorSettings.load(order.settings), lambda settings: _log(settings, order), Striker(order.strikes, pipe))
    except ResidualError as error:
        print(f"detector: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _log(settings: DetectorSettings, order: Order) -> Any:
    client = {}
    if order.hasty:
        kafka_clients.DELIVERY_TIMEOUT_MS = kafka_publisher.DELIVERY_TIMEOUT_MS = int(1000 * HASTY_DELIVERY_S)
        client = {"request_timeout_ms": int(1000 * HASTY_DELIVERY_S) - 100}  # more than the longest fetch's 2 s
    return kafka(settings, session_timeout_s=order.session_s, transaction_timeout_s=order.transaction_s, client=client)


class Striker:
    """The callback: counts the steps, tells of each, and strikes."""

    def __init__(self, strikes: tuple[Strike, ...], pipe: Connection) -> None:
        self._left = {strike: strike.occurrence for strike in strikes}
        self._pipe = pipe
        self._seen: set[Step | None] = {None}

    def __call__(self, step: Step) -> None:
        """A step is reached."""
        self._tell("step", step.value)
        self._seen.add(step)
        for strike in [s for s in self._left if s.step is step and s.after in self._seen]:
            self._left[strike] -= 1
            if not self._left[strike]:
                del self._left[strike]
                self._strike(strike)

    def _strike(self, strike: Strike) -> None:
        self._tell("strike", strike)
        match strike.what:
            case What.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case What.STOP:
                os.kill(os.getpid(), signal.SIGTERM)
            case What.FREEZE:
                os.kill(os.getpid(), signal.SIGSTOP)
            case What.FULL:
                _fill_disk()
            case _:
                if self._pipe.poll(ASK_S):
                    self._pipe.recv()

    def _tell(self, what: str, said: Any) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send((what, said))


def _fill_disk() -> None:
    """No file takes a byte any more (EFBIG), and what is said goes where there is no space (ENOSPC)."""
    with contextlib.suppress(OSError):
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        os.dup2(full, 2)
        os.close(full)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


# -- one protection taken out ------------------------------------------------------------------------------------------


def _without_futures() -> None:
    """What became of the sends is not asked."""
    send = Publisher._send

    def sent(self: Publisher, *arguments: Any) -> list[Any]:
        send(self, *arguments)
        return []

    Publisher._send = sent


def _without_metadata() -> None:
    """The broker is told the group, and not as which member of which generation."""
    hand_over = TransactionManager.send_offsets_to_transaction
    TransactionManager.send_offsets_to_transaction = lambda self, offsets, member: hand_over(
        self, offsets, member.group_id
    )


def _without_checkpoints() -> None:
    """R says that they are there; nobody looks."""
    parse = Stored.parse
    Stored.parse = lambda *arguments, **named: replace(parse(*arguments, **named), checkpoints=[])


def _without_replay() -> None:
    """The records of [R, C) move nothing."""
    assert callable(Restoration._replay)
    Restoration._replay = lambda self: None


PROTECTIONS: Mapping[str, Callable[[], None]] = {
    "futures": _without_futures,
    "metadata": _without_metadata,
    "checkpoints": _without_checkpoints,
    "replay": _without_replay,
}
