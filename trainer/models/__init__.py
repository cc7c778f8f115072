"""Architectures by name. A new one is one file and one line here; ``tests/contract/test_models.py`` then runs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from trainer.models.architecture import Architecture, Autoencoder, Forecaster, Outcome, Shape, Size
from trainer.models.conv import Conv
from trainer.models.dense import Dense
from trainer.models.linear import Linear
from trainer.models.lstm import LSTM
from trainer.models.mlp import MLP
from trainer.models.pca import PCA
from trainer.models.predicting import Predicting
from trainer.models.several import Several
from trainer.models.tcn import TCN
from trainer.models.variational import Variational

#: The first is the baseline that every other one must beat.
AUTOENCODERS: dict[str, type[Autoencoder]] = {"pca": PCA, "dense": Dense, "conv": Conv, "lstm": LSTM}
FORECASTERS: dict[str, type[Forecaster]] = {"linear": Linear, "mlp": MLP, "tcn": TCN}


@dataclass(frozen=True)
class Kind:
    """A model that can be named: an architecture, perhaps made variational, perhaps with a prediction head."""

    architecture: Callable[[Shape, Size], Autoencoder | Forecaster]
    default_window: int
    """Readings in a window, unless the user says otherwise."""
    default_noise: float
    """Noise added in training, in standard deviations, unless the user says otherwise."""
    variational: bool = False
    predicting: bool = False

    def build(self, shape: Shape, size: Size) -> Architecture:
        """A network that has learned nothing yet. Raises SettingsError where the architecture has no such shape."""
        built: Architecture = self.architecture(shape, size)
        if isinstance(built, Autoencoder):
            inner = Variational(built) if self.variational else built
            built = Predicting(inner) if self.predicting else inner
        return built


def _kinds() -> Iterator[tuple[str, Kind]]:
    for name, autoencoder in AUTOENCODERS.items():
        plain = Kind(autoencoder, autoencoder.default_window, autoencoder.default_noise)
        yield name, plain
        if autoencoder is not PCA:
            yield f"{name}-vae", replace(plain, variational=True)
        yield f"{name}-aer", replace(plain, predicting=True)
    for name, forecaster in FORECASTERS.items():
        yield name, Kind(forecaster, forecaster.default_window, forecaster.default_noise)


#: Every single model by name: ``-vae``: with a distributed code; ``-aer``: with a prediction head.
MODELS: dict[str, Kind] = dict(_kinds())

#: Between the names of models whose heads are scored together.
PLUS = "+"


def members_of(name: str) -> list[str]:
    """The single models of a name such as ``pca+mlp``. Raises ValueError where one is unknown or named twice."""
    names = name.split(PLUS)
    if not set(names) <= MODELS.keys() or len(set(names)) < len(names):
        raise ValueError(f"one of {', '.join(MODELS)}, or several of them joined by {PLUS}")
    return names


def default_window(name: str) -> int:
    """Readings in a window of a model, single or joined, unless the user says otherwise."""
    return max(MODELS[member].default_window for member in members_of(name))


__all__ = [
    "AUTOENCODERS",
    "MODELS",
    "PLUS",
    "Architecture",
    "Autoencoder",
    "Kind",
    "Outcome",
    "Several",
    "Shape",
    "Size",
    "default_window",
    "members_of",
]
