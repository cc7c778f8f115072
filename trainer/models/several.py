"""Several networks as one: the heads of all of them, fitted apart and scored together.

A reconstruction and a prediction err on different faults: the first on what does not fit together, the second on what
does not follow. A score that adds their standardised residuals sees both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.models.architecture import Architecture, Outcome, Shape


class Several(Architecture):
    """Each member sees as much of the window as it was fitted on, its newest part."""

    def __init__(self, members: Sequence[Architecture]) -> None:
        widest = max(members, key=lambda member: member.shape.window)
        super().__init__(Shape(widest.shape.window, widest.shape.channels, widest.shape.context))
        self.members = nn.ModuleList(members)
        self._widest = list(members).index(widest)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Outcome:
        """What all of them expect."""
        outcomes = [member(z[:, -member.shape.window :], context) for member in self._each()]
        return Outcome(tuple(expected for outcome in outcomes for expected in outcome.expected))

    def newest(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The heads of all members, ``[B, H, C]``."""
        return torch.cat([member.newest(z[:, -member.shape.window :], context) for member in self._each()], 1)

    def window(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """As the member with the longest window would have it, ``[B, W, C]``."""
        return self._each()[self._widest].window(z, context)

    def _each(self) -> list[Architecture]:
        return list(self.members)  # type: ignore[arg-type]
