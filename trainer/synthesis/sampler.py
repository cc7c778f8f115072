"""Sampling: readings of any number of streams, of any length, the same whether they are made at once or in parts.

Noise is drawn by blocks, each from its own seed (sample, stream, block). A block is made with the last draws of the one
before and the first ones of the next, as far as the generator's convolutions see: so there is no seam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from schemas.errors import ParityError
from trainer.synthesis.generator import AFTER, BEFORE, SIZES, STRIDES
from trainer.synthesis.recipe import INPUTS, Recipe

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

COARSEST = STRIDES[0]

#: Readings of a block; a multiple of the coarsest stride.
BLOCK = 2048

#: Readings of the blocks beside it that are made along, in whole coarse draws.
LEAD = -(-BEFORE // COARSEST) * COARSEST
TAIL = -(-AFTER // COARSEST) * COARSEST

#: Streams that are made at once.
AT_ONCE = 32


@dataclass(frozen=True)
class Styles:
    """Spread of the noise at each stage: 1 is as it was learned, 0 is none, so always the same."""

    coarse: float = 1.0
    middle: float = 1.0
    fine: float = 1.0

    def of(self, rate: int) -> float:
        """Of a rate of noise, coarse to fine; what each channel does by itself is fine, too."""
        return (self.coarse, self.middle, self.fine, self.fine)[rate]


#: Noise of each rate and context, as the inputs are ordered, to scores.
Graph = Callable[[Sequence[Floats]], Floats]


def session_of(graph: bytes, inputs: Sequence[str]) -> Graph:
    """A graph's bytes, run by ONNX Runtime; inputs that have no numbers are not given."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(given: Sequence[Floats]) -> Floats:
        fed = {name: array for name, array in zip(inputs, given, strict=True) if array.shape[1]}
        made: Floats = session.run(None, fed)[0]
        return made

    return run


def in_torch(generator: nn.Module) -> Graph:
    """A generator as it is, while it learns: exporting it takes longer than a look at what it makes."""

    @torch.no_grad()
    def run(given: Sequence[Floats]) -> Floats:
        made: Floats = generator(*map(torch.from_numpy, given)).numpy()
        return made

    return run


#: Difference of a number between ONNX Runtime and PyTorch, at most.
TOLERANCE = 1e-3


def check_parity(graph: bytes, inputs: Sequence[str], generator: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises ParityError where a graph does not make what its generator does. ``shapes``: of the inputs."""
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape, "f4") for shape in shapes]
    apart = float(np.abs(session_of(graph, inputs)(given) - in_torch(generator)(given)).max())
    if not apart <= TOLERANCE:
        raise ParityError(f"ONNX Runtime and PyTorch differ by {apart:.2g} in what they make: nothing was written")


class Sampler:
    """Makes readings by a recipe. ``graph``: what is in the place of the recipe's own, see ``in_torch``."""

    def __init__(self, recipe: Recipe, seed: int, styles: Styles | None = None, graph: Graph | None = None) -> None:
        self.recipe, self.seed, self.styles = recipe, seed, styles or Styles()
        self._graph = graph or (session_of(recipe.graph, INPUTS) if recipe.graph else None)
        self._ends: dict[int, tuple[int, list[Floats]]] = {}  # of each stream's newest block

    def block(
        self, streams: Sequence[int], group: int, start_ns: int, block: int, wanted: int = BLOCK
    ) -> tuple[Ints, Floats]:
        """(times ``[n]``, readings ``[S, n, C]``) of streams by their number: the first ``wanted`` of a block.

        ``start_ns``: of the first block's first reading.
        """
        times = start_ns + self.recipe.manifest.interval_ns * np.arange(block * BLOCK, block * BLOCK + wanted)
        parts = [
            self._block(streams[at : at + AT_ONCE], group, start_ns, block)[:, :wanted]
            for at in range(0, len(streams), AT_ONCE)
        ]
        return times, np.concatenate(parts)

    def whole(self, stream: int, group: int, start_ns: int, length: int) -> tuple[Ints, Floats]:
        """(times ``[n]``, readings ``[n, C]``) of one stream."""
        parts = [
            self.block([stream], group, start_ns, block, min(BLOCK, length - block * BLOCK))
            for block in range(-(-length // BLOCK))
        ]
        return np.concatenate([times for times, _ in parts]), np.concatenate([values[0] for _, values in parts])

    def scores(self, stream: int, group: int, start_ns: int, blocks: int) -> Floats:
        """What the graph makes of one stream, block by block ``[blocks, LEAD + BLOCK, V]``."""
        return np.concatenate([self._scores([stream], group, start_ns, block) for block in range(blocks)])

    def _block(self, streams: Sequence[int], group: int, start_ns: int, block: int) -> Floats:
        """``[S, BLOCK, C]``."""
        return self.recipe.values(self._scores(streams, group, start_ns, block), group)[:, LEAD:]

    def _scores(self, streams: Sequence[int], group: int, start_ns: int, block: int) -> Floats:
        """``[S, LEAD + BLOCK, V]``: where a channel rests shows only some readings on."""
        if self._graph is None:
            return np.zeros((len(streams), LEAD + BLOCK, 0), np.float32)
        noise = [np.stack(parts) for parts in zip(*(self.noise(s, block) for s in streams), strict=True)]
        moments = start_ns + self.recipe.manifest.interval_ns * np.arange(
            block * BLOCK - LEAD, (block + 1) * BLOCK + TAIL
        )
        context = self.recipe.clock.context(moments, group).T
        return self.made(noise, np.repeat(context[None], len(streams), axis=0))

    def made(self, noise: Sequence[Floats], context: Floats) -> Floats:
        """What the graph makes of noise ``[S, N, …]`` of each rate and context ``[S, K, …]``: scores ``[S, n, V]``.

        Both are of LEAD + BLOCK + TAIL readings, the scores of the first LEAD + BLOCK, n.
        """
        assert self._graph is not None
        made = self._graph([*noise, context])  # [S, V, LEAD + BLOCK + TAIL]
        return made[:, :, : LEAD + BLOCK].transpose(0, 2, 1)

    def noise(self, stream: int, block: int) -> list[Floats]:
        """For LEAD + BLOCK + TAIL readings around a block, ``[N, n]`` of each rate."""
        number, before = self._ends.get(stream, (None, []))
        if number != block - 1:
            before = self._end(stream, block - 1, self._draws(stream, block - 1, BLOCK))
        now, after = self._draws(stream, block, BLOCK), self._draws(stream, block + 1, TAIL)
        self._end(stream, block, now)
        parts = zip(before, now, after, strict=True)
        return [(self.styles.of(rate) * np.concatenate(three).T).astype(np.float32) for rate, three in enumerate(parts)]

    def _end(self, stream: int, block: int, draws: list[Floats]) -> list[Floats]:
        """The last draws of a block, which are kept for the next one."""
        ends = [own[-(LEAD // stride) :].copy() for own, stride in zip(draws, (*STRIDES, 1), strict=True)]
        self._ends[stream] = (block, ends)
        return ends

    def _draws(self, stream: int, block: int, readings: int) -> list[Floats]:
        """Noise of a block's first readings, ``[readings / stride, N]``, coarse to fine, the channels' own last."""
        rates = [*zip(SIZES, STRIDES, strict=True), (len(self.recipe.manifest.varying), 1)]
        return [
            np.random.default_rng([self.seed, stream, rate, block + 1]).standard_normal((readings // stride, N), "f4")
            for rate, (N, stride) in enumerate(rates)
        ]
