"""From normal readings to a generator: the two fits, what each is worth beside the cheap and the real, the choice.

Every third of some twenty stretches of time is kept out of the fits, and what is made is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from detector.adapters.files import Table
from schemas.errors import DataError
from schemas.manifest import Channel
from trainer.synthesis.choice import check_enough, chosen
from trainer.synthesis.critic import Critic
from trainer.synthesis.encoder import Encoder
from trainer.synthesis.game import Course
from trainer.synthesis.generator import SIZES, STRIDES, Generator
from trainer.synthesis.lesson import Lesson, Windows, lesson_of, possible, runs
from trainer.synthesis.match import match
from trainer.synthesis.quality import told_apart
from trainer.synthesis.recipe import (
    GRID,
    INPUTS,
    Manifest,
    Recipe,
    all_levelled,
    encoder_graph_of,
    graph_of,
    quantiles_of,
)
from trainer.synthesis.rests import margins
from trainer.synthesis.sampler import BLOCK, LEAD, TAIL, Graph, Sampler, check_parity, in_torch
from trainer.synthesis.seen import MADE, SEEN, draw_of
from trainer.synthesis.settings import SynthSettings
from trainer.synthesis.variational import LENGTH, Plan, fit_variational

Floats = NDArray[np.float32]
Say = Callable[[str], None]

#: Stretches of time, of which every third is held out; fewer where one would be shorter than LENGTH readings.
STRETCHES, EVERY = 21, 3

#: Readings that are made to be compared.
COMPARED = 12 * BLOCK

#: Number of the stream by which what a generator makes is put right: no sample has it.
PUT_RIGHT = 1 << 31


@dataclass(frozen=True)
class Fitted:
    """What came of it."""

    recipe: Recipe
    real: Floats
    """Windows ``[N, W, C]`` that nothing has learned from."""
    made: Mapping[str, Floats]
    """Windows of each row but the real one."""
    course: Course | None
    """Of the game, where one was played."""


def fit_generator(
    table: Table, settings: SynthSettings, say: Say = lambda _: None, catalogue: Sequence[Channel] | None = None
) -> Fitted:
    """``catalogue``: what is known of the table's channels; values that they say are impossible are never made.

    Raises DataError where there is too little, ResidualError where what was made is not fit for use.
    """
    learned, held_out = split(possible(table, catalogue))
    lesson, other = lesson_of(learned, settings.groups), lesson_of(held_out, settings.groups)
    real, known = (_windows(one, settings.window) for one in (other, lesson))
    check_enough(known, real, f"windows of {settings.window} readings")
    torch.manual_seed(settings.seed)
    size = (len(lesson.varying), lesson.clock.size, settings.hidden)
    encoder = Encoder(*size)
    generators, course = _generators(lesson, encoder, size, known, settings, say)
    recipes = {name: _recipe(lesson, name, generator, settings) for name, generator in generators.items()}
    windows = {name: _made(recipe, lesson, settings, in_torch(generators[name])) for name, recipe in recipes.items()}
    name, quality, made = chosen(windows, known, real, settings, say)
    kept = _exported(recipes[name], generators[name])
    manifest = kept.manifest.model_copy(update={"quality": quality})
    inverse = encoder_graph_of(encoder, size[0], size[1], LENGTH) if size[0] else b""
    return Fitted(replace(kept, manifest=manifest, encoder=inverse), real, made, course)


def split(table: Table) -> tuple[Table, Table]:
    """(what is learned from, what it is compared with)."""
    times = table.times
    if not len(times) or times.min() == times.max():
        raise DataError("the data hold no two moments: some hundreds of readings are needed at least")
    moments = np.unique(times)
    count = max(min(STRETCHES, len(moments) // LENGTH), EVERY)
    edges = moments[np.linspace(0, len(moments), count + 1).astype(np.int64)[1:-1]]
    kept_out = np.searchsorted(edges, times, side="right") % EVERY == EVERY - 1
    learned, held_out = (table.rows(np.flatnonzero(which)) for which in (~kept_out, kept_out))
    return learned, held_out


def _windows(lesson: Lesson, length: int) -> Floats:
    """All windows ``[N, length, C]`` of the stretches, in the order of time."""
    found = [
        runs(stretch.values, length)
        for stretch in sorted(lesson.stretches, key=lambda one: int(one.times[0]))
        if len(stretch.times) >= length
    ]
    return np.concatenate(found) if found else np.empty((0, length, len(lesson.channels)), np.float32)


def _generators(
    lesson: Lesson, encoder: Encoder, size: tuple[int, int, int], known: Floats, settings: SynthSettings, say: Say
) -> tuple[dict[str, Generator], Course | None]:
    channels, context, hidden = size
    generator = Generator(*size)
    if channels == 0:
        return {"vae": generator}, None
    say(f"learns from {sum(len(s.times) for s in lesson.stretches)} readings, {channels} channels that vary")
    windows = Windows(lesson, LENGTH)
    plan = Plan(settings.steps, settings.batch, settings.rate, settings.fit_limit)
    fit_variational(generator, encoder, windows, plan, say)
    if settings.model == "vae":
        return {"vae": generator}, None
    draw = draw_of(Windows(lesson, MADE))

    def look(player: Generator) -> float:
        """By how much what it makes is told from what it learned: what it is measured by has no part in the choice."""
        made = _made(_recipe(lesson, "gan", player, settings), lesson, settings, in_torch(player))
        return max(told_apart(made, known, settings.seed))

    def critic() -> Critic:
        return Critic(channels, context, hidden, SEEN)

    player, course = match(generator, critic, draw, look, settings, say)
    return {"vae": generator} | ({} if player is None else {"gan": player}), course


def _recipe(lesson: Lesson, name: str, generator: Generator, settings: SynthSettings) -> Recipe:
    """All but the graph."""
    varying = lesson.varying.tolist()
    manifest = Manifest.model_validate({
        "model": name, "channels": lesson.channels, "groups": lesson.groups, "interval_ns": lesson.interval_ns,
        "daily": lesson.clock.daily, "weekly": lesson.clock.weekly, "varying": varying, "same_as": lesson.same_as,
        "start_ns": min(int(s.times[0]) for s in lesson.stretches),
        "stop_ns": max(int(s.times[-1]) for s in lesson.stretches),
        "readings": sum(len(s.times) for s in lesson.stretches), "window": settings.window, "quality": {},
    })  # fmt: skip
    G, V = len(lesson.groups), len(varying)
    nothing = np.zeros((G, V, len(GRID)), np.float32), np.zeros((G, V), np.float32)
    raw = Recipe(manifest, b"", lesson.marginals, *nothing)
    if not varying:
        return raw
    sampler = Sampler(raw, settings.seed + 1, graph=in_torch(generator))
    made = [sampler.scores(PUT_RIGHT, group, manifest.start_ns, COMPARED // BLOCK) for group in range(G)]
    quantiles = [quantiles_of(scores.reshape(-1, V)) for scores in made]
    wide = [
        margins(all_levelled(scores, own), [lesson.marginals[g][c] for c in varying], lesson.rests(g))
        for g, (scores, own) in enumerate(zip(made, quantiles, strict=True))
    ]
    return replace(raw, quantiles=np.stack(quantiles), margins=np.stack(wide))


def _exported(recipe: Recipe, generator: Generator) -> Recipe:
    """With its graph. Raises ParityError where that does not make what was judged."""
    channels = len(recipe.manifest.varying)
    if not channels:
        return recipe
    length, context = LEAD + BLOCK + TAIL, recipe.clock.size
    graph = graph_of(generator, channels, context, length)
    rates = [*zip(SIZES, STRIDES, strict=True), (channels, 1), (context, 1)]
    check_parity(graph, INPUTS, generator, [(2, size, length // stride) for size, stride in rates])
    return replace(recipe, graph=graph)


def _made(recipe: Recipe, lesson: Lesson, settings: SynthSettings, graph: Graph) -> Floats:
    """Windows ``[N, W, C]`` of what a recipe makes, of every group as many as were measured of it."""
    sampler, manifest = Sampler(recipe, settings.seed, graph=graph), recipe.manifest
    share = np.bincount([s.group for s in lesson.stretches], [len(s.times) for s in lesson.stretches])
    found = []
    for group, part in enumerate(share / share.sum()):
        _, values = sampler.whole(group, group, manifest.start_ns, max(round(COMPARED * part), BLOCK))
        found.append(runs(values, settings.window)[:: max(settings.window // 2, 1)])
    return np.concatenate(found)
