"""JSON Schema files (draft 2020-12) of what crosses a boundary, generated from the models so that they cannot drift."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from schemas.alert import ALERT_VERSION, Alert
from schemas.champion import CHAMPION_VERSION, Champion
from schemas.command import COMMAND_VERSION, Command
from schemas.contest import CONTEST_VERSION, Contest
from schemas.drift import DRIFT_VERSION, Drift
from schemas.feedback import FEEDBACK_VERSION, Feedback
from schemas.manifest import MANIFEST_VERSION, Manifest
from schemas.notice import NOTICE_VERSION, Notice
from schemas.reading import READING_VERSION, Reading
from schemas.score import SCORE_VERSION, Score
from schemas.settings import SETTINGS_VERSION, DetectorSettings
from schemas.silence import SILENCE_VERSION, Silence

FOLDER = Path(__file__).resolve().parent / "json"

#: Version and model by the name of the file.
SCHEMAS: dict[str, tuple[int, type[BaseModel]]] = {
    "alert": (ALERT_VERSION, Alert),
    "champion": (CHAMPION_VERSION, Champion),
    "command": (COMMAND_VERSION, Command),
    "contest": (CONTEST_VERSION, Contest),
    "drift": (DRIFT_VERSION, Drift),
    "feedback": (FEEDBACK_VERSION, Feedback),
    "manifest": (MANIFEST_VERSION, Manifest),
    "notice": (NOTICE_VERSION, Notice),
    "reading": (READING_VERSION, Reading),
    "score": (SCORE_VERSION, Score),
    "settings": (SETTINGS_VERSION, DetectorSettings),
    "silence": (SILENCE_VERSION, Silence),
}


#: Names of what is read rather than written.
READ = ("command", "feedback", "reading", "settings", "silence")


def generate() -> dict[str, str]:
    """Text of each file by its name.

    What is written (alerts, champions, contests, drift, manifests, notices) is described as it is written: every field
    is there.
    What is read (commands, feedback, readings, settings, silences) is described as it is read.
    """
    return {f"{name}.v{version}.json": _text(name, version, model) for name, (version, model) in SCHEMAS.items()}


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing, differ from the models, or belong to none."""
    wanted = generate()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(folder: Path = FOLDER) -> list[str]:
    """Bring the folder in step; returns the names that changed."""
    folder.mkdir(exist_ok=True)
    wanted, changed = generate(), stale(folder)
    for name in changed:
        if name not in wanted:
            (folder / name).unlink()
            continue
        aside = folder / f".{name}.aside"
        aside.write_text(wanted[name], encoding="utf-8")
        os.replace(aside, folder / name)
    return changed


def _text(name: str, version: int, model: type[BaseModel]) -> str:
    mode: JsonSchemaMode = "validation" if name in READ else "serialization"
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:residual:{name}:{version}",
    }
    return json.dumps(head | model.model_json_schema(mode=mode), indent=2, ensure_ascii=False) + "\n"
