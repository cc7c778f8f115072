"""Windows gathered into batches on the device that trains: a window is a view of the rows, and a batch is one gather.

No worker processes and no copies of windows: the rows of all streams lie once in the device's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data import Windows
from trainer.graph import believed, scaled_context


class Batch(NamedTuple):
    """b windows as a network is given them, scaled."""

    z: Tensor
    """``[b, W, C]``, 0 where missing."""
    observed: Tensor
    """``[b, W, C]`` bool."""
    context: Tensor | None
    """``[b, K]``, what was last read where nothing is known; None: there is no context."""


class Batches:
    """The windows of one part of the data, on one device."""

    def __init__(self, windows: Windows, device: torch.device | str = "cpu") -> None:
        data = windows.data
        self.size = len(windows)
        self._shape = (data.window, data.channels)
        self._rows = _runs(torch.from_numpy(data.scaled).to(device), data.window)  # [R - W + 1, W·C]
        self._observed = _runs(torch.from_numpy(data.observed).to(device), data.window)  # [R - W + 1, W·C]
        self._ends = torch.from_numpy(windows.ends).to(device)
        self._context: tuple[Tensor, Tensor] | None = None
        if data.context is not None:
            scaling, stream = data.scaling, data.stream
            rows = (data.context, scaling.loc[stream], scaling.scale[stream])
            context, known = scaled_context(*map(torch.from_numpy, rows))  # [R, K] each
            self._context = context.to(device), known.to(device)

    def __len__(self) -> int:
        return self.size

    def gather(self, chosen: Tensor | slice) -> Batch:
        """These windows, by their number."""
        ends = self._ends[chosen]
        starts = ends - (self._shape[0] - 1)
        z = self._rows.index_select(0, starts).view(-1, *self._shape)  # [b, W, C]
        observed = self._observed.index_select(0, starts).view(-1, *self._shape)  # [b, W, C]
        if self._context is None:
            return Batch(z, observed, None)
        context, known = (rows.index_select(0, ends) for rows in self._context)  # [b, K] each
        return Batch(z, observed, believed(context, known, z))

    def in_order(self, size: int = 1024) -> Iterator[Batch]:
        """All windows, batch by batch."""
        return (self.gather(slice(at, at + size)) for at in range(0, self.size, size))

    def shuffled(self, size: int, most: int) -> Iterator[Batch]:
        """At most ``most`` windows in random order, each once, by torch's random state."""
        order = torch.randperm(self.size)[:most].to(self._ends.device)
        return (self.gather(order[at : at + size]) for at in range(0, len(order), size))


def _runs(rows: Tensor, length: int) -> Tensor:
    """Every run of ``length`` rows of ``[R, C]`` as one row, ``[R - length + 1, length · C]``: a view."""
    R, C = rows.shape
    return rows.as_strided((max(R - length + 1, 0), length * C), (C, 1))
