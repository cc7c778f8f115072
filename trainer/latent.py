"""The codes of an autoencoder in the plane that shows most of them, and what it makes of points of that plane."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.frozen import Frozen
from trainer.batches import Batches
from trainer.data import Prepared, Windows
from trainer.models import PLUS, Architecture, Autoencoder, Several
from trainer.models.predicting import Predicting
from trainer.models.variational import Variational

#: Windows whose codes are drawn, half of the fit and half of the calibration stretch.
DRAWN = 1500

#: Points of the plane that are decoded lie so many standard deviations from the middle of the codes, on either axis.
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
#: Channels of a decoded window that are drawn, and points of each.
CHANNELS, POINTS = 4, 48

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Points(Frozen):
    """Codes on the two axes."""

    x: list[float]
    y: list[float]


class Latent(Frozen):
    """Codes of windows, projected on their first two principal axes."""

    model: str
    """Whose codes they are: of several joined models one."""
    size: int
    """Numbers in a code."""
    share: tuple[float, float]
    """Of the codes' variance that each axis carries."""
    fit: Points
    calibration: Points
    worst: Points
    """In the order of the report's worst windows."""


class Decoded(Frozen):
    """Windows decoded from a grid of codes on the two axes, scaled units."""

    steps: list[float]
    """Standard deviations from the middle, on either axis."""
    channels: list[int]
    """Those that differ most over the grid."""
    windows: list[list[list[list[float]]]]
    """By the second axis, the first, the channel: a point for each reading, or for every n-th of a long window."""


def autoencoder_of(network: Architecture, name: str) -> tuple[str, Autoencoder] | None:
    """The part of a network that has a code, and its name; None where there is none.

    Of several joined models the variational one, or else the one with the longest window.
    """
    if isinstance(network, Several):
        members = zip(network.members, name.split(PLUS), strict=True)
        found = [coder for member, own in members if (coder := autoencoder_of(member, own))]  # type: ignore[arg-type]
        return max(found, key=lambda each: (isinstance(each[1], Variational), each[1].shape.window), default=None)
    inner = network.inner if isinstance(network, Predicting) else network
    return (name, inner) if isinstance(inner, Autoencoder) else None


@torch.no_grad()
def latent_space(network: Architecture, name: str, data: Prepared, worst: Ints) -> tuple[Latent | None, Decoded | None]:
    """The codes' plane, and for a variational autoencoder the windows decoded from it.

    ``worst`` ``[k]``: rows at which the windows end that are marked. None where the network has no code.
    """
    coder = autoencoder_of(network, name)
    if coder is None:
        return None, None
    own_name, autoencoder = coder
    parts = [_spread(data.fit_ends), _spread(data.calibration_ends), worst]
    code, context = _codes(autoencoder, data, np.concatenate(parts))
    flat = code.flatten(1).double().numpy()  # [n, L]
    drawn = len(parts[0]) + len(parts[1])
    middle = flat[:drawn].mean(axis=0)  # [L]
    axes, share = principal(flat[:drawn] - middle)  # [2, L]
    points = (flat - middle) @ axes.T  # [n, 2]
    fit, calibration, marked = np.split(points, np.cumsum([len(part) for part in parts])[:-1])
    latent = Latent(
        model=own_name,
        size=flat.shape[1],
        share=(float(f"{share[0]:.4g}"), float(f"{share[1]:.4g}")),
        fit=_points(fit),
        calibration=_points(calibration),
        worst=_points(marked),
    )
    if not isinstance(autoencoder, Variational):
        return latent, None
    usual = None if context is None else context[:drawn].mean(0, keepdim=True)  # [1, K]
    grid = _grid(points[:drawn].std(axis=0)) @ axes + middle  # [G², L]
    return latent, _decoded(autoencoder, grid, code.shape[1:], usual)


def principal(centred: Floats) -> tuple[Floats, Floats]:
    """The first two principal axes ``[2, L]`` of points ``[n, L]`` about their mean, and the share of each ``[2]``.

    An axis that does not exist (L = 1) is 0. The sign of an axis is arbitrary: its largest entry is made positive.
    """
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    square = np.square(singular)
    found = min(2, len(axes))
    plane, share = np.zeros((2, centred.shape[1])), np.zeros(2)
    plane[:found] = axes[:found]
    share[:found] = square[:found] / max(float(square.sum()), 1e-30)
    largest = np.take_along_axis(plane, np.abs(plane).argmax(axis=1)[:, None], 1)  # [2, 1]
    return plane * np.where(largest < 0, -1.0, 1.0), share


def _spread(ends: Ints) -> Ints:
    return ends[np.unique(np.linspace(0, len(ends) - 1, DRAWN // 2).astype(np.int64))]


def _codes(autoencoder: Autoencoder, data: Prepared, ends: Ints) -> tuple[Tensor, Tensor | None]:
    """Codes ``[n, …]`` of the windows that end at these rows, of a distribution its mean, and their context."""
    batch = Batches(Windows(data, ends)).gather(slice(None))
    own = batch.z[:, -autoencoder.shape.window :]  # [n, w, C]
    return autoencoder.encode(own, batch.context), batch.context


def _grid(deviation: Floats) -> Floats:
    """Points ``[G², 2]``, by the second axis first."""
    second, first = np.meshgrid(STEPS, STEPS, indexing="ij")
    return np.stack([first.ravel(), second.ravel()], axis=1) * deviation


def _decoded(autoencoder: Autoencoder, grid: Floats, shape: torch.Size, context: Tensor | None) -> Decoded:
    code = torch.from_numpy(grid).float().view(-1, *shape)  # [G², …]
    given = None if context is None else context.expand(len(code), -1)  # [G², K]
    windows = autoencoder.decode(code, given).numpy()  # [G², w, C]
    varied = windows.std(axis=0).mean(axis=0)  # [C]
    channels = np.argsort(-varied, kind="stable")[:CHANNELS]
    step = -(-windows.shape[1] // POINTS)
    drawn = windows[:, (windows.shape[1] - 1) % step :: step, channels].transpose(0, 2, 1)  # [G², c, points]
    rounded = [[[float(f"{value:.3f}") for value in line] for line in window] for window in drawn]
    G = len(STEPS)
    return Decoded(
        steps=list(STEPS),
        channels=channels.tolist(),
        windows=[rounded[at : at + G] for at in range(0, G * G, G)],
    )


def _points(points: Floats) -> Points:
    x, y = ([float(f"{value:.4g}") for value in column] for column in points.T)
    return Points(x=x, y=y)
