"""Settings of ``trainer synth``: flags over RESIDUAL_SYNTH_… over ``[synth]`` of a file."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from schemas.settings import Duration, Settings, Texts
from trainer.source import SourceSettings

TABLE = "synth"
PREFIX = "RESIDUAL_SYNTH_"


class SynthSettings(SourceSettings, Settings):
    """What ``trainer synth`` can be told."""

    table: ClassVar[str | None] = TABLE

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    model: Literal["auto", "gan", "vae"] = Field("auto", description="generator: auto is the better one")
    groups: Texts = Field(("*",), description="patterns of streams, with ; between them: each group has its own style")
    seed: int = Field(0, ge=0, description="of all that is drawn")
    hidden: int = Field(64, ge=4, le=1024, description="width of the networks")
    steps: int = Field(2500, ge=10, description="steps of the variational fit")
    rate: float = Field(2e-3, gt=0, description="its learning rate")
    game_steps: int = Field(12000, ge=1, description="steps of the generator in the adversarial game, at most")
    critic_steps: int = Field(1, ge=1, description="steps of the critic for each of them")
    game_rate: float = Field(1e-4, gt=0, description="learning rate of the generator in the game")
    critic_rate: float = Field(4e-4, gt=0, description="learning rate of the critic")
    batch: int = Field(32, ge=8, multiple_of=8, description="windows in a step")
    fit_limit: Duration = Field("30min", gt=0, validate_default=True, description="each of the two fits ends by then")
    window: int = Field(24, ge=2, le=512, description="readings of the windows that the quality report compares")
