"""Windows gathered into batches on the device that trains: a window is a view of the rows, and a batch is one gather.

No worker processes and no copies of windows: the rows of all streams lie once in the device's memory, or where they are
too many for it, in the host's or on its disk, and each batch travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data import Floats, Prepared, Windows
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
        self._device = torch.device(device)
        self._rows = _runs(_near(data.scaled, self._device), data.window)  # [R - W + 1, W·C]
        self._observed = _runs(_near(data.observed, self._device), data.window)  # [R - W + 1, W·C]
        self._ends = torch.from_numpy(windows.ends).to(device)
        self._season = None if data.context is None else _Season(data, data.context, self._device)

    def __len__(self) -> int:
        return self.size

    def gather(self, chosen: Tensor | slice) -> Batch:
        """These windows, by their number."""
        ends = self._ends[chosen]
        starts = ends - (self._shape[0] - 1)
        z = _picked(self._rows, starts).view(-1, *self._shape)  # [b, W, C]
        observed = _picked(self._observed, starts).view(-1, *self._shape)  # [b, W, C]
        if self._season is None:
            return Batch(z, observed, None)
        return Batch(z, observed, believed(*self._season.gather(ends), z))

    def in_order(self, size: int = 1024) -> Iterator[Batch]:
        """All windows, batch by batch."""
        return (self.gather(slice(at, at + size)) for at in range(0, self.size, size))

    def shuffled(self, size: int, most: int) -> Iterator[Batch]:
        """At most ``most`` windows in random order, each once, by torch's random state."""
        order = torch.randperm(self.size)[:most].to(self._ends.device)
        return (self.gather(order[at : at + size]) for at in range(0, len(order), size))


class _Season:
    """The context of windows, in engineering units until it is asked for."""

    def __init__(self, data: Prepared, context: Floats, device: torch.device) -> None:
        self._context = _near(context, device)  # [R, K]
        self._stream, self._loc, self._scale = (
            torch.from_numpy(array).to(device) for array in (data.stream, data.scaling.loc, data.scaling.scale)
        )  # [R], [S, C], [S, C]

    def gather(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Of these windows: scaled ``[b, K]``, and where it is known, bool ``[b, K]``."""
        stream = self._stream.index_select(0, ends)  # [b]
        return scaled_context(_picked(self._context, ends), self._loc[stream], self._scale[stream])


def _near(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device, unless it would take more than half of what is free there."""
    rows = torch.from_numpy(array)
    if device.type == "cuda" and rows.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return rows
    return rows.to(device)


def _picked(rows: Tensor, chosen: Tensor) -> Tensor:
    """These rows, on the device of ``chosen``."""
    return rows.index_select(0, chosen.to(rows.device)).to(chosen.device)


def _runs(rows: Tensor, length: int) -> Tensor:
    """Every run of ``length`` rows of ``[R, C]`` as one row, ``[R - length + 1, length · C]``: a view."""
    R, C = rows.shape
    return rows.as_strided((max(R - length + 1, 0), length * C), (C, 1))
