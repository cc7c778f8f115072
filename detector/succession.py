"""Succession: which model serves, and which one after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from detector.engine.engine import Engine
from detector.engine.model import Model
from schemas.errors import ModelError, ResidualError
from schemas.printable import printable

log = logging.getLogger(__name__)

#: Seconds that the end of the process waits for a look at the store that is under way.
GOODBYE_S = 5.0


class Succession:
    """One model for good: a folder's."""

    def next(self, now: Engine) -> Engine | None:
        """The engine of the model that has to serve from now on, warm; None: the one of ``now``. Never waits."""

    def refresh(self, now: Engine) -> Engine | None:
        """Likewise, after a look at which model it is; waits for it, and for the engine."""

    def find(self, model: str) -> Model | None:
        """An earlier model by its id (``Model.id``); None where it is not to be had."""

    def close(self) -> None:
        """Look no more."""


class Pointer(Protocol):
    """Where it says which model serves. Methods raise errors of ``ResidualError``."""

    def version(self) -> str:
        """The id (``Model.id``) of the model that has to serve."""

    def find(self, model: str) -> Model | None:
        """A model by its id; None where there is none."""


class Followed(Succession):
    """Looks at a pointer every ``period_s`` seconds, and makes the engine of the model that it names, in a thread.

    A pointer that cannot be read, a model that is damaged, not signed or of other channels: the one that serves goes
    on, and it is said once. ``make``: a model's engine under the settings, warm.
    """

    def __init__(self, pointer: Pointer, make: Callable[[Model], Engine], now: Model, period_s: float) -> None:
        self._pointer, self._make, self._period_s = pointer, make, period_s
        self._serves = now
        self._refused = ""
        self._said = ""
        self._ready: Engine | None = None
        self._turn = threading.Lock()  # one look at a time
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="champion", daemon=True)
        self._thread.start()

    def next(self, now: Engine) -> Engine | None:
        """See ``Succession``."""
        ready, self._ready = self._ready, None
        if ready is None or ready.model.id == now.model.id:
            return None
        self._serves = ready.model
        return ready

    def refresh(self, now: Engine) -> Engine | None:
        """See ``Succession``."""
        self._look()
        return self.next(now)

    def find(self, model: str) -> Model | None:
        """See ``Succession``."""
        try:
            return self._pointer.find(model)
        except ResidualError as error:
            log.warning("the earlier model %s… cannot be read: %s", model[:12], printable(str(error)))
            return None

    def close(self) -> None:
        """See ``Succession``."""
        self._over.set()
        self._thread.join(GOODBYE_S)

    def _watch(self) -> None:
        while not self._over.wait(self._period_s):
            self._look()

    def _look(self) -> None:
        """Make the engine of the model that is pointed at, where it is not the one that serves."""
        with self._turn:
            wanted = self._serves.id
            try:
                wanted = self._pointer.version()
                if wanted == (self._ready.model.id if self._ready else self._serves.id):
                    self._said = ""
                    return
                if wanted == self._serves.id:  # pointed back before its successor's turn came
                    self._ready = None
                    return
                if wanted != self._refused:
                    self._ready = self._make(self._found(wanted))
                    log.info("the model %s… is ready to serve", wanted[:12])
            except ResidualError as error:
                self._refused = wanted if wanted != self._serves.id else self._refused
                if str(error) != self._said:
                    self._said = str(error)
                    log.warning(
                        "the model %s… goes on serving: %s", self._serves.id[:12], printable(str(error))
                    )  # fmt: skip

    def _found(self, wanted: str) -> Model:
        found = self._pointer.find(wanted)
        if found is None:
            raise ModelError(f"the store has no version {wanted[:12]}…, which it points at: promote another")
        if not found.fits(self._serves):
            raise ModelError(
                f"the model {wanted[:12]}… has other channels than the one that serves: run it under another "
                "--group-id, or promote one of the same channels"
            )
        return found
