"""The contest: champion, challengers and window PCA on the same ground, and whether the challenger is promoted.

A challenger is promoted where, overall and for each group of streams, it

* keeps the false-alarm promise on held-out normal readings: so many episodes are no surprise under it (Poisson, 95 %);
* finds no less of the planted faults than the champion, beyond noise. Both see the same faults, so they are compared in
  pairs, by planting and kind: less by more than ``LEAST_LOSS`` and by more than ``NOISE`` standard errors is less, and
  so is less by more than ``MOST_LOSS``, however noisy. Where the champion clearly breaks the promise, what it finds is
  no measure, since one that always alarms finds all: the baseline's is then, which is calibrated on the same data;
* finds no fewer of the past faults that an operator confirmed; the incidents of one fault count once.

One with other channels, or a longer window, is promoted only by hand; so is one where nothing could be planted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

from detector.engine.model import Model
from schemas.contest import Contender, Contest, Decision, Role, Row
from schemas.moment import format_time
from trainer.faults import KINDS
from trainer.retrain.ground import PLANTINGS, Ground, Run
from trainer.retrain.promised import CHANCE, promised_rate

#: One-sided 95 %, and shares of the planted faults. Of two models fitted on data of a day apart, one was seen to find
#: two or three faults of a hundred more while its threshold was the lower: were that a loss, only lower and lower
#: thresholds would pass, and the promise would wear away. What sinks slowly is still caught: window PCA, fitted anew,
#: is always in the contest.
NOISE, LEAST_LOSS, MOST_LOSS = 1.645, 0.05, 0.1

#: A candidate has to find so much more than a cheaper one to be preferred, and more than noise.
LEAST_GAIN = 0.01

ALL = ""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entrant:
    """A model in the contest."""

    role: Role
    model: Model
    run: Run
    cost: float = 0.0
    """Operations of a window's score, to compare."""
    version: str | None = None

    @cached_property
    def rate(self) -> float:
        """Episodes per stream and day that it promises."""
        return promised_rate(self.model)

    def shares(self, streams: frozenset[str] | None) -> Floats:
        """Share of faults found, by planting and kind ``[P, kinds]``; NaN where there was none."""
        hits, count = (np.zeros((PLANTINGS, len(KINDS))) for _ in range(2))
        for planting, kind, stream, found in self.run.found:
            if streams is None or stream in streams:
                hits[planting, kind] += found
                count[planting, kind] += 1
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, hits / np.maximum(count, 1), np.nan)

    def row(self, group: str, streams: frozenset[str] | None) -> Row:
        """What it did on these streams; None: on all."""

        def of(stream: str) -> bool:
            return streams is None or stream in streams

        episodes = sum(count for stream, count in self.run.episodes.items() if of(stream))
        days = sum(d for stream, d in self.run.days.items() if of(stream))
        planted: dict[str, int] = {}
        hits: dict[str, int] = {}
        for _, kind, stream, found in self.run.found:
            if of(stream):
                planted[KINDS[kind].value] = planted.get(KINDS[kind].value, 0) + 1
                hits[KINDS[kind].value] = hits.get(KINDS[kind].value, 0) + found
        confirmed = [found for stream, found in self.run.confirmed if of(stream)]
        return Row(
            group=group, episodes=episodes, stream_days=days, promised=self.rate * days,
            keeps=float(poisson.sf(episodes - 1, max(self.rate * days, 1e-9))) >= CHANCE,
            found={kind: hits[kind] / count for kind, count in planted.items()}, planted=planted,
            delay=float(np.median(self.run.delays)) if self.run.delays and streams is None else None,
            confirmed=sum(confirmed), of_confirmed=len(confirmed),
        )  # fmt: skip


def decide(ground: Ground, entrants: Sequence[Entrant], groups: Mapping[str, frozenset[str]]) -> Contest:
    """Which challenger is weighed against the champion, and whether it is promoted. ``groups``: streams by name.

    ``entrants``: at most one champion, some challengers, one baseline (which is a challenger, too).
    """
    champion = next((e for e in entrants if e.role == "champion"), None)
    baseline = next(e for e in entrants if e.role == "baseline")
    best = _best([e for e in entrants if e.role != "champion"])
    return Contest(
        start=format_time(int(ground.times.min())),
        end=format_time(int(ground.times.max())),
        plantings=PLANTINGS,
        contenders=tuple(_contender(entrant, groups) for entrant in entrants),
        winner=list(entrants).index(best),
        decision=_decision(ground, best, champion, baseline, groups),
    )


def _contender(entrant: Entrant, groups: Mapping[str, frozenset[str]]) -> Contender:
    manifest = entrant.model.manifest
    rows = [entrant.row(ALL, None), *(entrant.row(name, streams) for name, streams in groups.items())]
    return Contender(
        role=entrant.role, model=manifest.model, version=entrant.version,
        false_alarms=manifest.calibration.false_alarms, rows=tuple(rows),
    )  # fmt: skip


def _best(candidates: Sequence[Entrant]) -> Entrant:
    """Of those that keep the promise (else of all), the cheapest that none beats."""
    honest = [e for e in candidates if e.row(ALL, None).keeps] or list(candidates)
    top = max(honest, key=lambda e: np.nan_to_num(_mean(e.shares(None))))
    near = [e for e in honest if not _less(e.shares(None), top.shares(None), LEAST_GAIN)]
    return min(near, key=lambda e: e.cost)


def _decision(
    ground: Ground,
    best: Entrant,
    champion: Entrant | None,
    baseline: Entrant,
    groups: Mapping[str, frozenset[str]],
) -> Decision:
    against = champion or baseline
    refusals: list[str] = []
    notes: list[str] = []
    if not ground.can_plant:
        return Decision(promote=False, by_hand=True, reasons=("no fault could be planted into so few readings",))
    if champion is not None:
        other = _other_shape(champion.model, best.model)
        if other:
            return Decision(promote=False, by_hand=True, reasons=(other,))
        if not champion.row(ALL, None).keeps and best.row(ALL, None).keeps:
            against = baseline
            notes.append("the champion breaks the promise: what it finds is no measure, window PCA's is")
    for name, streams in [(ALL, None), *groups.items()]:
        refusals += _refusals(best, against, champion, name, streams)
    if refusals:
        return Decision(promote=False, by_hand=True, reasons=(*refusals, *notes))
    row = best.row(ALL, None)
    good = [
        f"it keeps the promise: {row.episodes} false episodes in {row.stream_days:.1f} stream-days, "
        f"{row.promised:.1f} are promised",
        f"it finds {row.share:.0%} of the planted faults, {_name(against)} {against.row(ALL, None).share:.0%}",
    ]
    return Decision(promote=True, reasons=(*good, *notes))


def _refusals(
    best: Entrant, against: Entrant, champion: Entrant | None, name: str, streams: frozenset[str] | None
) -> list[str]:
    where = f" in the group {name}" if name else ""
    row, found = best.row(name, streams), []
    if not row.keeps:
        found.append(
            f"it breaks the promise{where}: {row.episodes} false episodes in {row.stream_days:.1f} stream-days, "
            f"{row.promised:.1f} are promised"
        )
    ours, theirs = best.shares(streams), against.shares(streams)
    if against is not best and (_less(ours, theirs, LEAST_LOSS) or _mean(theirs) - _mean(ours) > MOST_LOSS):
        found.append(
            f"it finds less{where}: {_mean(ours):.0%} of the planted faults, {_name(against)} {_mean(theirs):.0%}"
        )
    if champion is not None:
        before = champion.row(name, streams)
        if row.confirmed < before.confirmed:
            found.append(
                f"of {row.of_confirmed} confirmed faults{where} it finds {row.confirmed}, the champion "
                f"{before.confirmed}"
            )
    return found


def _other_shape(champion: Model, best: Model) -> str | None:
    """Why detectors cannot simply go on."""
    if not best.fits(champion):
        return "it has other channels than the champion: only by hand"
    before, now = champion.manifest.window, best.manifest.window
    return f"its window is {now} readings, the champion's {before}: only by hand" if now > before else None


def _less(ours: Floats, theirs: Floats, least: float) -> bool:
    """Ours are less than theirs by at least so much, and beyond noise; over pairs of plantings and kinds."""
    pairs = (theirs - ours)[~(np.isnan(ours) | np.isnan(theirs))]
    if not len(pairs):
        return False
    mean = float(pairs.mean())
    error = float(pairs.std(ddof=1)) / np.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
    return mean >= least and mean > NOISE * error


def _mean(shares: Floats) -> float:
    """Over kinds, each by all of its plantings."""
    with np.errstate(invalid="ignore"):
        known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else float("nan")


def _name(entrant: Entrant) -> str:
    return "window PCA" if entrant.role == "baseline" else "the champion"
