"""Settings of the nightly run and of the store: flags over RESIDUAL_RETRAIN_… over ``[retrain]`` of a file."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from schemas.champion import GroupName
from schemas.settings import Settings

TABLE = "retrain"
PREFIX = "RESIDUAL_RETRAIN_"


class StoreSettings(Settings):
    """Where versions are kept."""

    table: ClassVar[str | None] = TABLE

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    store: str = Field("models", description="model store: a folder, or s3://BUCKET/PREFIX")
    group: GroupName = Field("default", description="group of streams whose model is meant")
