"""The base of every schema: frozen, and an unknown key is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that crosses a boundary: it cannot be changed, and what it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
