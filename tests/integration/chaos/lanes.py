"""Several schedules at a time: lanes that share a broker, of which one has another beside it that may be broken."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from integration.chaos.director import Director, Outcome
from integration.chaos.ground import DOORS, Door, DoorBroker, Ground
from integration.chaos.replica import FORKS
from integration.chaos.schedule import schedule
from toxiproxy import server


@dataclass(frozen=True, slots=True)
class Task:
    """A schedule to play."""

    seed: int
    without: str | None = None
    """The protection that is taken out."""
    loud: bool = False
    """The logs hold what the Kafka client does, too."""


def play(tasks: Sequence[Task], folder: Path, lanes: int = 3) -> Iterator[tuple[Task, Outcome]]:
    """The outcome of each task, as they end. ``folder`` takes the logs of those that are not equal.

    Raises Missing where Java, Maven or Go is not there.
    """
    if any(schedule(task.seed).proxied for task in tasks):
        server()  # its absence is said once, at the start
    broken = [task for task in tasks if schedule(task.seed).breaks_broker]
    others = [task for task in tasks if not schedule(task.seed).breaks_broker]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(DoorBroker(DOORS * lanes, lasting=True))
        pipes = []
        for lane in range(lanes):
            doors = broker.doors[DOORS * lane : DOORS * (lane + 1)]
            pipes.append(stack.enter_context(_lane(broker.bootstrap, doors, folder / f"lane-{lane}")))
        # the first lane has what may be broken, and helps out with the others when that is done
        waiting = {pipe: [broken, others] if pipe is pipes[0] else [others] for pipe in pipes}
        busy = [pipe for pipe in pipes if _hand_out(pipe, waiting[pipe])]
        while busy:
            for pipe in wait(busy):
                try:
                    yield pipe.recv()
                except EOFError:
                    raise RuntimeError("a lane ended in the middle of a schedule: its words are above") from None
                if not _hand_out(pipe, waiting[pipe]):
                    busy.remove(pipe)


def _hand_out(pipe: Connection, queues: list[list[Task]]) -> bool:
    for queue in queues:
        if queue:
            pipe.send(queue.pop(0))
            return True
    pipe.send(None)
    return False


@contextlib.contextmanager
def _lane(bootstrap: str, doors: Sequence[Door], folder: Path) -> Iterator[Connection]:
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_run_lane, args=(theirs, bootstrap, list(doors), folder))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(60)
        process.kill()


def _run_lane(pipe: Connection, bootstrap: str, doors: list[Door], folder: Path) -> None:
    folder.mkdir(parents=True)
    ground = Ground(bootstrap, doors, folder)
    try:
        while (task := _next(pipe)) is not None:
            pipe.send((task, _play(task, ground, folder)))
    finally:
        ground.close()
        for model in ("plain", "seasonal"):
            shutil.rmtree(folder / model, ignore_errors=True)


def _next(pipe: Connection) -> Task | None:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _play(task: Task, ground: Ground, folder: Path) -> Outcome:
    name = f"seed-{task.seed}-" + (f"without-{task.without}-" if task.without else "")
    own = Path(tempfile.mkdtemp(prefix=name, dir=folder))
    try:
        outcome = Director(schedule(task.seed), ground, own, task.without, task.loud).play()
    except Exception as error:  # of the harness: said, kept, and the next one goes on
        (own / "traceback.txt").write_text(traceback.format_exc())
        return Outcome(f"{type(error).__name__}: {error}", 0.0, folder=own)
    if outcome.folder is None:
        shutil.rmtree(own)
    return outcome
