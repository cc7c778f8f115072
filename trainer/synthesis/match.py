"""A match: the game is played, and begun anew at half the rates where it was lost."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

from schemas.errors import ResidualError
from trainer.synthesis.game import Course, Draw, G, Game, Rules
from trainer.synthesis.settings import SynthSettings

#: How often a game that was lost is begun anew.
AGAIN = 2


def match(
    generator: G,
    critic: Callable[[], nn.Module],
    draw: Draw,
    look: Callable[[G], float],
    settings: SynthSettings,
    say: Callable[[str], None],
) -> tuple[G | None, Course]:
    """(a better generator, how the last game went); None: all were lost, which is an error where --model is gan.

    ``critic``: makes one; ``look``: by how much what a generator makes is told from what was learned.
    """
    for attempt in range(AGAIN + 1):
        player, slower = copy.deepcopy(generator), 0.5**attempt
        rules = Rules(
            settings.game_steps, settings.batch, settings.critic_steps, settings.game_rate * slower,
            settings.critic_rate * slower, settings.fit_limit,
        )  # fmt: skip
        course = Game(player, critic(), draw, rules).play(look, say)
        if course.lost is None:
            return player, course
        say(f"the game is over: {course.lost}" + ("; begins anew, at half the rates" if attempt < AGAIN else ""))
    if settings.model == "gan":
        raise ResidualError(f"no game went well: {course.lost}; take --model vae or other rates: nothing was written")
    return None, course
