"""The gate: a model that has gone blind to a kind of fault is not promoted.

* What was asked for (setting ``detect``) must be caught at that size.
* Of no kind may it need sizes more than one step larger than what serves, or than window PCA: one step is chance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.contest import Contest, Decision
from schemas.errors import SettingsError
from trainer.detectability.measure import GRIDS
from trainer.detectability.result import CAUGHT, Detectability, KindResult
from trainer.faults import KINDS, Kind

#: Steps of a kind's sizes that two models may lie apart.
STEPS = 1

#: Faults of a size below which nothing is said of it.
LEAST_PLANTED = 8


@dataclass(frozen=True)
class Requirement:
    """Faults of a kind and size that must be caught."""

    kind: Kind
    size: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Of ``KIND<=SIZE``. Raises SettingsError."""
        match = re.fullmatch(r"\s*(\w+)\s*<=\s*([0-9.]+)\s*", text)
        kind = match and match[1]
        if match is None or kind not in [one.value for one in KINDS]:
            kinds = ", ".join(one.value for one in KINDS)
            raise SettingsError(f"detect {text!r}: write KIND<=SIZE, such as shift<=4; there are {kinds}")
        grid = GRIDS[Kind(kind)]
        try:
            size = float(match[2])
        except ValueError:
            size = math.nan
        if not size >= grid.sizes[0]:
            raise SettingsError(
                f"detect {text!r}: the smallest {kind} that is planted is of {grid.sizes[0]:g} {grid.unit}"
            )
        return cls(Kind(kind), size)

    def refusal(self, found: Detectability) -> str | None:
        """Why it is not met."""
        result = found.of(self.kind.value)
        if result is None or not any(level.planted for level in result.levels):
            return f"whether it catches a {self.kind.value} is not known: none could be planted"
        smallest = result.smallest
        if smallest is not None and smallest.size <= self.size:
            return None
        return f"it catches a {self.kind.value} {_from(result)}; {self.size:g} is asked for"


def refusals(
    found: Detectability, others: Mapping[str, Detectability], wanted: Sequence[Requirement] = ()
) -> list[str]:
    """Why a model is blind; empty: it is not. ``others``: on the same readings, by what they are called."""
    said = [why for one in wanted if (why := one.refusal(found)) is not None]
    for name, other in others.items():
        for kind in KINDS:
            ours, theirs = found.of(kind.value), other.of(kind.value)
            if ours is not None and theirs is not None and _place(ours) > _place(theirs) + STEPS:
                said.append(f"it catches a {kind.value} {_from(ours)}, {name} {_from(theirs)}")
    return said


def _place(result: KindResult) -> int:
    """Number of the smallest size that is caught; one more than there are: none is."""
    sizes = [level.size for level in result.levels if level.planted >= LEAST_PLANTED]
    smallest = result.smallest
    if smallest is None:
        return len(sizes)
    return next((n for n, size in enumerate(sizes) if size >= smallest.size), len(sizes))


def _from(result: KindResult) -> str:
    if result.smallest is None:
        most = max((level.size for level in result.levels if level.planted), default=math.nan)
        return f"not even of {most:g} {result.unit} in {CAUGHT:.0%} of cases"
    return f"from {result.smallest.size:g} {result.unit} on"


def gated(contest: Contest, seen: Mapping[int, Detectability | None], required: Sequence[Requirement]) -> Contest:
    """The contest, its winner not promoted where it is blind to something. ``seen``: by the contenders' places."""
    found = seen[contest.winner]
    if found is None:
        why = ["what it can see could not be measured"] if required else []
    else:
        names = {n: "window PCA" if c.role == "baseline" else f"the {c.role}" for n, c in enumerate(contest.contenders)}
        others = {names[n]: other for n, other in seen.items() if n != contest.winner and other is not None}
        why = refusals(found, others, required)
    if not why:
        return contest
    kept = () if contest.decision.promote else contest.decision.reasons
    decision = Decision(promote=False, by_hand=True, reasons=(*kept, *why))
    return contest.model_copy(update={"decision": decision})
