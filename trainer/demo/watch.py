"""The detector at work: its service in a thread, over any installation, with everything it says kept for the plot."""

from __future__ import annotations

import queue
import threading

import numpy as np
from numpy.typing import NDArray

from detector.decoding.decoded import Decoded
from detector.decoding.json_readings import JsonDecoder
from detector.engine.alerts import Published
from detector.engine.engine import Engine, Scored
from detector.engine.model import Model
from detector.loading import policy
from detector.observer import Observer
from detector.service import Service
from schemas.settings import DetectorSettings
from trainer.demo.installation import Installation

Times = NDArray[np.int64]
Floats = NDArray[np.float64]


class Track(Observer):
    """Times ``[N]`` ns, scores ``[N]`` in thresholds and expected values ``[N, C]`` of everything scored."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._lock = threading.Lock()
        self._parts: list[tuple[Times, Floats, NDArray[np.float32]]] = []

    def batch(self, records: int, decoded: list[Decoded], scored: Scored, engine: Engine) -> None:  # noqa: ARG002
        """See ``Observer.batch``."""
        times = np.concatenate([d.readings.times for d in decoded])
        with self._lock:
            self._parts.append((times, scored.score, scored.expected))

    def columns(self) -> tuple[Times, Floats, NDArray[np.float32]]:
        """Times, scores, expected values."""
        with self._lock:
            if not self._parts:
                return np.empty(0, np.int64), np.empty(0), np.empty((0, self._channels), np.float32)
            times, scores, expected = zip(*self._parts, strict=True)
        return np.concatenate(times), np.concatenate(scores), np.concatenate(expected)


class Watch:
    """A running detector. ``alerts``: what it published, in order, once it is visible."""

    def __init__(self, where: Installation, group: str, model: Model, settings: DetectorSettings) -> None:
        self.model = model
        self.track = Track(len(model.manifest.channels))
        self.alerts: queue.SimpleQueue[Published] = queue.SimpleQueue()
        self.error: Exception | None = None
        self._where, self._group, self._settings = where, group, settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=group, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            engine = Engine(self.model, policy(self._settings, self.model), self._settings.threads)
            log = self._where.member(self._group)
            decoder = JsonDecoder(self.model.manifest.channel_names, log.topic)
            Service(log, engine, decoder, self._settings, self.track, self._stop, on_published=self.alerts.put).run()
        except Exception as error:  # noqa: BLE001 — the main thread raises it
            self.error = error
