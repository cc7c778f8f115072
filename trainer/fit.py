"""Fitting: gradient descent with early stopping, or the closed form where there is one."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from schemas.errors import ResidualError, SettingsError
from trainer.batches import Batch, Batches
from trainer.corruption import Corruption
from trainer.data import Prepared
from trainer.graph import residuals
from trainer.losses import LOSSES, gaussian_nll, masked_loss, masked_mean, squared
from trainer.models import MODELS, Architecture, Outcome, Several, Shape, Size, members_of
from trainer.settings import FitSettings
from trainer.warm import Start, freeze


@dataclass(frozen=True)
class Curve:
    """Mean loss of each epoch on the fit and the validation stretch; ``best``: the epoch that was kept, from 0."""

    fit: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best: int = 0


def fit(data: Prepared, settings: FitSettings, start: Start | None = None) -> tuple[Architecture, Curve]:
    """A fitted network in evaluation mode, and how it got there. The same seed gives the same weights.

    ``start``: the weights to begin with, at the lower rate of a warm start; nothing for what has a closed form. Several
    models are fitted one by one; the curve is the longest of theirs.
    """
    names = members_of(settings.model)
    if settings.loss == "bce":  # readings of sensors have no bounds, so their values are no probabilities
        raise SettingsError("setting 'loss': bce is for images, whose values lie between 0 and 1: take another")
    if settings.frozen and (start is None or len(names) > 1):
        raise SettingsError(
            "setting 'freeze': it keeps layers of --init-from as they are, of a model that is not joined"
        )
    if len(names) > 1:
        fitted = [
            fit(_for_member(data, settings, name), _alone(settings, name), start and start.member(number))
            for number, name in enumerate(names)
        ]
        curve = max((curve for _, curve in fitted), key=lambda curve: len(curve.fit))
        return Several([network for network, _ in fitted]).eval(), curve
    kind, size = MODELS[settings.model], size_of(settings)
    with deterministic(settings):
        network = kind.build(_shape(data), size).to(device())
        batches, validation = Batches(data.fit, device()), Batches(data.validation, device())
        if network.solve(lambda: ((batch.z, batch.context) for batch in batches.in_order())):
            curve = Curve([evaluate(network, batches)], [evaluate(network, validation)])
        else:
            if start is not None:
                network = network.cpu()
                start.give(network, kind, size, data.calibration)
                network = network.to(device())
            freeze(network, settings.frozen)
            rate = settings.learning_rate * (settings.warm_rate if start is not None else 1)
            curve = _descend(network, batches, validation, settings, rate)
    return network.cpu().eval(), curve


def _alone(settings: FitSettings, name: str) -> FitSettings:
    return settings.model_copy(update={"model": name})


def _for_member(data: Prepared, settings: FitSettings, name: str) -> Prepared:
    """The same windows, cut to what the member sees of them."""
    return replace(data, window=settings.window or MODELS[name].default_window)


def device() -> torch.device:
    """Where to train: the GPU that CUDA finds, or else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _shape(data: Prepared) -> Shape:
    return Shape(data.window, data.channels, 0 if data.context is None else data.context.shape[1])


def size_of(settings: FitSettings) -> Size:
    """How large a network the settings ask for."""
    return Size(settings.latent, settings.hidden, settings.depth, settings.dropout, settings.variance)


@contextmanager
def deterministic(settings: FitSettings) -> Iterator[None]:
    """The same seed, the same weights: torch's random state, threads and algorithms, as they were afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(settings.threads)  # how a sum is split over threads changes its last digits
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(settings.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def mixed(settings: FitSettings) -> torch.autocast:
    """The forward pass of a training step in the precision that was asked for (Micikevicius et al., "Mixed precision
    training", ICLR 2018; bfloat16 has the range of 32 bits and needs no scaling of the loss).
    """
    wanted = settings.precision == "mixed"
    if wanted and device().type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise SettingsError("precision mixed: this processor computes nothing in bfloat16: use full")
    return torch.autocast(device().type, torch.bfloat16, enabled=wanted)


class Objective(nn.Module):
    """What gradient descent makes small: the loss of each output, and for a variational code its divergence.

    With a Gaussian likelihood each channel has a variance of its own, which is learned with the weights. The divergence
    is brought to the scale of the loss: the negative ELBO of unit variance is ½ · cells · mean square + KL, so the mean
    square is joined by 2 · β · KL / cells (β: Higgins et al., "beta-VAE", ICLR 2017). In the first ``warm_up`` of the
    epochs β rises from 0 (Bowman et al., "Generating sentences from a continuous space", CoNLL 2016).
    """

    def __init__(self, settings: FitSettings, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.log_variance = nn.Parameter(torch.zeros(channels)) if settings.loss == "gaussian" else None

    def forward(self, outcome: Outcome, batch: Batch, progress: float) -> Tensor:
        """The loss of a batch, ``[]``; ``progress``: 0 at the first epoch, 1 at the last that there may be."""
        total = torch.zeros((), device=batch.z.device)
        for expected in outcome.expected:  # [b, R, C]
            newest = slice(-expected.shape[1], None)
            total = total + self._loss(expected, batch.z[:, newest], batch.observed[:, newest])
        if outcome.divergence is not None:
            warm = min(progress / self.settings.warm_up, 1.0) if self.settings.warm_up else 1.0
            cells = batch.z[0].numel()
            total = total + 2 * self.settings.beta * warm / cells * outcome.divergence.mean()
        return total

    def _loss(self, expected: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        if self.log_variance is None:
            return masked_loss(LOSSES[self.settings.loss], expected, z, observed)
        residual = torch.where(observed, z - expected, 0.0)  # [b, R, C]
        return masked_mean(gaussian_nll(residual, self.log_variance), observed)


def _descend(network: Architecture, batches: Batches, validation: Batches, settings: FitSettings, rate: float) -> Curve:
    """Adam on the loss; the weights of the epoch with the least validation error are kept."""
    objective = Objective(settings, network.shape.channels).to(device())
    parameters = [p for p in (*network.parameters(), *objective.parameters()) if p.requires_grad]
    if not any(p.requires_grad for p in network.parameters()):
        raise SettingsError("setting 'freeze': all layers are frozen: leave one to learn")
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)
    noise = MODELS[settings.model].default_noise if settings.noise is None else settings.noise
    corrupt = Corruption(noise, settings.mask_cells, settings.mask_channels, settings.mask_spans)
    curve = Curve()
    kept, best, least = copy.deepcopy(network.state_dict()), 0, math.inf
    began = time.monotonic()
    with Progress(settings.epochs) as progress:
        for epoch in range(settings.epochs):
            warm = epoch / max(settings.epochs - 1, 1)
            network.train()
            total, count = torch.zeros((), device=device()), 0
            for batch in batches.shuffled(settings.batch_size, settings.epoch_windows):
                with mixed(settings):
                    loss = objective(network(corrupt(batch.z), batch.context), batch, warm)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total, count = total + loss.detach() * len(batch.z), count + len(batch.z)  # no wait for the device
            curve.fit.append(float(total) / count)
            curve.validation.append(evaluate(network, validation))
            # a validation stretch without windows (very little data): the fit itself has to do
            error = curve.validation[-1] if len(validation) else curve.fit[-1]
            if error < least:
                kept, best, least = copy.deepcopy(network.state_dict()), epoch, error
            progress.say(epoch, curve.fit[-1], curve.validation[-1])
            if epoch - best >= settings.patience or time.monotonic() - began > settings.fit_limit:
                break
    if not math.isfinite(least):
        raise ResidualError("the training diverged: take a smaller --set learning_rate")
    network.load_state_dict(kept)
    return Curve(curve.fit, curve.validation, best)


@torch.no_grad()
def evaluate(network: Architecture, batches: Batches) -> float:
    """Mean square error of what is expected, over all windows and outputs; NaN where there are none."""
    network.eval()
    total, count = 0.0, 0
    for batch in batches.in_order():
        for expected in network(batch.z, batch.context).expected:
            newest = slice(-expected.shape[1], None)
            cells = int(batch.observed[:, newest].sum())
            total += float(masked_loss(squared, expected, batch.z[:, newest], batch.observed[:, newest])) * cells
            count += cells
    return total / count if count else math.nan


@torch.no_grad()
def mean_square_error(network: Architecture, held_out: Batches, score: str = "newest") -> Tensor:
    """Mean square error ``[H, C]`` of what a score compares (see ``trainer.graph.Graph``) on held-out normal windows,
    scaled units; 1 where none is there.

    Estimated on the calibration stretch: it is the longest and latest normal stretch that neither moved the weights nor
    said when to stop. Its scores also set the threshold, so split conformal's guarantee is not exact: each of them is
    divided by a mean that it is part of. Against the validation stretch, which would keep it exact, that cost nothing
    that could be measured: fitted on the first three quarters of eight servers' normal data and promised 1e-3, .98 % of
    the last quarter lay above the threshold, .96 % with the validation stretch (drift makes either so large). But that
    stretch is a third as long: a channel that happens to be quiet there counts for too much ever after, and labelled
    anomalies of minute-by-minute servers ranked lower (area under precision and recall .75 for .79).
    """
    total = count = torch.zeros((), dtype=torch.float64)
    for batch in held_out.in_order():
        there = batch.observed[:, -1:] if score == "newest" else batch.observed  # [b, 1 or H, C]
        residual, _ = residuals(network, score, batch.z, batch.context)  # [b, H, C]
        total = total + torch.where(there, residual, 0.0).double().square().sum(0)  # [H, C]
        count = count + there.sum(0)  # [1 or H, C]
    return torch.where(count > 0, total / count.clamp(min=1), 1.0).float()


class Progress:
    """A bar on a terminal, a line per tenth of the way in a log."""

    def __init__(self, epochs: int, unit: str = "epoch") -> None:
        self.epochs, self.unit = epochs, unit
        self.bar = tqdm(total=epochs, desc="fit", unit=unit, leave=False) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def say(self, epoch: int, fit_loss: float, validation_loss: float) -> None:
        """After each epoch, from 0."""
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(fit=f"{fit_loss:.4f}", validation=f"{validation_loss:.4f}")
        elif (epoch + 1) % max(self.epochs // 10, 1) == 0 or epoch == 0:
            text = f"{self.unit} {epoch + 1} of at most {self.epochs}: loss {fit_loss:.4f}"
            print(f"{text}, validation {validation_loss:.4f}", file=sys.stderr, flush=True)
