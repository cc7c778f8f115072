"""What the report of an image model shows: the worst images, their codes in the plane, what a grid of codes decodes to.

Pictures are PNG files in base64, at most ``SIDE`` pixels high and wide.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detector.engine.model import Model
from detector.engine.pictures import error_png
from detector.engine.scorer import Scorer
from schemas.frozen import Frozen
from schemas.moment import SECOND_NS
from trainer.calibrate import Calibrated
from trainer.images.architecture import ImageAutoencoder, as_images
from trainer.images.autoencoder import VariationalConvAutoencoder
from trainer.images.data import Part, PreparedImages
from trainer.latent import STEPS, Latent, Points, principal

#: Images that are shown: those with the largest scores, and usual ones to compare with.
WORST, USUAL = 6, 2

#: Images whose codes are drawn, half of the fit and half of the calibration stretch.
DRAWN = 1000

SIDE = 160

Floats = NDArray[np.float64]


class Pictured(Frozen):
    """One image of the calibration stretch: as it was, as it was expected to be, and where they differ."""

    stream: str
    time: float
    """Seconds since 1970."""
    score: float
    """In thresholds."""
    observed: str
    expected: str
    error: str


def pictured(model: Model, data: PreparedImages, calibrated: Calibrated) -> list[Pictured]:
    """The worst images, the worst first, and those of a median score."""
    score = calibrated.score / calibrated.threshold[calibrated.stream]
    order = np.argsort(-score, kind="stable")
    usual = order[len(order) // 2 :][:USUAL]
    chosen = np.unique(np.concatenate([order[:WORST], usual]))
    chosen = chosen[np.argsort(-score[chosen], kind="stable")]
    rows = _rows_of(data, calibrated, chosen)
    given = Part(data, rows).raw(slice(None))[:3]
    scorer = Scorer(model.graph, model.manifest.batching)
    error, expected = scorer.map(*given), scorer.window(*given)[:, 0]
    most = float(np.nanmax(error))  # one scale for all, or a usual image would look as bad as a worst one
    return [
        Pictured(
            stream=data.names[calibrated.stream[place]],
            time=round(int(calibrated.times[place]) / SECOND_NS, 3),
            score=float(f"{score[place]:.5g}"),
            observed=_picture(data, data.table.values[row]),
            expected=_picture(data, expected[number]),
            error=_small(error_png(error[number], most)),
        )
        for number, (place, row) in enumerate(zip(chosen.tolist(), rows.tolist(), strict=True))
    ]


def _rows_of(data: PreparedImages, calibrated: Calibrated, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the log of these scores, by stream and time."""
    place = {name: number for number, name in enumerate(data.names)}
    rows = {(place[data.table.streams[row]], int(data.table.times[row])): row for row in data.calibration_rows.tolist()}
    return np.array([rows[int(calibrated.stream[n]), int(calibrated.times[n])] for n in chosen.tolist()], np.int64)


def _picture(data: PreparedImages, values: NDArray[np.float32]) -> str:
    z = np.nan_to_num((values - data.low) / data.span).clip(0, 1).reshape(data.frame)
    pixels = (255 * z).round().astype(np.uint8)
    shown = pixels[:, :, 0] if data.frame.bands != 3 else pixels  # of other bands the first
    out = io.BytesIO()
    Image.fromarray(shown).save(out, "PNG")
    return _small(out.getvalue())


def _small(png: bytes) -> str:
    with Image.open(io.BytesIO(png)) as image:
        if max(image.size) <= SIDE:
            return base64.b64encode(png).decode()
        small = image.convert("RGB" if image.mode in ("P", "RGB") else "L")
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@torch.no_grad()
def image_codes(network: ImageAutoencoder, name: str, data: PreparedImages) -> tuple[Latent, list[list[str]] | None]:
    """The codes on their first two principal axes; of a variational model also pictures decoded from a grid on them, by
    the second axis, the first.
    """
    fit, calibration = (_codes(network, part) for part in (data.fit, data.calibration))  # [n, …] each
    code = torch.cat([fit, calibration])
    flat = code.flatten(1).double().numpy()  # [n, L]
    middle = flat.mean(axis=0)
    axes, share = principal(flat - middle)  # [2, L]
    points = (flat - middle) @ axes.T  # [n, 2]
    latent = Latent(
        model=name,
        size=flat.shape[1],
        share=(float(f"{share[0]:.4g}"), float(f"{share[1]:.4g}")),
        fit=_points(points[: len(fit)]),
        calibration=_points(points[len(fit) :]),
        worst=Points(x=[], y=[]),
    )
    if not isinstance(network, VariationalConvAutoencoder):
        return latent, None
    deviation = points.std(axis=0)
    rows = []
    for second in STEPS:
        places = np.array([[first, second] for first in STEPS]) * deviation @ axes + middle  # [G, L]
        images = network.decode(torch.from_numpy(places).float().view(-1, *code.shape[1:]))  # [G, bands, H, W]
        values = images.permute(0, 2, 3, 1).flatten(1).numpy() * data.span + data.low  # [G, V]
        rows.append([_picture(data, image) for image in values])
    return latent, rows


def _codes(network: ImageAutoencoder, part: Part) -> Tensor:
    chosen = np.unique(np.linspace(0, len(part) - 1, DRAWN // 2).astype(np.int64))
    codes = [
        network.encode(as_images(torch.from_numpy(part.scaled(chosen[at : at + 16])), part.data.frame))
        for at in range(0, len(chosen), 16)
    ]
    return torch.cat(codes)


def _points(points: Floats) -> Points:
    x, y = ([float(f"{value:.4g}") for value in column] for column in points.T)
    return Points(x=x, y=y)
