"""Settings of ``trainer fit``: flags over RESIDUAL_TRAINER_… over ``[trainer]`` of a TOML file over defaults."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from schemas.champion import GroupName
from schemas.errors import SettingsError
from schemas.machine import OffWhen
from schemas.moment import parse_duration
from schemas.promise import DEFAULT, PromiseText
from schemas.settings import Duration, Settings
from trainer.losses import LOSSES
from trainer.models import AUTOENCODERS, MODELS, PLUS, members_of
from trainer.source import SourceSettings

TABLE = "trainer"
PREFIX = "RESIDUAL_TRAINER_"

#: The model is chosen by what it finds of planted faults.
AUTO = "auto"

#: Settings that say nothing to the other kind of data.
SENSORS_ONLY = frozenset({
    "channels", "window", "score", "context", "mask_channels", "scale_floor", "error_floor", "patience",
    "stream_field", "timestamp_field", "values_field", "off_when", "settle", "streams",
})  # fmt: skip
IMAGES_ONLY = frozenset({"shift", "brightness", "region", "measures", "top", "frame"})

MEASURES = ("error", "ssim", "error+ssim")
ALL_LOSSES = ("gaussian", *LOSSES)


class FitSettings(SourceSettings, Settings):
    """What ``trainer fit`` can be told; each field is a key of ``--set``, the commonest are flags too."""

    table: ClassVar[str | None] = TABLE

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    model: str = Field(AUTO, description=f"auto (the best of some), {', '.join(MODELS)}, or several joined by +")
    group: GroupName = Field("default", description="group of streams that the model is for")
    off_when: OffWhen = Field(
        "",
        description="sensors: CHANNEL < NUMBER [and …] [for PATTERN of streams], several with ; between them: where "
        "this holds a machine is off, and nothing is learned nor judged",
    )
    settle: Duration = Field(0, description="sensors: a machine that was off is not learned nor judged for this long")
    epochs: int = Field(60, ge=1, description="passes over the data, at most; images: as many as 1000 steps take")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random: the same seed, the same model")
    window: int | None = Field(None, ge=1, le=4096, description="readings in a window; the architecture's own default")
    latent: int | None = Field(None, ge=1, description="size of the code; the architecture's own default")
    hidden: int | None = Field(None, ge=1, description="units of the widest hidden layer; the model's own default")
    depth: int | None = Field(None, ge=1, le=8, description="hidden layers on either side; the model's own default")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units left out in training")
    variance: float = Field(0.9, gt=0, le=1, description="pca without latent: share of the variance that is kept")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="step size of Adam; images: 3e-3 in one cycle")
    batch_size: int = Field(128, ge=1, description="windows of a training step; images: 32")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of Adam; images: 1e-4")
    loss: str = Field("mse", description=f"training loss: {', '.join(ALL_LOSSES)} (bce: images); the score: a residual")
    noise: float | None = Field(
        None, ge=0, description="noise added in training, in standard deviations (denoising); the model's own default"
    )
    mask_cells: float = Field(0.0, ge=0, lt=1, description="share of cells hidden in training (denoising)")
    mask_channels: float = Field(0.0, ge=0, lt=1, description="share of channels hidden in training")
    mask_spans: float = Field(0.0, ge=0, le=1, description="share of windows with a span hidden in training")
    beta: float = Field(0.1, ge=0, description="…-vae: weight of the code's divergence from its prior; images: 0.005")
    warm_up: float = Field(0.2, ge=0, le=1, description="…-vae: share of the way in which beta rises from 0; images: 0")
    score: Literal["newest", "window", "elbo"] = Field(
        "newest", description="sensors: what a score compares: the newest reading, the window, or (…-vae) the ELBO"
    )
    shift: int | None = Field(
        None, ge=0, le=2, description="images: pixels that they may move, in training and in the score; 1, small ones 0"
    )
    brightness: float = Field(0.0, ge=0, lt=1, description="images: share by which light may change, in training")
    region: str | None = Field(None, description="images: a picture of their size, black where pixels do not count")
    measures: str = Field("error+ssim", description="images: what a pixel's error is: error, ssim or error+ssim")
    top: float = Field(1.0, gt=0, le=1, description="images: the score is the mean of this share of worst pixels")
    context: str = Field(
        "auto", description="season as context: auto (found in the data), none, or a period such as 1d"
    )
    init_from: str | None = Field(None, description="model folder whose weights to start from")
    freeze: str = Field("", description="with init_from: layers that stay as they are, by name, comma-separated")
    warm_rate: float = Field(0.3, gt=0, le=1, description="with init_from: learning_rate is multiplied by this")
    precision: Literal["full", "mixed"] = Field(
        "full", description="mixed: products of matrices in bfloat16 while training, weights in full; for a GPU"
    )
    epoch_windows: int = Field(100_000, ge=1, description="windows drawn in an epoch, at most")
    fit_limit: Duration = Field("10m", gt=0, validate_default=True, description="time to fit a model, at most")
    patience: int = Field(8, ge=1, description="epochs without a better validation loss after which training stops")
    calibration_share: float = Field(0.3, gt=0, lt=1, description="last share of a stream, for its threshold only")
    validation_share: float = Field(1 / 7, gt=0, lt=1, description="last share of the rest, for early stopping only")
    false_alarms: PromiseText = Field(
        DEFAULT, description="N/DURATION: false alarms that a stream may have; fleet:N/DURATION: all together"
    )
    smoothing_span: float = Field(8, ge=1, le=1000, description="span of the mean of raw scores; 1 is none; images: 1")
    scale_floor: float = Field(0.01, gt=0, le=1, description="least scale, as a share of the channel's normal range")
    error_floor: float = Field(0.01, gt=0, description="added to a channel's normal mean square error, scaled units")
    detectability: bool = Field(True, description="sensors: whether to measure which faults the model can see")
    threads: int = Field(1, ge=1, le=256, description="threads of PyTorch; another number may change the last digits")

    @model_validator(mode="after")
    def _a_score_that_the_model_has(self) -> FitSettings:
        """Found before an hour of training, not after."""
        name = self.model
        reconstructs = name.split("-")[0] in AUTOENCODERS and "-aer" not in name and PLUS not in name
        if self.score == "elbo" and not (reconstructs and name.endswith("-vae")):
            raise ValueError("score=elbo needs the code's distribution: name a …-vae with --model, or another score")
        if self.score == "window" and not reconstructs:
            raise ValueError(
                f"score=window needs a model that reconstructs and no more: name one of {', '.join(AUTOENCODERS)} or a "
                "…-vae with --model, or another score"
            )
        return self

    def refuse(self, names: frozenset[str], wanted: str) -> None:
        """Raises SettingsError for a setting of these that was named: it would be ignored."""
        for name in sorted(names & self.model_fields_set):
            raise SettingsError(f"setting {name!r} is for {wanted} only: leave it out")

    @property
    def frozen(self) -> tuple[str, ...]:
        """The layers named in ``freeze``."""
        return tuple(name.strip() for name in self.freeze.split(",") if name.strip())

    @field_validator("model")
    @classmethod
    def _an_architecture(cls, name: str) -> str:
        if name != AUTO:
            members_of(name)
        return name

    @field_validator("loss")
    @classmethod
    def _a_loss(cls, name: str) -> str:
        if name not in ALL_LOSSES:
            raise ValueError(f"one of {', '.join(ALL_LOSSES)}")
        return name

    @field_validator("measures")
    @classmethod
    def _measures(cls, text: str) -> str:
        if text not in MEASURES:
            raise ValueError(f"one of {', '.join(MEASURES)}")
        return text

    @field_validator("context")
    @classmethod
    def _a_context(cls, text: str) -> str:
        if text not in ("auto", "none") and parse_duration(text) <= 0:
            raise ValueError("auto, none or a period such as 1d")
        return text
