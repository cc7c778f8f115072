"""Architectures by name. A new one is one file and one line here; ``tests/contract/test_models.py`` then runs on it."""

from __future__ import annotations

from trainer.models.architecture import Architecture, ClosedForm
from trainer.models.conv import Conv
from trainer.models.dense import Dense
from trainer.models.pca import PCA

#: The first is the baseline that every other one must beat.
ARCHITECTURES: dict[str, type[Architecture]] = {
    "pca": PCA,
    "dense": Dense,
    "conv": Conv,
}

__all__ = ["ARCHITECTURES", "Architecture", "ClosedForm"]
