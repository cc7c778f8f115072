"""The adversarial game: a critic learns to tell made windows from measured ones, a generator to make what it believes.

Hinge loss (Lim & Ye, "Geometric GAN", 2017) with spectral norm in the critic: no gradient penalty, so a step costs a
third. Both players see the same times of day. Measured windows and made ones get the same little noise, or the critic
would live by the steps of channels that have few values. The generator that is judged and kept is the mean over the
last steps' weights (Karras et al., ICLR 2018).

A game has no loss that falls: every LOOK steps what the generator makes is told from what was learned by classifiers
that know nothing of the critic, and the best one is kept. The game ends when it has not become better for PATIENCE
looks. And it is watched: where the critic wins for good, the generator makes always the same, or a number is no number,
it is lost, and the weights are the best ones of before.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from trainer.console import steps
from trainer.synthesis.critic import GROUP

#: Deviation of the noise that both kinds of windows get, normal scores.
DITHER = 0.03

#: Share of the weights' mean that stays in a step.
KEEPS = 0.998

#: Steps whose mean is watched.
WATCHED = 200

#: Steps from one look at what is made to the next, and looks without a better one after which it is enough.
LOOK, PATIENCE = 500, 5

#: The critic has won where its gap (real minus made, in the mean of WATCHED steps) stays above this; 2 is all that the
#: hinge asks for. The generator has collapsed where its windows differ by less than this share of how real ones do.
MOST_GAP, LEAST_VARIETY = 6.0, 0.3


G = TypeVar("G", bound=nn.Module)


class Seen(NamedTuple):
    """What the critic sees of a batch: axes are those of its own kind of data, B first."""

    made: Tensor
    context: Tensor
    real: Tensor
    real_context: Tensor


#: A generator's batch of so many, and as many measured ones of other moments than the made ones: that of the same
#: moment would be an answer.
Draw = Callable[[nn.Module, int], Seen]


@dataclass(frozen=True)
class Rules:
    """How long and how fast."""

    steps: int
    batch: int
    critic_steps: int
    """Of the critic for each of the generator."""
    rate: float
    critic_rate: float
    limit_s: float


@dataclass
class Course:
    """How the game went, a number a step."""

    gap: list[float] = field(default_factory=list)
    """How much more real measured windows look to the critic than made ones."""
    variety: list[float] = field(default_factory=list)
    """Deviation over made windows, over that of measured ones."""
    told_apart: list[float] = field(default_factory=list)
    """By how much classifiers told what it made from what was learned, at the start and at each look."""
    lost: str | None = None
    """Why it was broken off."""

    @property
    def looks_since_best(self) -> int:
        """How long it has not become better."""
        return len(self.told_apart) - 1 - int(np.argmin(self.told_apart)) if self.told_apart else 0


class Game(Generic[G]):
    """A generator against a critic."""

    def __init__(self, generator: G, critic: nn.Module, draw: Draw, rules: Rules) -> None:
        if rules.batch % GROUP:
            raise ValueError(f"a batch of {rules.batch} is no multiple of {GROUP}")
        self.generator, self.critic, self.rules, self._draw = generator, critic, rules, draw
        self.mean = copy.deepcopy(generator)
        self._moves = torch.optim.Adam(generator.parameters(), lr=rules.rate, betas=(0.0, 0.9))
        self._judges = torch.optim.Adam(critic.parameters(), lr=rules.critic_rate, betas=(0.0, 0.9))

    def play(self, look: Callable[[G], float], say: Callable[[str], None] = lambda _: None) -> Course:
        """Until it does not become better, or is lost; then ``generator`` has the best weights.

        ``look``: by how much what a generator makes is told from what was learned.
        """
        course, began = Course(), time.monotonic()
        best, kept = look(self.mean), copy.deepcopy(self.mean.state_dict())
        course.told_apart.append(best)
        for step in steps(self.rules.steps, "game", first=1):
            for _ in range(self.rules.critic_steps):
                gap, variety = self._judge()
            self._move()
            course.gap.append(gap)
            course.variety.append(variety)
            course.lost = _lost(course)
            late = time.monotonic() - began > self.rules.limit_s
            if course.lost is None and (step % LOOK == 0 or step == self.rules.steps or late):
                course.told_apart.append(look(self.mean))
                say(_said(course, self.rules.steps))
                if course.told_apart[-1] < best:
                    best, kept = course.told_apart[-1], copy.deepcopy(self.mean.state_dict())
            if course.lost is not None or late or course.looks_since_best >= PATIENCE:
                break
        self.mean.load_state_dict(kept)
        self.generator.load_state_dict(kept)
        return course

    def _judge(self) -> tuple[float, float]:
        with torch.no_grad():
            made, context, real, at = self._draw(self.generator, self.rules.batch)
        on_real, on_made = self.critic(_dithered(real), at), self.critic(_dithered(made), context)
        loss = relu(1 - on_real).mean() + relu(1 + on_made).mean()
        self._judges.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._judges.step()
        variety = made.std(0).mean() / real.std(0).mean().clamp(min=1e-9)
        return float((on_real.mean() - on_made.mean()).detach()), float(variety)

    def _move(self) -> None:
        made, context, _, _ = self._draw(self.generator, self.rules.batch)
        loss = -self.critic(_dithered(made), context).mean()
        self._moves.zero_grad()
        loss.backward()
        self._moves.step()
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(now, 1 - KEEPS)


def _dithered(x: Tensor) -> Tensor:
    return x + DITHER * torch.randn_like(x)


def _said(course: Course, steps: int) -> str:
    return (
        f"game, step {len(course.gap)} of {steps} at most: told apart {course.told_apart[-1]:.3f}, gap "
        f"{np.mean(course.gap[-100:]):.2f}, variety {np.mean(course.variety[-100:]):.2f}"
    )


def _lost(course: Course) -> str | None:
    gap, variety = course.gap[-WATCHED:], course.variety[-WATCHED:]
    if not math.isfinite(gap[-1]) or not math.isfinite(variety[-1]):
        return "the game diverged: a smaller rate may help"
    if len(gap) < WATCHED:
        return None
    if sum(gap) / WATCHED > MOST_GAP:
        return f"the critic has won: its gap is {sum(gap) / WATCHED:.2f}"
    if sum(variety) / WATCHED < LEAST_VARIETY:
        return (
            f"the generator has collapsed: its windows differ {sum(variety) / WATCHED:.2f} times as much as real ones"
        )
    return None
