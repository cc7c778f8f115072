"""Settings of ``detector notify``: flags over RESIDUAL_NOTIFY_… over ``[notify]`` of a file."""

from __future__ import annotations

import re
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from schemas.security import Security, read_secret
from schemas.settings import Duration, Settings, Texts, a_topic, each_its_own

_BUDGET = re.compile(r"(\d{1,6})(/(day|d|1d))?")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class NotifySettings(Security, Settings):
    """What ``detector notify`` can be told."""

    table: ClassVar[str | None] = "notify"

    model_config = SettingsConfigDict(env_prefix="RESIDUAL_NOTIFY_")

    alertmanager: str | None = Field(None, description="Prometheus Alertmanager to tell: its URL")
    webhook: str | None = Field(None, description="URL that every notice is posted to")
    webhook_file: str | None = Field(None, description="file that holds this URL, where a secret is part of it")
    webhook_token: SecretStr | None = Field(None, description="sent along as Authorization: Bearer …")
    webhook_token_file: str | None = Field(None, description="file that holds this token")
    webhook_template: str | None = Field(None, description="Jinja file of the body; else the notice as JSON")
    webhook_type: str = Field("application/json", description="Content-Type of the body")
    lines: bool = Field(True, description="print a line per notice")
    page_budget: str | None = Field(
        None, description="N/day: incidents told by themselves in a day; the rest is told in a digest; no limit"
    )
    day_start: str = Field("07:00", description="HH:MM, UTC: when the budget's day begins and the digest is told")
    rate: int = Field(60, ge=1, le=100_000, description="requests a minute to each place, at most")
    wait: Duration = Field(10, description="an incident waits so long for others that open with it")
    fleet_streams: int = Field(5, ge=0, description="streams that break together are one fleet incident; 0: never")
    fleet_window: Duration = Field("5min", validate_default=True, description="within this they break together")
    give_up: Duration = Field(
        "1d", gt=0, validate_default=True, description="what no place took in so long is set aside as a dead letter"
    )
    calendars: Texts = Field((), description="[STREAMS=]FILE of planned stops, iCalendar, with ; between: they mute")
    page_url: str | None = Field(None, description="address of the page (`detector page`) that notices link to")
    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, HOST:PORT,…")
    alerts_topic: str = Field("alerts", description="topic of alert events")
    silences_topic: str = Field("residual-silences", description="topic of silences, where there is one")
    dead_letters_topic: str = Field("residual-notify-dead-letters", description="topic for what could not be told")
    state_topic: str | None = Field(None, description="compacted topic for its state (<group-id>-state)")
    group_id: str = Field("residual-notify", min_length=1, max_length=200, description="consumer group")
    startup_timeout: Duration = Field(60, gt=0, description="how long to try to reach the broker")
    stop_at_end: bool = Field(False, description="exit 0 when all that was there at the start is told")
    http: str | None = Field(
        None, description="PORT for /healthz, /readyz and /metrics on 127.0.0.1, or HOST:PORT for all to see"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["plain", "json"] = Field("plain", description="of the log on standard error")

    @field_validator("alerts_topic", "silences_topic", "dead_letters_topic", "state_topic", "group_id")
    @classmethod
    def _a_topic(cls, name: str | None) -> str | None:
        return a_topic(name)

    @field_validator("alertmanager", "webhook", "page_url")
    @classmethod
    def _a_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address such as http://alertmanager:9093")
        return url.rstrip("/") if not parts.query else url

    @field_validator("page_budget")
    @classmethod
    def _a_budget(cls, text: str | None) -> str | None:
        if text is not None and not _BUDGET.fullmatch(text.strip()):
            raise ValueError("N/day, such as 5/day")
        return text

    @field_validator("day_start")
    @classmethod
    def _a_clock(cls, text: str) -> str:
        if not _CLOCK.fullmatch(text):
            raise ValueError("HH:MM, such as 07:00")
        return text

    @model_validator(mode="after")
    def _go_together(self) -> NotifySettings:
        if self.webhook is not None and self.webhook_file is not None:
            raise ValueError("webhook and webhook_file name two places: name one")
        if self.webhook is None and self.webhook_file is None:
            for name in ("webhook_template", "webhook_token", "webhook_token_file"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is of use with --webhook only")
        if self.alertmanager is None and self.webhook is None and self.webhook_file is None and not self.lines:
            raise ValueError("nobody would be told: name --alertmanager or --webhook, or leave --no-lines out")
        names = [self.alerts_topic, self.silences_topic, self.dead_letters_topic, self.state_topic_name]
        each_its_own(names)
        return self

    @property
    def state_topic_name(self) -> str:
        """The state topic, by default named after the consumer group."""
        return self.state_topic or f"{self.group_id}-state"

    @property
    def budget(self) -> int | None:
        """Incidents told by themselves in a day."""
        found = None if self.page_budget is None else _BUDGET.fullmatch(self.page_budget.strip())
        return None if found is None else int(found[1])

    @property
    def day_start_s(self) -> int:
        """Seconds after midnight, UTC."""
        hours, minutes = self.day_start.split(":")
        return 3600 * int(hours) + 60 * int(minutes)

    @property
    def webhook_url(self) -> str | None:
        """Where notices are posted to. Raises ValueError where its file cannot be read."""
        if self.webhook_file is None:
            return self.webhook
        url = self._a_url(read_secret(self.webhook_file, "webhook_file"))
        assert url is not None
        return url

    @property
    def bearer(self) -> str | None:
        """The webhook's token. Raises ValueError where its file cannot be read."""
        if self.webhook_token is not None:
            return self.webhook_token.get_secret_value()
        return None if self.webhook_token_file is None else read_secret(self.webhook_token_file, "webhook_token_file")
