"""Fitting an autoencoder of images: one cycle of gradient descent over images that are moved and lit a little."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import ResidualError, SettingsError
from schemas.frame import Frame
from trainer.fit import Curve, Progress, deterministic, device, mixed, size_of
from trainer.images.architecture import ImageAutoencoder, as_images
from trainer.images.augmentation import Augmentation, ImageCorruption
from trainer.images.autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from trainer.images.data import Part, PreparedImages
from trainer.images.pca import MOST_IMAGES, ImagePCA
from trainer.images.score import Reduction, tolerance
from trainer.losses import LOSSES
from trainer.models.architecture import Size
from trainer.settings import FitSettings
from trainer.warm import freeze

log = logging.getLogger(__name__)

#: Image models by name; the first is the baseline.
IMAGE_MODELS: dict[str, Callable[[Frame, Size], ImageAutoencoder]] = {
    "pca": ImagePCA,
    "conv": ConvAutoencoder,
    "conv-vae": VariationalConvAutoencoder,
}

#: Of images, where the user says nothing else: measured on digits and clothes.
DEFAULTS = {
    "learning_rate": 3e-3, "batch_size": 32, "weight_decay": 1e-4, "beta": 0.005, "warm_up": 0.0, "smoothing_span": 1.0,
}  # fmt: skip

#: Steps of gradient descent, unless the user names epochs.
STEPS = 1000

#: Pixels, high and wide, of what a step sees of an image: a hundred large images in part teach more than four whole.
CROP = 160

#: Numbers in the images that a point of the curve is measured on.
LOOKED_AT = 1 << 24

#: How often the report's curves have a point.
POINTS = 20

#: Share of the time to fit after which the clock counts, where it is ahead of the steps.
LATE = 0.5

#: Share of the way in which the rate rises.
RISE = 0.1


def fit_images(
    data: PreparedImages, settings: FitSettings, weights: Mapping[str, Tensor] | None = None
) -> tuple[ImageAutoencoder, Curve]:
    """A fitted network in evaluation mode, and how it got there. The same seed gives the same weights.

    ``weights``: to start from, at the lower rate of a warm start; those that do not fit begin anew.
    """
    if settings.loss not in LOSSES:
        raise SettingsError(f"setting 'loss': {settings.loss} is for sensors: images take {', '.join(LOSSES)}")
    with deterministic(settings):
        network = IMAGE_MODELS[settings.model](data.frame, size_of(settings))
        rate = settings.learning_rate
        if weights is not None:
            own = network.state_dict()
            fitting = {
                name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape
            }
            if not fitting:
                raise SettingsError("--init-from: none of its layers fits: take the settings that it was fitted with")
            network.load_state_dict({**own, **fitting})
            rate *= settings.warm_rate
        network = network.to(device())
        if isinstance(network, ImagePCA):
            freeze(network, settings.frozen)
            chosen = np.unique(np.linspace(0, len(data.fit) - 1, MOST_IMAGES).astype(np.int64))
            network.solve(_batch(data.fit, chosen))
            curve = Curve([evaluate(network, data.fit)], [evaluate(network, data.validation)])
        else:
            learner = IMAGE_MODELS[settings.model](cropped(data.frame), size_of(settings)).to(device())
            learner.load_state_dict(network.state_dict())
            freeze(learner, settings.frozen)
            curve = _descend(learner, network, data, settings, rate)
    return network.cpu().eval(), curve


def cropped(frame: Frame) -> Frame:
    """What is learned from at once: of a large image a part, since no weight depends on the size."""
    return Frame(min(frame.height, CROP), min(frame.width, CROP), frame.bands)


def shift_of(data: PreparedImages, settings: FitSettings) -> int:
    """Pixels by which an image may move."""
    return tolerance(data.frame) if settings.shift is None else settings.shift


def one_cycle(progress: float) -> float:
    """Share of the full rate, at this share of the way: up, then down to nothing, along cosines (Smith and Topin,
    "Super-convergence: very fast training of neural networks using large learning rates", 2018).
    """
    if progress < RISE:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / RISE)) / 2
    return (1 + math.cos(math.pi * min((progress - RISE) / (1 - RISE), 1.0))) / 2


@dataclass(frozen=True)
class _Step:
    """What the loss of a batch is made of."""

    data: PreparedImages
    settings: FitSettings
    augment: Augmentation
    corrupt: ImageCorruption

    def loss(self, network: ImageAutoencoder, passed: float) -> Tensor:
        """Of a batch drawn anew, ``[]``: the loss of a pixel, and for a variational code its divergence on that scale
        (see ``trainer.fit.Objective``); ``passed``: share of the way.
        """
        rows = torch.randint(0, len(self.data.fit), (self.settings.batch_size,)).numpy()
        z = self.augment(_crops(self.data.fit, rows))  # [b, C, h, w]
        if self.settings.loss == "bce":  # light that was changed may have left the range
            z = z.clamp(0, 1)  # [b, C, h, w]
        spoilt = self.corrupt(z)  # [b, C, h, w]
        loss = LOSSES[self.settings.loss]
        if isinstance(network, VariationalConvAutoencoder):
            expected, divergence = network.sample(spoilt)  # [b, C, h, w], [b]
            beta = self.settings.beta * (min(passed / self.settings.warm_up, 1.0) if self.settings.warm_up else 1.0)
            return loss(expected, z).mean() + 2 * beta / z[0].numel() * divergence.mean()
        return loss(network(spoilt), z).mean()


def _descend(
    learner: ImageAutoencoder, network: ImageAutoencoder, data: PreparedImages, settings: FitSettings, rate: float
) -> Curve:
    """AdamW over one cycle; where the time runs out, the rate comes down with it.

    ``learner`` sees parts of images, ``network`` whole ones: it gets the learner's weights.
    """
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise SettingsError("setting 'freeze': all layers are frozen: leave one to learn")
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)
    corrupt = ImageCorruption(settings.noise or 0.0, settings.mask_cells, settings.mask_spans)
    step = _Step(data, settings, Augmentation(shift_of(data, settings), settings.brightness), corrupt)
    steps, curve, began = _steps(len(data.fit), settings), Curve(), time.monotonic()
    total, count, passed = torch.zeros((), device=device()), 0, 0.0
    with Progress(POINTS, "part") as progress:
        for number in range(1, steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = rate * one_cycle(passed)
            with mixed(settings):
                loss = step.loss(learner.train(), passed)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, count = total + loss.detach(), count + 1  # no wait for the device
            passed, clock = number / steps, (time.monotonic() - began) / settings.fit_limit
            if clock > LATE:  # not before: a slow first step must not change what is learned
                passed = max(passed, clock)
            if min(int(passed * POINTS), POINTS) > len(curve.fit):
                curve.fit.append(float(total) / count)
                network.load_state_dict(learner.state_dict())
                curve.validation.append(evaluate(network, data.validation))
                progress.say(len(curve.fit) - 1, curve.fit[-1], curve.validation[-1])
                total, count = torch.zeros_like(total), 0
            if passed >= 1:
                if number < steps:
                    log.warning("the time to fit was over after %d of %d steps (setting fit_limit)", number, steps)
                break
    network.load_state_dict(learner.state_dict())
    if not math.isfinite(curve.fit[-1]):
        raise ResidualError("the training diverged: take a smaller --set learning_rate")
    return Curve(curve.fit, curve.validation, len(curve.fit) - 1)


def _steps(images: int, settings: FitSettings) -> int:
    if "epochs" not in settings.model_fields_set:
        return STEPS
    return settings.epochs * math.ceil(min(images, settings.epoch_windows) / settings.batch_size)


def _batch(part: Part, chosen: NDArray[np.int64] | slice) -> Tensor:
    return as_images(torch.from_numpy(part.scaled(chosen)).to(device()), part.data.frame)  # [b, C, H, W]


def _crops(part: Part, chosen: NDArray[np.int64]) -> Tensor:
    """A part of each image, somewhere in it, ``[b, C, h, w]``; draws on torch's random state."""
    frame, data = cropped(part.data.frame), part.data
    if frame == data.frame:
        return _batch(part, chosen)
    down, right = (
        torch.randint(0, extent - own + 1, (len(chosen),)).tolist()
        for extent, own in zip(data.frame[:2], frame[:2], strict=True)
    )
    parts = [
        data.table.values[row].reshape(data.frame)[y : y + frame.height, x : x + frame.width]
        for row, y, x in zip(part.rows[chosen].tolist(), down, right, strict=True)
    ]
    z = np.nan_to_num((np.stack(parts) - data.low) / data.span)  # [b, h, w, C]
    return torch.from_numpy(z).to(device()).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def evaluate(network: ImageAutoencoder, part: Part) -> float:
    """Mean square error of the reconstruction, scaled values, over as many images as are soon looked at; NaN where
    there are none.
    """
    network.eval()
    if not len(part):
        return math.nan
    count = max(LOOKED_AT // part.data.frame.values, 1)
    some = Part(part.data, part.rows[np.unique(np.linspace(0, len(part) - 1, count).astype(np.int64))])
    total = 0.0
    for chosen in some.batches():
        z = _batch(some, chosen)  # [b, C, H, W]
        total += float((network(z) - z).square().mean()) * len(z)
    return total / len(some)


@torch.no_grad()
def band_error(network: ImageAutoencoder, part: Part) -> NDArray[np.float32]:
    """Mean square error of each band, ``[C]``, scaled values."""
    total = torch.zeros(part.data.frame.bands, dtype=torch.float64)
    for chosen in part.batches():
        z = as_images(torch.from_numpy(part.scaled(chosen)), part.data.frame)  # [b, C, H, W]
        total += (network(z) - z).square().mean((2, 3)).double().sum(0)  # [C]
    return (total / max(len(part), 1)).float().numpy()


@torch.no_grad()
def normal_error(network: ImageAutoencoder, part: Part, reduction: Reduction) -> Tensor:
    """The mean of each error map ``[M, H, W]`` of held-out normal images."""
    frame = part.data.frame
    total = torch.zeros(len(reduction.measures), frame.height, frame.width, dtype=torch.float64)
    for chosen in part.batches(64):
        z = as_images(torch.from_numpy(part.scaled(chosen)), frame)  # [b, C, H, W]
        total += reduction.maps(z, network(z)).double().sum(0)  # [M, H, W]
    return (total / max(len(part), 1)).float()
