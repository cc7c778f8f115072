"""Several schedules at a time: lanes that share a broker, of which one has another beside it that may be broken."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from integration.chaos.director import Director, Outcome
from integration.chaos.ground import DOORS, Door, DoorBroker, Ground
from integration.chaos.replica import FORKS
from integration.chaos.schedule import schedule


def play(
    seeds: Sequence[int], lanes: int = 2, without: str | None = None, loud: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each seed's schedule, as they end.

    Raises Missing where Java, Maven or Go is not there.
    """
    broken = [seed for seed in seeds if schedule(seed).breaks_broker]
    others = [seed for seed in seeds if seed not in set(broken)]
    if any(schedule(seed).proxied for seed in seeds):
        from toxiproxy import server

        server()  # here: its absence is said once, at the start
    folder = Path(tempfile.mkdtemp(prefix="residual-chaos-"))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(DoorBroker(DOORS * lanes))
        pipes = []
        for lane in range(lanes):
            doors = broker.doors[DOORS * lane : DOORS * (lane + 1)]
            pipes.append(stack.enter_context(_lane(broker.bootstrap, doors, folder / f"lane-{lane}", without, loud)))
        # the first lane has what may be broken, and helps out with the others when that is done
        waiting = {pipe: [broken, others] if pipe is pipes[0] else [others] for pipe in pipes}
        busy = [pipe for pipe in pipes if _hand_out(pipe, waiting[pipe])]
        while busy:
            for pipe in wait(busy):
                yield pipe.recv()
                if not _hand_out(pipe, waiting[pipe]):
                    busy.remove(pipe)
    if not any(folder.glob("*/seed-*")):
        shutil.rmtree(folder, ignore_errors=True)


def _hand_out(pipe: Connection, queues: list[list[int]]) -> bool:
    for queue in queues:
        if queue:
            pipe.send(queue.pop(0))
            return True
    pipe.send(None)
    return False


@contextlib.contextmanager
def _lane(bootstrap: str, doors: Sequence[Door], folder: Path, without: str | None, loud: bool) -> Iterator[Connection]:
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_run_lane, args=(theirs, bootstrap, list(doors), folder, without, loud))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(60)
        process.kill()


def _run_lane(
    pipe: Connection, bootstrap: str, doors: list[Door], folder: Path, without: str | None, loud: bool
) -> None:
    folder.mkdir(parents=True)
    ground = Ground(bootstrap, doors, folder)
    try:
        while (seed := _next(pipe)) is not None:
            pipe.send((seed, _play(seed, ground, folder, without, loud)))
    finally:
        ground.close()
        for model in ("plain", "seasonal"):
            shutil.rmtree(folder / model, ignore_errors=True)


def _next(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _play(seed: int, ground: Ground, folder: Path, without: str | None, loud: bool) -> Outcome:
    own = folder / f"seed-{seed}"
    own.mkdir()
    try:
        outcome = Director(schedule(seed), ground, own, without, loud).play()
    except Exception as error:  # of the harness: said, kept, and the next one goes on
        (own / "traceback.txt").write_text(traceback.format_exc())
        return Outcome(f"{type(error).__name__}: {error}", 0.0, folder=own)
    if outcome.folder is None:
        shutil.rmtree(own)
    return outcome
