"""The settings that a rehearsal is compared with: ``key=value,key=value`` over those of the run."""

from __future__ import annotations

from schemas.errors import SettingsError
from schemas.settings import DetectorSettings

#: Settings that decide what is published; the others would change nothing, or mean another model.
DECIDING = tuple(
    name
    for name in DetectorSettings.model_fields
    if name.startswith(("incident_", "shift_", "drift_"))
    or name in ("lateness", "false_alarms", "unseen_readings", "silent_after", "off_when", "settle")
)


def parse_other(settings: DetectorSettings, text: str) -> tuple[DetectorSettings, dict[str, str]]:
    """The other settings, and what was named. Raises SettingsError."""
    named: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        name = key.removeprefix("--").replace("-", "_")
        if not equals or name not in DECIDING:
            raise SettingsError(f"--compare {part.strip()!r}: write KEY=VALUE,… of {', '.join(DECIDING)}")
        if name in named:
            raise SettingsError(f"--compare {text}: {name} is named twice")
        named[name] = value
    try:
        return DetectorSettings.load({**settings.model_dump(), **named}), named
    except SettingsError as error:
        raise SettingsError(f"--compare {text}: {error}") from error
