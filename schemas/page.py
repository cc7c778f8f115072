"""Settings of ``detector page``: flags over RESIDUAL_PAGE_… over ``[page]`` of a file."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from schemas.security import Security
from schemas.settings import Duration, Settings, a_topic, each_its_own


class PageSettings(Security, Settings):
    """What ``detector page`` can be told."""

    table: ClassVar[str | None] = "page"

    model_config = SettingsConfigDict(env_prefix="RESIDUAL_PAGE_")

    http: str = Field("8080", description="PORT of 127.0.0.1, or HOST:PORT for all to see: there is no login")
    hosts: str = Field("", description="names that the page is asked for by, with ; between; the address's own")
    model: str | None = Field(None, description="model folder whose report is shown")
    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, HOST:PORT,…")
    alerts_topic: str = Field("alerts", description="topic of alert events")
    scores_topic: str = Field("scores", description="topic of scores, where there is one")
    feedback_topic: str = Field("residual-feedback", description="topic of operators' verdicts; made where missing")
    group_id: str = Field("residual", min_length=1, max_length=200, description="the detectors' consumer group")
    commands_topic: str | None = Field(None, description="topic for operators' words (residual-commands-<group-id>)")
    read_only: bool = Field(False, description="nobody can judge or accept")
    startup_timeout: Duration = Field(60, gt=0, description="how long to try to reach the broker")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["plain", "json"] = Field("plain", description="of the log on standard error")

    @field_validator("alerts_topic", "scores_topic", "feedback_topic", "commands_topic", "group_id")
    @classmethod
    def _a_topic(cls, name: str | None) -> str | None:
        return a_topic(name)

    @model_validator(mode="after")
    def _go_together(self) -> PageSettings:
        names = [self.alerts_topic, self.scores_topic, self.feedback_topic, self.commands_topic_name]
        each_its_own(names)
        return self

    @property
    def commands_topic_name(self) -> str:
        """The commands topic, by default named after the consumer group."""
        return self.commands_topic or f"residual-commands-{self.group_id}"
