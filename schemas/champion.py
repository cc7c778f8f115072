"""champion.json: which version of a model group serves, and how that came about."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, field_validator

from schemas.frozen import Frozen
from schemas.manifest import Sha256
from schemas.moment import parse_time

CHAMPION_VERSION: Final = 1

#: ``20261126T021500Z-1f3a5c7e9b0d``: when it was stored, and the first digits of its manifest's SHA-256.
VersionId = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}$")]

#: One element of a path.
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]


class Promotion(Frozen):
    """A version began to serve."""

    version: VersionId
    manifest_sha256: Sha256 = Field(description="names everything in the version's folder")
    parent: VersionId | None = Field(None, description="what a rollback goes back to; null: there is nothing")
    replaced: VersionId | None = Field(None, description="what served until then; null: nothing")
    at: str = Field(description="RFC 3339")
    by: str = Field(max_length=200)
    why: str = Field("", max_length=2000)

    @field_validator("at")
    @classmethod
    def _a_time(cls, at: str) -> str:
        parse_time(at)
        return at


class Champion(Frozen):
    """What serves now is the last of the ``history``, oldest first; it goes back a hundred promotions."""

    format_version: Literal[1] = CHAMPION_VERSION
    history: tuple[Promotion, ...] = Field(min_length=1)

    @property
    def now(self) -> Promotion:
        """What serves."""
        return self.history[-1]
