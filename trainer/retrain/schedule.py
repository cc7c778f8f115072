"""``trainer retrain --schedule``: one run every night at a time of day, until it is told to stop."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from schemas.errors import ResidualError, TemporaryError, UserError
from trainer.retrain.settings import RetrainSettings

#: Minutes until a run that failed for want of something that may come back is tried again.
AGAIN_MIN = 15.0

#: Seconds between looks for drift.
LOOK_S = 3600.0

#: Such tries in one night.
TRIES = 4


def due(now: datetime, schedule: str) -> datetime:
    """The next moment of this time of day, local time, after ``now``.

    >>> due(datetime(2026, 11, 26, 2, 30), "02:30").isoformat(), due(datetime(2026, 11, 26, 2, 29), "02:30").isoformat()
    ('2026-11-27T02:30:00', '2026-11-26T02:30:00')
    """
    hour, minute = map(int, schedule.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return at if at > now else at + timedelta(days=1)


def every_night(
    settings: RetrainSettings,
    run: Callable[[], None],
    look: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Run each night until SIGTERM or ctrl-C; a night that fails is told, and the next one comes all the same.

    ``look``: whether something has drifted, where a run may come early for that: once between two nights.
    """
    assert settings.schedule is not None
    with _stopping() as stop:
        while not stop.is_set():
            at = due(datetime.now(), settings.schedule) + timedelta(seconds=random.uniform(0, settings.jitter))
            say(f"the next run is at {at:%Y-%m-%d %H:%M}")
            if _waited(at, settings.early, look, say, stop):
                say("something has drifted: a run comes early")
                _one_night(run, say, stop)
                _waited(at, False, look, say, stop)
            if not stop.is_set():
                _one_night(run, say, stop)


def _waited(
    until: datetime, early: bool, look: Callable[[], bool], say: Callable[[str], None], stop: threading.Event
) -> bool:
    """Wait, and look every hour where a run may come early; True where it has to."""
    while not stop.is_set():
        left = (until - datetime.now()).total_seconds()
        if left <= 0:
            break
        if stop.wait(min(left, LOOK_S) if early else left) or not early or left <= LOOK_S:
            break
        try:
            if look():
                return True
        except ResidualError as error:
            say(f"warning: nobody knows whether something has drifted: {error}")
    return False


def _one_night(run: Callable[[], None], say: Callable[[str], None], stop: threading.Event) -> None:
    for _ in range(TRIES):
        try:
            run()
        except UserError as error:
            say(f"tonight nothing was promoted: {error}")
        except TemporaryError as error:
            say(f"it is tried again in {AGAIN_MIN:g} min: {error}")
            if not stop.wait(60 * AGAIN_MIN):
                continue
        return


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; a second one ends the process the hard way. ctrl-C interrupts at once."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
