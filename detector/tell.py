"""``detector tell``: one thing that an operator says to the detectors of a consumer group."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_commands import publish
from detector.adapters.kafka_security import client_settings
from schemas.command import Command, Verb
from schemas.errors import SettingsError
from schemas.moment import format_time
from schemas.settings import DetectorSettings


def tell(
    settings: DetectorSettings,
    verb: str,
    stream: str,
    *,
    channels: Sequence[str] = (),
    note: str = "",
    by: str | None = None,
    name: str | None = None,
) -> str:
    """Publish a command and return its id (``name``, or a fresh one) once the brokers have it.

    Raises SettingsError where it would be refused, and the errors of ``kafka_commands.publish``.
    """
    try:
        command = Command(
            id=name or str(uuid.uuid4()),
            command=Verb(verb),
            stream=stream,
            channels=tuple(channels),
            time=format_time(time.time_ns()),
            by=by,
            note=note,
        )
        Command.from_bytes(command.to_bytes())
    except ValueError as error:
        raise SettingsError(f"this cannot be told: {_first_line(error)}") from error
    clients = Clients(settings.bootstrap_servers, "residual-tell", client_settings(settings))
    publish(clients, settings.commands_topic_name, command, settings.startup_timeout)
    return command.id


def _first_line(error: ValueError) -> str:
    """What pydantic or the JSON writer has to say, without its list of fields and addresses."""
    lines = [line.strip() for line in str(error).splitlines()]
    return ": ".join(line.partition(" [type=")[0] for line in lines[1:3]) if len(lines) > 2 else lines[0]
