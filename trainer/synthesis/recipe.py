"""A generator as a folder: ``generator.json``, two graphs (ONNX), ``marginals.npz``, ``report.html``. No pickle."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import ndtr
from torch import Tensor, nn

from detector.adapters import folder
from schemas.errors import ModelError
from trainer.export import exported
from trainer.synthesis.clock import Clock
from trainer.synthesis.encoder import Encoder
from trainer.synthesis.generator import STRIDES, Generator, Noise
from trainer.synthesis.marginals import Marginal, readings_of
from trainer.synthesis.quality import Quality
from trainer.synthesis.rests import rested

MANIFEST, GRAPH, ENCODER, MARGINALS = "generator.json", "generator.onnx", "encoder.onnx", "marginals.npz"

#: Of the graph, in order.
INPUTS = ("coarse", "middle", "fine", "own", "context")

Floats = NDArray[np.float32]

#: Normal scores at which what the graph makes is put right: beyond them a sample says too little.
GRID = np.linspace(-3, 3, 61)


M = TypeVar("M", bound=BaseModel)


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
    quantiles: Floats
    """``[G, V, K]``: the scores that the graph makes, at ``GRID`` of a normal distribution: of each group, of each
    channel that varies.
    """
    margins: Floats
    """``[G, V]``: see ``rests``."""
    encoder: bytes = b""
    """Windows to the noise that they would have been made from, as ONNX; empty where no channel varies."""

    @property
    def clock(self) -> Clock:
        """The context of readings."""
        return Clock(self.manifest.daily, self.manifest.weekly, len(self.manifest.groups))

    def values(self, scores: Floats, group: int) -> Floats:
        """Readings ``[S, n, C]`` of what the graph made ``[S, n, V]``."""
        own = [self.marginals[group][c] for c in self.manifest.varying]
        normal = rested(all_levelled(scores, self.quantiles[group]), own, self.margins[group])
        return np.stack([
            readings_of(one, self.marginals[group], self.manifest.varying, self.manifest.same_as) for one in normal
        ])  # fmt: skip


def quantiles_of(scores: Floats) -> Floats:
    """``[V, K]`` of made scores ``[n, V]``."""
    found: Floats = np.quantile(scores, ndtr(GRID), axis=0).T.astype(np.float32)
    return found


def all_levelled(scores: Floats, quantiles: Floats) -> Floats:
    """``levelled`` for ``[S, n, V]`` and ``[V, K]``."""
    columns = [levelled(scores[:, :, v], own) for v, own in enumerate(quantiles)]
    return np.stack(columns, axis=2) if columns else scores


def levelled(scores: Floats, quantiles: Floats) -> Floats:
    """Made scores ``[…]`` with the distribution that measured ones have.

    A network is nearly right about that; what is nearly right of a channel with few values, or hard ends, is wrong.
    """
    inner = np.interp(scores, quantiles, GRID)
    step = GRID[1] - GRID[0]
    # beyond them as steep as at their ends, where that is less than one to one
    first, last = (min(step / max(float(gap), 1e-6), 1.0) for gap in np.diff(quantiles)[[0, -1]])
    below, above = np.minimum(scores - quantiles[0], 0), np.maximum(scores - quantiles[-1], 0)
    found: Floats = (inner + first * below + last * above).astype(np.float32)
    return found


def graph_of(generator: Generator, channels: int, context: int, length: int) -> bytes:
    """The ONNX file's bytes, for any number of streams of ``length`` readings."""
    assert length % STRIDES[0] == 0
    example = [*Noise.drawn(2, length, channels), torch.zeros(2, context, length)]
    kept = len(example) - (context == 0)
    return exported(generator, example[:kept], list(INPUTS[:kept]), ["scores"])


def encoder_graph_of(encoder: Encoder, channels: int, context: int, length: int) -> bytes:
    """The ONNX file's bytes: normal scores ``[B, V, length]`` and context to means, coarse to fine."""
    return exported(
        _Means(encoder), [torch.zeros(2, channels, length), torch.zeros(2, context, length)][: 1 + (context > 0)],
        ["x", "context"][: 1 + (context > 0)], list(INPUTS[:3]),
    )  # fmt: skip


class _Means(nn.Module):
    """The posteriors' means."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(posterior.mean for posterior in self.encoder(x, x[:, :0] if context is None else context))


def check_target(path: str | Path) -> None:
    """Raises UserError unless a generator may be written there: nothing is, or another generator."""
    folder.check_target(path, "generator", MANIFEST, frozenset({"generator_format"}))


def write_recipe(recipe: Recipe, path: str | Path, extra: Mapping[str, bytes]) -> None:
    """Write a generator folder, replacing the one that is there; ``extra``: further files by name."""
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[np.float64] | NDArray[np.bool_] | Floats] = {}
    for g, group in enumerate(recipe.marginals):
        for c, marginal in enumerate(group):
            arrays |= {f"values-{g}-{c}": marginal.values, f"shares-{g}-{c}": marginal.shares}
            arrays[f"steps-{g}-{c}"] = np.array(marginal.steps)
    arrays |= {"quantiles": recipe.quantiles, "margins": recipe.margins}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    files = {GRAPH: recipe.graph, ENCODER: recipe.encoder, MARGINALS: buffer.getvalue()}
    write_whole(path, recipe.manifest, {**files, **extra})


def write_whole(path: str | Path, manifest: BaseModel, files: Mapping[str, bytes]) -> None:
    """Write a folder of a manifest, which then has the hashes of the other files; see ``check_target``."""
    check_target(path)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    text = manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2)
    folder.write_files(Path(path).resolve(), {**files, MANIFEST: text.encode() + b"\n"})


def read_recipe(path: str | Path) -> Recipe:
    """The generator of a folder. Raises ModelError."""
    place = Path(path)
    manifest = read_manifest(path, Manifest)
    graph, encoder, packed = (whole_file(path, name, manifest.files) for name in (GRAPH, ENCODER, MARGINALS))
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            marginals = tuple(
                tuple(
                    Marginal(arrays[f"values-{g}-{c}"], arrays[f"shares-{g}-{c}"], bool(arrays[f"steps-{g}-{c}"]))
                    for c in range(len(manifest.channels))
                )
                for g in range(len(manifest.groups))
            )
            quantiles, margins = arrays["quantiles"], arrays["margins"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{place / MARGINALS} cannot be read: {error}") from error
    return Recipe(manifest, graph, marginals, quantiles, margins, encoder)


def is_of_images(path: str | Path) -> bool:
    """Whether a folder holds a generator of images. Raises ModelError where it holds none that can be read."""
    return "frame" in _json(Path(path))


def read_manifest(path: str | Path, kind: type[M]) -> M:
    """The manifest of a folder. Raises ModelError."""
    place = Path(path)
    found = _json(place)
    if ("frame" in found) != ("frame" in kind.model_fields):
        what = "images" if "frame" in found else "sensors"
        raise ModelError(f"{place} holds a generator of {what}, which this cannot be done with")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise ModelError(f"{place / MANIFEST} is no generator's: {error.errors()[0]['msg']}") from error


def _json(place: Path) -> dict[str, object]:
    try:
        found = json.loads((place / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{place} holds no generator ({MANIFEST}): make one with trainer synth fit") from None
    except OSError as error:
        raise ModelError(f"{place / MANIFEST} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{place / MANIFEST} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def whole_file(path: str | Path, name: str, hashes: Mapping[str, str]) -> bytes:
    """A file of a folder, as its manifest says. Raises ModelError."""
    place = Path(path) / name
    try:
        data = place.read_bytes()
    except OSError as error:
        raise ModelError(f"{place} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != hashes.get(name):
        raise ModelError(f"{place} is not what {MANIFEST} says: fit the generator again")
    return data
