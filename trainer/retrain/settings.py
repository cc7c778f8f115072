"""Settings of the nightly run and of the store: flags over RESIDUAL_RETRAIN_… over ``[retrain]`` of a file."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from schemas.champion import GroupName
from schemas.security import Security
from schemas.settings import Duration, Settings, Texts

TABLE = "retrain"
PREFIX = "RESIDUAL_RETRAIN_"


class StoreSettings(Settings):
    """Where versions are kept."""

    table: ClassVar[str | None] = TABLE

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    store: str = Field("models", description="model store: a folder, or s3://BUCKET/PREFIX")
    group: GroupName = Field("default", description="group of streams whose model is meant")


class RetrainSettings(Security, StoreSettings):
    """What ``trainer retrain`` can be told; what a model is fitted with is in ``[trainer]``, as for ``trainer fit``."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, HOST:PORT,…")
    readings_topic: str = Field("readings", description="topic that is learned from")
    alerts_topic: str = Field("alerts", description="topic of alerts: what was an incident is not learned")
    feedback_topic: str = Field("residual-feedback", description="topic of operators' verdicts, where there is one")
    silences_topic: str = Field("residual-silences", description="topic of silences, where there is one")
    drift_topic: str = Field("residual-drift", description="topic for what has drifted; made where missing")
    streams: Texts = Field(
        (), description="patterns of the group's streams, with ; between them; of a topic that several groups share"
    )
    calendars: Texts = Field(
        (), description="iCalendar files of planned stops, PATH or PATTERN=PATH, several with ; between them"
    )
    group_id: str = Field("residual", description="the detectors' consumer group: versions that it may need are kept")
    span: Duration = Field("14d", gt=0, validate_default=True, description="how far back from the newest reading")
    margin: Duration = Field(
        "15min", validate_default=True, description="what is not learned before and after an incident"
    )
    trim: float = Field(0.1, ge=0, lt=0.5, description="share of a stream's readings, the worst, left out at most")
    least: float = Field(0.3, gt=0, le=1, description="share of the readings that must be left to learn from")
    held_out: float = Field(0.2, gt=0, lt=0.9, description="newest share of them, for the contest only")
    apart: Texts = Field((), description="patterns of streams, with ; between them, of which each must not get worse")
    detect: Texts = Field(
        (), description="what must be caught, KIND<=SIZE such as shift<=8, with ; between them; else it is not promoted"
    )
    promote: Literal["auto", "manual", "never"] = Field(
        "auto", description="auto: what wins serves; manual: it is stored; never: nothing is stored"
    )
    sign_key: str | None = Field(
        None, description="private key (PEM) to sign what is stored with, for detectors that have trusted_keys"
    )
    rollback_after: Duration = Field(
        "1d",
        validate_default=True,
        description="a version that this run promoted is taken back where it opens far more incidents than promised, "
        "for at least so long; 0: never",
    )
    schedule: str | None = Field(None, description="HH:MM, local time: every night then, until stopped; else once, now")
    jitter: Duration = Field(
        "10min", validate_default=True, description="with schedule: later by up to this, by chance"
    )
    early: bool = Field(
        False, description="with schedule: look for drift every hour, and run at once where there is some, once a day"
    )
    keep: int = Field(10, ge=1, description="newest versions that are kept in any case")
    stream_field: str = Field("stream", min_length=1, description="name of a reading's stream field")
    timestamp_field: str = Field("timestamp", min_length=1, description="name of a reading's timestamp field")
    values_field: str = Field("values", min_length=1, description="name of a reading's values field")
    max_ahead: Duration = Field(3600, description="a reading dated further past its record's timestamp is left out")
    startup_timeout: Duration = Field(60, gt=0, description="how long to try to reach the broker")

    @field_validator("schedule")
    @classmethod
    def _a_time_of_day(cls, schedule: str | None) -> str | None:
        if schedule is not None and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", schedule):
            raise ValueError("HH:MM, such as 02:30")
        return schedule
