"""The size of an image: what a reading holds where a stream is a camera."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

_Side = Annotated[int, Field(ge=1)]


class Frame(NamedTuple):
    """The size of one image; its values lie row by row, the bands of a pixel beside each other."""

    height: _Side
    width: _Side
    bands: _Side

    @property
    def values(self) -> int:
        """Numbers in an image."""
        return self.height * self.width * self.bands

    @property
    def band_names(self) -> tuple[str, ...]:
        """What its bands are called, as channels are."""
        known = {1: ("grey",), 3: ("red", "green", "blue")}
        return known.get(self.bands) or tuple(f"band-{number}" for number in range(1, self.bands + 1))

    def __str__(self) -> str:
        return f"{self.height}×{self.width}" + (f"×{self.bands}" if self.bands > 1 else "")
