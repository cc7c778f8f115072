"""Settings of the detector: flags over RESIDUAL_… variables over a TOML file over defaults.

Every field is a flag of ``detector run`` and a key of ``residual.toml``; an unknown key is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.champion import GroupName
from schemas.errors import SettingsError
from schemas.machine import OffWhen
from schemas.moment import parse_duration, parse_time
from schemas.promise import PromiseText
from schemas.security import Security
from schemas.variables import unknown


def _split(given: object) -> object:
    return tuple(part.strip() for part in given.split(";") if part.strip()) if isinstance(given, str) else given


#: Several texts: with ; between them, or a list in a file.
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split, json_schema_input_type=str | list[str])]

#: Seconds, written as 500ms, 60s, 5min, 1h, 14d or a bare number.
#: At most 30 years: what is longer is a slip, and nanoseconds of it would not fit.
Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str), Field(ge=0, le=1e9)]

SETTINGS_VERSION = 1

DEFAULT_FILE = "residual.toml"

#: Tables of the file that belong to programs with settings of their own.
TABLES = ("trainer", "retrain", "synth", "notify", "page")

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

S = TypeVar("S", bound="Settings")


def a_topic(name: str | None) -> str | None:
    """The name, where it may be a topic's; raises ValueError."""
    if name is not None and not _TOPIC.fullmatch(name):
        raise ValueError("only letters, digits, '.', '_' and '-', at most 249")
    return name


def each_its_own(names: Sequence[str]) -> None:
    """Raises ValueError where two topics have one name."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named for two topics: each needs one of its own")


class Settings(BaseSettings):
    """The base of all settings: where they come from and in which order."""

    #: Table of the file that they lie in; None: outside of all tables.
    table: ClassVar[str | None] = None

    model_config = SettingsConfigDict(
        env_prefix="RESIDUAL_",
        env_prefix_target="all",  # so that `from`, which is no Python name, is RESIDUAL_FROM and not FROM
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # it may be a secret; what may be shown of it is for ``load`` to say
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 — the caller names its arguments
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file that ``load`` names."""
        return init_settings, env_settings, _File(settings_cls)

    @classmethod
    def load(cls: type[S], flags: Mapping[str, Any], file: str | None = None) -> S:
        """Settings from flags, environment and file (``residual.toml`` where there is one and ``file`` is None).

        Raises SettingsError, which names the setting, for an unknown key or variable or a value that does not fit.
        """
        stray = unknown(os.environ, cls.variables(), DetectorSettings.variables())
        if stray:
            raise SettingsError(stray)
        path = file or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
        if file and not Path(file).is_file():
            raise SettingsError(f"there is no settings file {file}: name another with --config")
        chosen: type[S] = type(cls.__name__, (cls,), {"model_config": {**cls.model_config, "toml_file": path}})
        try:
            return chosen(**flags)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if key in cls.model_fields:
                key = cls.model_fields[key].alias or key
            if not key:  # several settings that do not go together
                raise SettingsError(_plain(first["msg"])) from error
            place = f"[{cls.table}] in {path or DEFAULT_FILE}" if cls.table else path or DEFAULT_FILE
            secret = cls.is_secret(key)
            where = f" ({'' if secret else 'flag, '}{cls.model_config['env_prefix']}{key.upper()} or {place})"
            if first["type"] == "extra_forbidden":
                raise SettingsError(f"unknown setting {key!r}{where}: there are {', '.join(cls._names())}") from error
            given = "" if secret else f", not {first['input']!r}"
            raise SettingsError(f"setting {key!r}{where}: {_plain(first['msg'])}{given}") from error
        except ValueError as error:  # a TOML file that is none
            raise SettingsError(f"{path} cannot be read as TOML: {error}") from error

    @classmethod
    def is_secret(cls, name: str) -> bool:
        """Whether a field holds a secret: it is never shown, and is no flag."""
        field = cls.model_fields.get(name)
        return field is not None and field.annotation in (SecretStr, SecretStr | None)

    @classmethod
    def variable(cls, name: str) -> str:
        """The variable that a field is read from."""
        return f"{cls.model_config['env_prefix']}{cls.model_fields[name].alias or name}".upper()

    @classmethod
    def variables(cls) -> list[str]:
        """Names of all variables that are read."""
        return [cls.variable(name) for name in cls.model_fields]

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".")


class _File(TomlConfigSettingsSource):
    """A file that several programs share: the settings' own table of it, or what lies outside of all tables."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        self._table = cast(type[Settings], settings_cls).table  # first: the base reads the file at once
        super().__init__(settings_cls)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        table, found = self._table, super()._read_file(file_path)
        if table is None:
            return {key: value for key, value in found.items() if key not in TABLES}
        own = found.get(table, {})
        if not isinstance(own, dict):
            raise ValueError(f"[{table}] is no table")  # noqa: TRY004 — what ``load`` translates
        return own


class DetectorSettings(Security, Settings):
    """What ``detector run`` can be told."""

    model: str = Field("model", description="model folder, or a store's URL: a folder of versions, s3://BUCKET/PREFIX")
    model_group: GroupName = Field("default", description="group of streams of the store whose model serves")
    model_poll: Duration = Field(
        30, gt=0, description="how often the store is asked which version serves; another takes over without a restart"
    )
    trusted_keys: str | None = Field(
        None, description="PEM file of public keys, or a folder of them: a model that none of them signed is refused"
    )
    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, HOST:PORT,…")
    readings_topic: str = Field("readings", description="topic that is watched")
    alerts_topic: str = Field("alerts", description="topic for alert events; made where missing")
    dead_letters_topic: str = Field("dead-letters", description="topic for records that cannot be read; made likewise")
    state_topic: str | None = Field(None, description="compacted topic for the state (residual-state-<group-id>)")
    commands_topic: str | None = Field(None, description="topic for operators' words (residual-commands-<group-id>)")
    scores_topic: str | None = Field(
        None, description="topic for the score of every reading, for dashboards; none; made where missing"
    )
    group_id: str = Field("residual", min_length=1, max_length=200, description="consumer group")
    replica_id: str | None = Field(None, min_length=1, max_length=40, description="lasting name of this replica")
    start: str = Field("earliest", alias="from", description="where nothing is committed: earliest, latest or a time")
    stop_at_end: bool = Field(False, description="exit 0 when the group has committed all that was there at the start")
    batch_size: int = Field(2000, ge=1, le=1_000_000, description="records of a batch, at most")
    batch_bytes: int = Field(
        16_777_216,
        ge=1,
        description="a batch is full at this many bytes of records, too: readings take 10 to 30 times as much",
    )
    batch_latency: float = Field(200, ge=0, description="milliseconds that a record waits for its batch, at most")
    http: str | None = Field(
        None, description="PORT for /healthz, /readyz and /metrics on 127.0.0.1, or HOST:PORT for all to see"
    )
    startup_timeout: Duration = Field(60, gt=0, description="how long to try to reach the broker")
    watchdog: Duration = Field(
        120, gt=0, description="exit 75 when nothing moved for this long (at least 30s over the start-up time-out)"
    )
    commit_interval: Duration = Field(
        1, description="batches with nothing to publish are committed together this often"
    )
    checkpoint_bytes: int = Field(128_000, ge=1, description="bytes of state written per second, at most, about")
    checkpoint_age: Duration = Field(10, description="a changed bucket of streams is saved no sooner than this")
    unreadable_state: Literal["stop", "cold"] = Field(
        "stop", description="where the saved state of a partition cannot be read: stop, or start it cold"
    )
    max_streams: int = Field(
        100_000, ge=1, description="streams of a partition that are followed; those unheard for longest give way"
    )
    max_ahead: Duration = Field(3600, description="a reading dated further past its record's timestamp is set aside")
    lateness: Duration = Field(
        0,
        description="a reading waits until its stream's newest is this much later, so that those that arrive out of "
        "order are scored in the order of time; what comes later still is dropped",
    )
    skip_corrupt: bool = Field(
        False, description="records that are damaged on the broker's disk are passed over and told of; else exit 75"
    )
    false_alarms: PromiseText | None = Field(
        None,
        description="N/DURATION: false-alarm episodes that a stream may have, or fleet:N/DURATION for all of the "
        "model's together; the model's own promise",
    )
    incident_k: int | None = Field(
        None, ge=1, le=64, description="anomalous readings that open an incident; 1, of images 2 …"
    )
    incident_n: int | None = Field(None, ge=1, le=64, description="… among this many newest ones; as many, of images 3")
    incident_quiet: int = Field(3, ge=1, le=64, description="normal readings in a row that resolve an incident")
    streams: Texts = Field(
        (), description="patterns of the streams that are watched, with ; between them; others are passed over; all"
    )
    off_when: OffWhen | None = Field(
        None,
        description="CHANNEL < NUMBER [and …] [for PATTERN of streams], several with ; between them: where this "
        "holds a machine is off, and its readings are passed over; '': none is ever off; as in training",
    )
    settle: Duration | None = Field(
        None, description="a machine that was off is not judged for this long; as in training"
    )
    silent_after: Duration | None = Field(
        None, description="a stream is silent after this, while others of its partition send; 0: never; as in training"
    )
    incident_release: float = Field(
        0.7, gt=0, le=1, description="a reading is calm below this share of the threshold, before smoothing"
    )
    incident_worse: float = Field(2.0, gt=1, description="an update is due at this many times the worst score told")
    incident_update_after: Duration = Field(
        1800, description="before an incident's first update; each next one waits twice as long"
    )
    incident_flap_after: Duration = Field(3600, description="what comes back sooner needs twice as many to resolve")
    incident_expire_after: Duration = Field(
        "7d", gt=0, validate_default=True, description="an incident that nobody confirmed ends after this"
    )
    shift_after: Duration = Field(
        "6h", validate_default=True, description="an anomaly that lasts so long is a shift, and re-baselined; 0: never"
    )
    shift_trial: Duration = Field(
        "1d", validate_default=True, description="the level before a shift is not forgotten for so long"
    )
    drift_after: Duration = Field(
        "3d", validate_default=True, description="time constant with which a baseline follows slowly; 0: not at all"
    )
    drift_limit: float = Field(3.0, gt=0, description="spreads that it follows at most; beyond them a drift is told")
    unseen_readings: int = Field(300, ge=0, description="first readings of a stream never seen that publish nothing")
    stream_field: str = Field("stream", min_length=1, description="name of a reading's stream field")
    timestamp_field: str = Field("timestamp", min_length=1, description="name of a reading's timestamp field")
    values_field: str = Field("values", min_length=1, description="name of a reading's values field")
    threads: int = Field(1, ge=1, le=256, description="threads of ONNX Runtime")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["plain", "json"] = Field("plain", description="of the log on standard error")

    @field_validator(
        "readings_topic",
        "alerts_topic",
        "dead_letters_topic",
        "state_topic",
        "commands_topic",
        "scores_topic",
        "group_id",
    )
    @classmethod
    def _a_topic(cls, name: str | None) -> str | None:
        return a_topic(name)

    @field_validator("start")
    @classmethod
    def _a_start(cls, start: str) -> str:
        if start not in ("earliest", "latest"):
            try:
                parse_time(start)
            except ValueError as error:
                raise ValueError(f"earliest, latest or a time: {error}") from None
        return start

    @model_validator(mode="after")
    def _go_together(self) -> DetectorSettings:
        if self.incident_k is not None and self.incident_n is not None and self.incident_k > self.incident_n:
            raise ValueError(
                f"--incident-k {self.incident_k} of --incident-n {self.incident_n} can never be reached: lower k"
            )
        topics = {
            "readings": self.readings_topic,
            "alerts": self.alerts_topic,
            "dead-letters": self.dead_letters_topic,
            "state": self.state_topic_name,
            "commands": self.commands_topic_name,
            "scores": self.scores_topic,
        }
        for first, second in combinations(topics, 2):
            if topics[first] == topics[second]:
                raise ValueError(
                    f"--{first}-topic and --{second}-topic are both {topics[first]}: each needs a topic of its own"
                )
        return self

    @property
    def state_topic_name(self) -> str:
        """The state topic, by default named after the consumer group."""
        return self.state_topic or f"residual-state-{self.group_id}"

    @property
    def commands_topic_name(self) -> str:
        """The commands topic, by default named after the consumer group."""
        return self.commands_topic or f"residual-commands-{self.group_id}"
