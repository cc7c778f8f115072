"""From normal images to a generator: as of sensors, with images in the place of windows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from detector.adapters.images import Images
from trainer.synthesis.choice import check_enough, chosen
from trainer.synthesis.game import Course
from trainer.synthesis.images.critic import ImageCritic
from trainer.synthesis.images.encoder import ImageEncoder
from trainer.synthesis.images.generator import CODE, ImageGenerator
from trainer.synthesis.images.lesson import ImageLesson, as_windows, lesson_of
from trainer.synthesis.images.recipe import INPUTS, ImageManifest, ImageRecipe, image_graph_of
from trainer.synthesis.images.sampler import ImageSampler
from trainer.synthesis.images.variational import fit_images, grain
from trainer.synthesis.match import match
from trainer.synthesis.pipeline import split
from trainer.synthesis.quality import MOST, told_apart
from trainer.synthesis.sampler import Graph, check_parity, in_torch
from trainer.synthesis.settings import SynthSettings
from trainer.synthesis.variational import Plan

Floats = NDArray[np.float32]
Say = Callable[[str], None]

#: Images on a sheet.
SHEET = 64


@dataclass(frozen=True)
class FittedImages:
    """What came of it."""

    recipe: ImageRecipe
    sheets: Mapping[str, Floats]
    """Some images ``[n, H, W, bands]`` of each row: real ones first, then what each generator makes."""
    course: Course | None


def fit_image_generator(images: Images, settings: SynthSettings, say: Say = lambda _: None) -> FittedImages:
    """Raises DataError where there is too little, ResidualError where what was made is not fit for use."""
    learned, held_out = split(images.table)
    lesson = lesson_of(learned, images.frame, settings.groups)
    other = lesson_of(held_out, images.frame, settings.groups, lesson.pixels)
    real, known = other.windows(), lesson.windows()
    check_enough(known, real, "images")
    torch.manual_seed(settings.seed)
    say(f"learns from {len(lesson.images)} images of {images.frame}")
    generators, course = _generators(lesson, known, settings, say)
    made = {name: _made(_recipe(lesson, name), lesson, settings.seed, in_torch(g)) for name, g in generators.items()}
    windows = {name: as_windows(own.transpose(0, 3, 1, 2)) for name, own in made.items()}
    name, quality, _ = chosen(windows, known, real, settings, say)
    generator = generators[name]
    kept = _recipe(lesson, name, image_graph_of(generator, lesson.clock.size))
    check_parity(kept.graph, INPUTS, generator, [(2, CODE), (2, generator.noises), (2, lesson.clock.size)])
    manifest = kept.manifest.model_copy(update={"quality": quality})
    measured = lesson.pixels.back(other.images[_some(len(other.images))]).transpose(0, 2, 3, 1)
    sheets = {"real": measured} | {name: own[_some(len(own))] for name, own in made.items()}
    return FittedImages(replace(kept, manifest=manifest), sheets, course)


def _some(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(SHEET, count)).astype(np.int64))


def _generators(
    lesson: ImageLesson, known: Floats, settings: SynthSettings, say: Say
) -> tuple[dict[str, ImageGenerator], Course | None]:
    size = (lesson.frame, lesson.clock.size, settings.hidden)
    generator, encoder = ImageGenerator(*size), ImageEncoder(*size)
    plan = Plan(settings.steps, settings.batch, settings.rate, settings.fit_limit)
    fit_images(generator, encoder, lesson, plan, say)

    def look(player: ImageGenerator) -> float:
        """By how much what it makes is told from what it learned: what it is measured by has no part in the choice."""
        made = _made(_recipe(lesson, "gan"), lesson, settings.seed, in_torch(player))
        return max(told_apart(as_windows(made.transpose(0, 3, 1, 2)), known, settings.seed))

    generator = _grained(generator, grain(generator, encoder, lesson), look, say)
    if settings.model == "vae":
        return {"vae": generator}, None
    player, course = match(generator, lambda: ImageCritic(*size), lesson.draw(), look, settings, say)
    return {"vae": generator} | ({} if player is None else {"gan": player}), course


def _grained(
    smooth: ImageGenerator, log_grain: float, look: Callable[[ImageGenerator], float], say: Say
) -> ImageGenerator:
    """With grain or without, whichever is more like what was measured."""
    rough = copy.deepcopy(smooth)
    with torch.no_grad():
        rough.log_grain.fill_(log_grain)
    without, with_it = look(smooth), look(rough)
    say(f"told apart {without:.3f} without grain, {with_it:.3f} with it")
    return rough if with_it < without else smooth


def _recipe(lesson: ImageLesson, name: str, graph: bytes = b"") -> ImageRecipe:
    pixels, clock = lesson.pixels, lesson.clock
    manifest = ImageManifest.model_validate({
        "model": name, "frame": lesson.frame, "groups": lesson.groups, "interval_ns": lesson.interval_ns,
        "daily": clock.daily, "weekly": clock.weekly, "low": pixels.low, "high": pixels.high, "whole": pixels.whole,
        "start_ns": lesson.start_ns, "stop_ns": lesson.stop_ns, "images": len(lesson.images), "quality": {},
    })  # fmt: skip
    return ImageRecipe(manifest, graph)


def _made(recipe: ImageRecipe, lesson: ImageLesson, seed: int, graph: Graph) -> Floats:
    """Images ``[N, H, W, bands]``, of every group as many as were measured of it."""
    sampler = ImageSampler(recipe, seed, graph=graph)
    share = np.bincount(lesson.group, minlength=len(lesson.groups)) / len(lesson.group)
    parts = [
        sampler.images(group, group, recipe.manifest.start_ns, max(round(MOST * part), 1))[1]
        for group, part in enumerate(share)
    ]
    return np.concatenate(parts)
