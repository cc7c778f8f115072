"""A generator of images as a folder: ``generator.json``, ``generator.onnx``, ``report.html``. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.frame import Frame
from trainer.export import exported
from trainer.synthesis.clock import Clock
from trainer.synthesis.images.generator import CODE, ImageGenerator
from trainer.synthesis.images.lesson import Pixels
from trainer.synthesis.quality import Quality
from trainer.synthesis.recipe import GRAPH, read_manifest, whole_file, write_whole

Floats = NDArray[np.float32]

#: Of the graph, in order.
INPUTS = ("code", "noise", "context")

#: Images of a call of the graph.
BATCH = 64


class ImageManifest(BaseModel):
    """What is told of a generator of images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator_format: Literal[1] = 1
    model: Literal["gan", "vae"]
    frame: Frame
    groups: tuple[str, ...] = Field(min_length=1)
    interval_ns: int = Field(gt=0)
    daily: bool = Field(description="it was told the time of day")
    weekly: bool = Field(description="it was told the day of the week")
    low: float = Field(description="of a pixel")
    high: float
    whole: bool = Field(description="pixels are whole numbers")
    start_ns: int = Field(description="of the images that it learned from")
    stop_ns: int
    images: int = Field(description="that it learned from")
    quality: dict[str, Quality] = Field(description="by row: real, gan, vae, gaussian")
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the other files")


@dataclass(frozen=True)
class ImageRecipe:
    """What images are made by."""

    manifest: ImageManifest
    graph: bytes

    @property
    def clock(self) -> Clock:
        """The context of images."""
        return Clock(self.manifest.daily, self.manifest.weekly, len(self.manifest.groups))

    @property
    def pixels(self) -> Pixels:
        """What values a pixel has."""
        return Pixels(self.manifest.low, self.manifest.high, self.manifest.whole)


def image_graph_of(generator: ImageGenerator, context: int) -> bytes:
    """The ONNX file's bytes."""
    example = [torch.zeros(2, CODE), torch.zeros(2, generator.noises), torch.zeros(2, context)][: 2 + (context > 0)]
    return exported(generator, example, list(INPUTS[: len(example)]), ["pixels"])


def write_image_recipe(recipe: ImageRecipe, path: str | Path, extra: Mapping[str, bytes]) -> None:
    """Write a generator folder, replacing the one that is there; ``extra``: further files by name."""
    write_whole(path, recipe.manifest, {GRAPH: recipe.graph, **extra})


def read_image_recipe(path: str | Path) -> ImageRecipe:
    """The generator of a folder. Raises ModelError."""
    manifest = read_manifest(path, ImageManifest)
    return ImageRecipe(manifest, whole_file(path, GRAPH, manifest.files))
