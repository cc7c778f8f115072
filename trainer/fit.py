"""Fitting: gradient descent with early stopping, or the closed form where there is one."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from schemas.errors import ResidualError
from trainer.data import Prepared, Windows
from trainer.losses import masked_mse
from trainer.models import ARCHITECTURES, Architecture, ClosedForm
from trainer.settings import FitSettings


@dataclass(frozen=True)
class Curve:
    """Mean loss of each epoch on the fit and the validation stretch; ``best``: the epoch that was kept, from 0."""

    fit: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best: int = 0


def fit(data: Prepared, settings: FitSettings) -> tuple[Architecture, Curve]:
    """A fitted architecture in evaluation mode, and how it got there. The same seed gives the same weights."""
    with _deterministic(settings):
        model = ARCHITECTURES[settings.model](data.window, data.channels, settings.latent)
        if isinstance(model, ClosedForm):
            curve = _solve(model, data, settings)
        else:
            curve = _descend(model, data, settings)
    return model.eval(), curve


@contextmanager
def _deterministic(settings: FitSettings) -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(settings.threads)  # how a sum is split over threads changes its last digits
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _solve(model: ClosedForm, data: Prepared, settings: FitSettings) -> Curve:
    def batches() -> Iterator[Tensor]:
        for chosen in data.fit.batches():
            yield torch.from_numpy(data.fit.scaled(chosen)[0])

    model.solve(batches, settings.variance)
    return Curve([evaluate(model, data.fit)], [evaluate(model, data.validation)])


def _descend(model: Architecture, data: Prepared, settings: FitSettings) -> Curve:
    """Adam on the masked loss; the weights of the epoch with the least validation loss are kept."""
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    curve = Curve()
    kept, best, least = copy.deepcopy(model.state_dict()), 0, math.inf
    with _Progress(settings.epochs) as progress:
        for epoch in range(settings.epochs):
            curve.fit.append(_epoch(model, optimiser, data.fit, settings.batch_size))
            curve.validation.append(evaluate(model, data.validation))
            # a validation stretch without windows (very little data): the fit itself has to do
            loss = curve.validation[-1] if len(data.validation) else curve.fit[-1]
            if loss < least:
                kept, best, least = copy.deepcopy(model.state_dict()), epoch, loss
            progress.say(epoch, curve.fit[-1], curve.validation[-1])
            if epoch - best >= settings.patience:
                break
    if not math.isfinite(least):
        raise ResidualError("the training diverged: take a smaller --set learning_rate")
    model.load_state_dict(kept)
    return Curve(curve.fit, curve.validation, best)


def _epoch(model: Architecture, optimiser: torch.optim.Optimizer, windows: Windows, batch_size: int) -> float:
    model.train()
    order = torch.randperm(len(windows)).numpy()
    total = 0.0
    for at in range(0, len(order), batch_size):
        chosen = np.sort(order[at : at + batch_size])  # in order of place: kinder to the cache, no other effect
        z, observed = (torch.from_numpy(a) for a in windows.scaled(chosen))
        loss = masked_mse(model(z), z, observed)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(order)


@torch.no_grad()
def evaluate(model: Architecture, windows: Windows) -> float:
    """Masked mean square error over all windows; NaN where there are none."""
    model.eval()
    total, count = 0.0, 0
    for chosen in windows.batches():
        z, observed = (torch.from_numpy(a) for a in windows.scaled(chosen))
        cells = int(observed.sum())
        total += float(masked_mse(model(z), z, observed)) * cells
        count += cells
    return total / count if count else math.nan


class _Progress:
    """A bar on a terminal, a line per tenth of the way in a log."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar = tqdm(total=epochs, desc="fit", unit="epoch", leave=False) if sys.stderr.isatty() else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def say(self, epoch: int, fit_loss: float, validation_loss: float) -> None:
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(fit=f"{fit_loss:.4f}", validation=f"{validation_loss:.4f}")
        elif (epoch + 1) % max(self.epochs // 10, 1) == 0 or epoch == 0:
            text = f"epoch {epoch + 1} of at most {self.epochs}: loss {fit_loss:.4f}, validation {validation_loss:.4f}"
            print(text, file=sys.stderr, flush=True)
