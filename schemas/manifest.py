"""The manifest of a model folder: what the graph expects, where it came from and what it promises."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from schemas.frame import Frame
from schemas.frozen import Frozen

MANIFEST_VERSION = 1


class Channel(Frozen):
    """One sensor of a stream."""

    name: str = Field(min_length=1)
    unit: str | None = None
    min: float | None = Field(None, description="smallest normal value seen in training, engineering units")
    max: float | None = Field(None, description="largest normal value seen in training, engineering units")


class Batching(Frozen):
    """How batches must be shaped so that a score does not depend on its neighbours."""

    multiple: int = Field(8, ge=1, description="batches are padded to a multiple of this many windows")
    fixed: int | None = Field(None, ge=1, description="every batch has exactly this many windows, where not null")


class Season(Frozen):
    """What the detector remembers of how each channel usually is at this time of a period."""

    period_s: float = Field(gt=0, description="seconds after which the streams of the group repeat themselves")
    bins: int = Field(ge=1, le=48, description="parts of the period of which a level is remembered")
    decay: float = Field(0.4, gt=0, le=1, description="weight of the newest period in a level")


class Candidate(Frozen):
    """A model that was tried where none was named: what it found of planted faults, and what it costs."""

    model: str
    found: float = Field(description="mean area under precision and recall over kinds of planted faults")
    over_baseline: float = Field(description="by how much that is more than window PCA found")
    standard_errors: float = Field(description="that difference in standard errors, over pairs of plantings and kinds")
    parameters: int
    mflop: float = Field(description="million floating-point operations of one window's score")
    microseconds: float = Field(description="of one window in full batches, one thread of the fitting machine")
    fit_s: float


class Calibration(Frozen):
    """How raw scores became scores in thresholds. The thresholds and the tail themselves lie in streams.npz."""

    method: Literal["split-conformal"] = "split-conformal"
    rate: float = Field(gt=0, lt=1, description="promised share of normal readings that score above 1")
    readings: int = Field(ge=0, description="scored readings of the calibration stretch")
    threshold: float = Field(gt=0, description="raw score that counts as 1 for a stream without its own threshold")
    floor: float = Field(gt=0, description="a lower threshold is raised to this")


class Training(Frozen):
    """What the model was fitted on."""

    start: str
    end: str
    readings: int
    streams: int
    calibration_start: str = Field(description="readings from here on set the thresholds, not the weights")
    data_sha256: str
    seed: int


class Manifest(Frozen):
    """manifest.json."""

    format_version: Literal[1] = 1
    model: str = Field(description="architecture: pca, dense, conv …")
    group: str = "default"
    channels: tuple[Channel, ...] = Field(min_length=1)
    frame: Frame | None = Field(
        None, description="height, width and bands where a reading is an image; its bands are the channels"
    )
    window: int = Field(ge=1, description="readings in a window, the newest last")
    interval_s: float = Field(gt=0, description="seconds between readings of a stream")
    season: Season | None = Field(None, description="context: what is usual at this time; null: the graph has none")
    score: str = Field("residual of the newest reading", description="what a raw score is made of")
    smoothing_span: float = Field(1, ge=1, description="span of the moving average of raw scores; 1 is none")
    batching: Batching = Batching()
    calibration: Calibration
    training: Training
    metrics: dict[str, float] = Field(default_factory=dict)
    candidates: tuple[Candidate, ...] = Field((), description="what the model was chosen from, where none was named")
    parent: str | None = None
    graph_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    made_with: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _an_image_is_a_window(self) -> Manifest:
        if self.frame is not None and (self.frame.bands, 1, None) != (len(self.channels), self.window, self.season):
            raise ValueError("images have a channel for each band, a window of one and no season")
        return self

    @property
    def values(self) -> int:
        """Numbers in a reading: one for each channel, or for each band of each pixel of an image."""
        return self.frame.values if self.frame else len(self.channels)

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        """Names in the order of the graph's last axis."""
        return tuple(channel.name for channel in self.channels)
