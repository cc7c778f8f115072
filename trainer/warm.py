"""Warm start: a network begins from the weights of a model that was fitted before.

The weights lie beside the graph as ``weights.safetensors`` (no pickle). What fits is copied: every tensor of the same
name and shape, except, where the channels are other ones, those whose shape depends on the channels: the first and the
last layers, which begin anew. Copied weights are shown to say what the old graph says before anything is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from detector.adapters.folder import read_file, read_model
from detector.engine.model import Model
from detector.engine.scorer import Scorer
from schemas.errors import ModelError, ParityError, SettingsError
from trainer.data import Windows
from trainer.graph import Graph
from trainer.models import Architecture, Kind, Shape, Size

WEIGHTS = "weights.safetensors"

#: Held-out windows that the copied weights are compared on.
COMPARED = 256

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Ancestor:
    """The model that a fit starts from."""

    path: str
    model: Model
    weights: dict[str, torch.Tensor]


def weights_of(network: nn.Module) -> bytes:
    """The file's bytes."""
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})


def read_ancestor(path: str, name: str) -> Ancestor:
    """The model folder to start from; ``name``: of the model that is to be fitted. Raises UserError."""
    model = read_model(path)
    if model.manifest.model != name:
        raise SettingsError(
            f"--init-from {path}: it is a {model.manifest.model}, not a {name}: fit with --model {model.manifest.model}"
        )
    if not (Path(path) / WEIGHTS).is_file():
        raise ModelError(f"{path} holds no {WEIGHTS}: fit it again with this version, then start from it")
    try:
        weights = load(read_file(path, WEIGHTS, model.manifest))
    except SafetensorError as error:
        raise ModelError(f"{Path(path) / WEIGHTS} cannot be read: {error}") from error
    return Ancestor(path, model, weights)


@dataclass(frozen=True)
class Start:
    """Where a network begins: the ancestor's weights, as far as they fit a model of these channels."""

    ancestor: Ancestor
    channels: tuple[str, ...]
    whole: bool = True
    """The network is all of the ancestor's graph, not one member of it."""

    def member(self, number: int) -> Start:
        """What the ``number``-th of several networks that were fitted apart begins with."""
        prefix = f"members.{number}."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.ancestor.weights.items()
            if name.startswith(prefix)
        }
        return Start(replace(self.ancestor, weights=weights), self.channels, whole=False)

    def give(self, network: Architecture, kind: Kind, size: Size, held_out: Windows) -> list[str]:
        """Copy what fits into ``network``; the names of the tensors copied. Raises SettingsError where nothing fits."""
        ancestor = self.ancestor
        same = self.channels == ancestor.model.manifest.channel_names
        bound = set() if same else _bound_to_channels(network.shape, kind, size)
        own = network.state_dict()
        copied = [
            name
            for name, tensor in ancestor.weights.items()
            if name not in bound and name in own and own[name].shape == tensor.shape
        ]
        if not copied:
            raise SettingsError(
                f"--init-from {ancestor.path}: none of its layers fits: take the settings that it was fitted with"
            )
        network.load_state_dict({**own, **{name: ancestor.weights[name] for name in copied}})
        manifest = ancestor.model.manifest
        if (
            self.whole
            and same
            and network.shape.window == manifest.window
            and len(copied) == len(own) == len(ancestor.weights)
        ):
            _check(network, ancestor, held_out)
        return copied


def freeze(network: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Keep the parameters whose names begin so as they are. Raises SettingsError for a prefix that none has."""
    for prefix in prefixes:
        chosen = [p for name, p in network.named_parameters() if name == prefix or name.startswith(prefix + ".")]
        if not chosen:
            layers = sorted({name.rpartition(".")[0] for name, _ in network.named_parameters()})
            known = f"there are {', '.join(layers)}" if layers else "this model has none"
            raise SettingsError(f"setting 'freeze': no layer is named {prefix}: {known}")
        for parameter in chosen:
            parameter.requires_grad_(False)


def _bound_to_channels(shape: Shape, kind: Kind, size: Size) -> set[str]:
    """Tensors whose shape depends on the number of channels."""
    wider = Shape(shape.window, shape.channels + 1, shape.context and shape.context + 1)
    one, other = (kind.build(s, size).state_dict() for s in (shape, wider))
    return {name for name in one if one[name].shape != other[name].shape}


@torch.no_grad()
def _check(network: Architecture, ancestor: Ancestor, held_out: Windows) -> None:
    """The copied weights and the old graph expect the same windows, within 1e-4 of a channel's scale · 10."""
    chosen = np.unique(np.linspace(0, len(held_out) - 1, COMPARED).astype(np.int64))
    given = held_out.raw(chosen)
    heads = network.newest(torch.zeros(1, network.shape.window, network.shape.channels), _no_context(network))
    graph = Graph(network, torch.ones(heads.shape[1:])).eval()
    inputs = (given.x, ~np.isnan(given.x), *given[1:])
    window = graph(*(None if a is None else torch.from_numpy(a) for a in inputs))[3].numpy()
    served = Scorer(ancestor.model.graph, ancestor.model.manifest.batching).window(*given)
    unit = np.maximum(given.scale[:, None], np.abs(window) * 1e-3)
    worst = float(np.max(np.abs(served - window) / (10 * unit)))
    if not worst <= TOLERANCE:
        raise ParityError(
            f"--init-from {ancestor.path}: its weights say something else than its graph, by up to {worst:.1e}: it was "
            "changed by hand, or fitted with other settings"
        )


def _no_context(network: Architecture) -> torch.Tensor | None:
    return torch.zeros(1, network.shape.context) if network.shape.context else None
