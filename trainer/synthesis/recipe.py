"""A generator as a folder: ``generator.json``, ``generator.onnx``, ``marginals.npz``, ``report.html``. No pickle."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detector.adapters.folder import write_files
from schemas.errors import ModelError, UserError
from trainer.export import exported
from trainer.synthesis.clock import Clock
from trainer.synthesis.generator import STRIDES, Generator, Noise
from trainer.synthesis.marginals import Marginal, readings_of
from trainer.synthesis.quality import Quality

MANIFEST, GRAPH, MARGINALS = "generator.json", "generator.onnx", "marginals.npz"

#: Of the graph, in order.
INPUTS = ("coarse", "middle", "fine", "own", "context")

Floats = NDArray[np.float32]


class Manifest(BaseModel):
    """What is told of a generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator_format: Literal[1] = 1
    model: Literal["gan", "vae"]
    channels: tuple[str, ...] = Field(min_length=1)
    groups: tuple[str, ...] = Field(min_length=1)
    interval_ns: int = Field(gt=0)
    daily: bool = Field(description="it was told the time of day")
    weekly: bool = Field(description="it was told the day of the week")
    varying: tuple[int, ...] = Field(description="channels that the graph makes")
    same_as: tuple[int, ...] = Field(description="of each channel: the first one that it always equals, or itself")
    start_ns: int = Field(description="of the readings that it learned from")
    stop_ns: int
    readings: int = Field(description="that it learned from")
    window: int = Field(description="readings of the windows that were compared")
    quality: dict[str, Quality] = Field(description="by row: real, gan, vae, gaussian")
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the other files")


@dataclass(frozen=True)
class Recipe:
    """What samples are made by."""

    manifest: Manifest
    graph: bytes
    """The generator as ONNX; empty where no channel varies."""
    marginals: tuple[tuple[Marginal, ...], ...]
    """Of each group, of each channel."""

    @property
    def clock(self) -> Clock:
        """The context of readings."""
        return Clock(self.manifest.daily, self.manifest.weekly, len(self.manifest.groups))

    def values(self, scores: Floats, group: int) -> Floats:
        """Readings ``[n, C]`` of normal scores ``[n, V]``."""
        return readings_of(scores, self.marginals[group], self.manifest.varying, self.manifest.same_as)


def graph_of(generator: Generator, channels: int, context: int, length: int) -> bytes:
    """The ONNX file's bytes, for any number of streams of ``length`` readings."""
    assert length % STRIDES[0] == 0
    example = [*Noise.drawn(2, length, channels), torch.zeros(2, context, length)]
    kept = len(example) - (context == 0)
    return exported(_Whole(generator, length, context), example[:kept], list(INPUTS[:kept]), ["scores"])


class _Whole(torch.nn.Module):
    """The generator with the context that it does without."""

    def __init__(self, generator: Generator, length: int, context: int) -> None:
        super().__init__()
        self.generator, self.length, self.without = generator, length, context == 0

    def forward(self, coarse: torch.Tensor, middle: torch.Tensor, fine: torch.Tensor, own: torch.Tensor,
                context: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        """Normal scores ``[B, C, T]``."""
        if context is None:
            context = fine[:, :0]
        made: torch.Tensor = self.generator(coarse, middle, fine, own, context)
        return made


def check_target(path: str | Path) -> None:
    """Raises UserError unless a generator may be written there: nothing is, or another generator."""
    folder = Path(path)
    if folder.is_dir():
        if any(folder.iterdir()) and not _is_manifest(folder / MANIFEST):
            raise UserError(f"{folder} is not empty and holds no generator: name another --out or empty it")
    elif folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is not a folder: name another --out")
    elif not folder.absolute().parent.is_dir():
        raise UserError(f"{folder.absolute().parent} does not exist: make it, or name another --out")


def _is_manifest(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "generator_format" in found


def write_recipe(recipe: Recipe, path: str | Path, extra: Mapping[str, bytes]) -> None:
    """Write a generator folder, replacing the one that is there; ``extra``: further files by name."""
    check_target(path)
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[np.float64] | NDArray[np.bool_]] = {}
    for g, group in enumerate(recipe.marginals):
        for c, marginal in enumerate(group):
            arrays |= {f"values-{g}-{c}": marginal.values, f"shares-{g}-{c}": marginal.shares}
            arrays[f"steps-{g}-{c}"] = np.array(marginal.steps)
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    files = {GRAPH: recipe.graph, MARGINALS: buffer.getvalue(), **extra}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = recipe.manifest.model_copy(update={"files": hashes})
    write_files(Path(path).resolve(), {**files, MANIFEST: manifest.model_dump_json(indent=2).encode() + b"\n"})


def read_recipe(path: str | Path) -> Recipe:
    """The generator of a folder. Raises ModelError."""
    folder = Path(path)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no generator ({MANIFEST}): make one with trainer synth fit") from None
    except OSError as error:
        raise ModelError(f"{folder / MANIFEST} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise ModelError(f"{folder / MANIFEST} is no generator's: {error.errors()[0]['msg']}") from error
    graph, packed = (_whole_file(folder, name, manifest) for name in (GRAPH, MARGINALS))
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            marginals = tuple(
                tuple(
                    Marginal(arrays[f"values-{g}-{c}"], arrays[f"shares-{g}-{c}"], bool(arrays[f"steps-{g}-{c}"]))
                    for c in range(len(manifest.channels))
                )
                for g in range(len(manifest.groups))
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / MARGINALS} cannot be read: {error}") from error
    return Recipe(manifest, graph, marginals)


def _whole_file(folder: Path, name: str, manifest: Manifest) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder / name} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
        raise ModelError(f"{folder / name} is not what {MANIFEST} says: fit the generator again")
    return data
