"""The engine's policy written out for one stream, one reading at a time: slow and plain, to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.scorer import Scorer


@dataclass
class OracleStream:
    """Follows one stream."""

    model: Model
    policy: Policy
    name: str
    rows: list[np.ndarray] = field(default_factory=list)
    newest: int | None = None
    seen: int = 0
    scores: list[float] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    set_back: bool = False
    calm: int = 0
    flags: list[str] = field(default_factory=list)
    opened: int | None = None
    ended: int | None = None
    flaps: int = 0
    events: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.model.graph, self.model.manifest.batching)

    def take(self, time: int, values: np.ndarray) -> tuple[float, bool]:
        """(score in thresholds or NaN, an incident is open after the reading)."""
        manifest = self.model.manifest
        W, interval = manifest.window, round(manifest.interval_s * 1e9)
        if self.newest is not None and time <= self.newest:
            self._drop(time)
            return np.nan, self.opened is not None or self.set_back
        self.late, self.set_back = [], False
        if self.newest is not None and (time - self.newest) > 1.5 * interval:
            missing = int((time - self.newest) / interval + 0.5) - 1
            if missing >= W:
                self.rows = []
            else:
                self.rows += [np.full(len(values), np.nan, np.float32)] * missing
        self.newest, self.seen = time, self.seen + 1
        self.rows = [*self.rows, values][-W:]
        score, raw = self._score(values)
        self._follow(score, raw, time)
        return score, self.opened is not None

    def _drop(self, time: int) -> None:
        """A clock was set back where five late readings in a row rise."""
        if time == self.newest or (self.late and time == self.late[-1]):
            return
        self.late = [*self.late, time] if self.late and time > self.late[-1] else [time]
        if len(self.late) == 5 and not self.set_back:
            self.set_back = True

    def _score(self, values: np.ndarray) -> tuple[float, float]:
        manifest, streams = self.model.manifest, self.model.streams
        raw = np.nan
        if len(self.rows) == manifest.window and not np.isnan(values).all():
            known = self.name in streams.names
            row = streams.names.index(self.name) if known else 0
            loc = streams.loc[row] if known else streams.group_loc
            scale = streams.scale[row] if known else streams.group_scale
            raw = float(self.scorer.score(np.stack(self.rows)[None], loc[None], scale[None])[0][0])
        self.scores.append(raw)
        if np.isnan(raw):
            return np.nan, np.nan
        span = manifest.smoothing_span
        alpha = 2 / (span + 1)
        recent = self.scores[::-1][: int(np.ceil(2 * span)) if span > 1 else 1]
        weighted = [((1 - alpha) ** age, s) for age, s in enumerate(recent) if not np.isnan(s)]
        threshold = manifest.calibration.threshold
        return sum(w * s for w, s in weighted) / sum(w for w, _ in weighted) / threshold, raw / threshold

    def _follow(self, score: float, raw: float, time: int) -> None:
        silent = self.name not in self.model.streams.names and self.seen <= self.policy.unseen
        if np.isnan(score) or silent:
            flag = "none"
        elif raw <= self.policy.release:
            flag = "fading" if score > 1 else "calm"
        else:
            flag = "high" if score > 1 else "normal"
        self.flags.append(flag)
        self.calm = self.calm + 1 if flag in ("calm", "fading") else 0
        recent = self.flags[-self.policy.n :]
        above = recent.count("high") + recent.count("fading")
        if self.opened is None:
            if flag in ("high", "fading") and above >= self.policy.k and "high" in recent:
                self._open(time)
        elif self.calm >= self.policy.quiet * 2**self.flaps:
            self.events.append(("resolved", self.opened, time))
            self.opened, self.ended = None, time

    def _open(self, time: int) -> None:
        again = self.ended is not None and time - self.ended <= self.policy.flap_after * 1e9
        self.flaps = min(self.flaps + 1, 3) if again else 0
        self.opened = time
        self.events.append(("opened", time, time))


@dataclass
class OracleBuffer:
    """The reorder buffer of one stream. Times are nanoseconds; what a reading is besides is the caller's."""

    lateness: int
    capacity: int
    released: int = -1
    waiting: dict[int, object] = field(default_factory=dict)
    duplicates: int = 0
    early: int = 0

    def take(self, time: int, what: object) -> list[tuple[int, object]]:
        """What goes on when a reading arrives, in this order; itself at once where it comes too late."""
        out = []
        if time <= self.released:
            out.append((time, what))
        elif time in self.waiting:
            self.duplicates += 1
        else:
            self.waiting[time] = what
        newest = max([self.released, *self.waiting])
        for oldest in sorted(self.waiting):
            due = oldest <= newest - self.lateness
            if not due and len(self.waiting) <= self.capacity:
                break
            self.early += not due
            out.append((oldest, self.waiting.pop(oldest)))
            self.released = oldest
        return out
