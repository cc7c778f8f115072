"""The manifest of a model folder: what the graph expects, where it came from and what it promises."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.frame import Frame
from schemas.frozen import Frozen
from schemas.machine import OffWhen
from schemas.promise import DEFAULT, PromiseText

#: Version 2 named the hash of the graph only; such folders are still read, except where a signature is asked for.
MANIFEST_VERSION = 3


Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

FileName = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")]


class Channel(Frozen):
    """One sensor of a stream."""

    name: str = Field(min_length=1)
    unit: str | None = None
    min: float | None = Field(None, description="smallest normal value seen in training, engineering units")
    max: float | None = Field(None, description="largest normal value seen in training, engineering units")
    lowest: float | None = Field(None, description="a value below is physically impossible; null: not known")
    highest: float | None = Field(None, description="a value above is physically impossible; null: not known")
    direction: Literal["both", "rise", "drop"] = Field("both", description="which way a deviation counts")
    weight: float = Field(
        1,
        ge=0,
        allow_inf_nan=False,
        description="how much a deviation counts; 0: the channel is watched, never counted",
    )
    stuck_after: int | None = Field(
        None,
        ge=0,
        le=60_000,
        description="one value in more readings in a row is a stuck sensor; 0: never, null: unknown",
    )
    missing_after: int | None = Field(
        None,
        ge=0,
        le=60_000,
        description="missing from more readings in a row is a lost sensor; 0: never, null: unknown",
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> Channel:
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ValueError(f"the lowest possible value {self.lowest:g} is not below the highest {self.highest:g}")
        return self


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


class Suspect(Frozen):
    """An episode of the stretch that set the thresholds which looks like a fault: too large to be of its tail."""

    stream: str
    time: str = Field(description="of its peak, RFC 3339")
    score: float = Field(description="in thresholds")


class Calibration(Frozen):
    """How raw scores became scores in thresholds. The thresholds and the tail themselves lie in streams.npz."""

    false_alarms: PromiseText = Field(DEFAULT, description="the promise: N/DURATION per stream, or fleet:N/DURATION")
    rate: float = Field(gt=0, description="what it came to: false-alarm episodes per stream and day")
    method: Literal["none", "ranks", "pot-exponential", "pot-gpd", "bulk-exponential", "bulk-gpd"] = Field(
        "none",
        description="what sets the threshold: ranks of the episodes, or a tail fitted to the peaks over a level (pot), "
        "or to those of the bulk alone where the largest look like faults",
    )
    readings: int = Field(ge=0, description="scored readings of the calibration stretch")
    threshold: float = Field(gt=0, description="raw score that counts as 1 for a stream never seen")
    floor: float = Field(gt=0, description="a lower threshold is raised to this")
    days: float = Field(0, ge=0, description="stream-days that the tail was fitted on")
    share: float = Field(0, ge=0, le=1, description="part of the data that they are")
    peaks: int = Field(0, ge=0, description="peaks of separate episodes that the tail was fitted on")
    shape: float = Field(0, description="of the generalised Pareto tail; 0 is an exponential one")
    scale: float = Field(0, ge=0, description="of the tail beyond the data, in raw scores")
    reach_s: float = Field(0, ge=0, description="longest return period of a stream that the data themselves reach")
    interval: tuple[float, float] | None = Field(
        None, description="90 % interval of the threshold, from resampled blocks of the data; null: too few of them"
    )
    suspected: int = Field(0, ge=0, description="episodes that look like faults and were left out of the tail")
    suspects: tuple[Suspect, ...] = Field((), description="the worst of them, the worst first")


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

    format_version: Literal[2, 3] = 3
    model: str = Field(description="architecture: pca, dense, conv …")
    group: str = "default"
    channels: tuple[Channel, ...] = Field(min_length=1)
    frame: Frame | None = Field(
        None, description="height, width and bands where a reading is an image; its bands are the channels"
    )
    window: int = Field(ge=1, description="readings in a window, the newest last")
    interval_s: float = Field(gt=0, description="seconds between readings of a stream")
    silent_after_s: float | None = Field(
        None, gt=0, description="seconds after which a stream is silent, as its usual pauses say; null: unknown"
    )
    off_when: OffWhen = Field("", description="where this holds a machine is off; see the setting of this name")
    settle_s: float = Field(0, ge=0, description="seconds after which a machine that was off is judged")
    season: Season | None = Field(None, description="context: what is usual at this time; null: the graph has none")
    score: str = Field("residual of the newest reading", description="what a raw score is made of")
    smoothing_span: float = Field(1, ge=1, description="span of the moving average of raw scores; 1 is none")
    batching: Batching = Batching()
    calibration: Calibration
    training: Training
    metrics: dict[str, float] = Field(default_factory=dict)
    candidates: tuple[Candidate, ...] = Field((), description="what the model was chosen from, where none was named")
    parent: str | None = None
    graph_sha256: Sha256
    files: dict[FileName, Sha256] = Field(
        default_factory=dict, description="SHA-256 of the folder's other files that decide or are learned from, by name"
    )
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
