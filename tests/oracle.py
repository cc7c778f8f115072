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
    flags: list[str] = field(default_factory=list)
    opened: int | None = None
    events: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.model.graph, self.model.manifest.batching)

    def take(self, time: int, values: np.ndarray) -> tuple[float, bool]:
        """(score in thresholds or NaN, an incident is open after the reading)."""
        manifest = self.model.manifest
        W, interval = manifest.window, round(manifest.interval_s * 1e9)
        if self.newest is not None and time <= self.newest:
            return np.nan, self.opened is not None
        if self.newest is not None and (time - self.newest) > 1.5 * interval:
            missing = int((time - self.newest) / interval + 0.5) - 1
            if missing >= W:
                self.rows = []
            else:
                self.rows += [np.full(len(values), np.nan, np.float32)] * missing
        self.newest, self.seen = time, self.seen + 1
        self.rows = [*self.rows, values][-W:]
        score = self._score(values)
        self._follow(score, time)
        return score, self.opened is not None

    def _score(self, values: np.ndarray) -> float:
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
            return np.nan
        span = manifest.smoothing_span
        alpha = 2 / (span + 1)
        recent = self.scores[::-1][: int(np.ceil(2 * span)) if span > 1 else 1]
        weighted = [((1 - alpha) ** age, s) for age, s in enumerate(recent) if not np.isnan(s)]
        return sum(w * s for w, s in weighted) / sum(w for w, _ in weighted) / manifest.calibration.threshold

    def _follow(self, score: float, time: int) -> None:
        silent = self.name not in self.model.streams.names and self.seen <= self.policy.unseen
        self.flags.append("none" if np.isnan(score) or silent else "high" if score > 1 else "normal")
        recent = self.flags[-self.policy.n :]
        if self.opened is None:
            if self.flags[-1] == "high" and recent.count("high") >= self.policy.k:
                self.opened = time
                self.events.append(("opened", time, time))
        elif self.flags[-self.policy.quiet :] == ["normal"] * self.policy.quiet:
            self.events.append(("resolved", self.opened, time))
            self.opened = None
