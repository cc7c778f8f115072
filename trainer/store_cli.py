"""``trainer promote``, ``trainer models`` and ``trainer rollback``: the store by hand."""

from __future__ import annotations

import argparse
import getpass
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from detector.adapters.folder import read_model
from detector.adapters.store import Store, Version
from detector.flags import add_flags, given
from schemas.champion import Champion, Promotion, VersionId
from schemas.errors import SettingsError
from schemas.printable import printable
from trainer.console import say
from trainer.retrain.settings import RetrainSettings, StoreSettings

if TYPE_CHECKING:
    from trainer.retrain.night import Night

STORE_FLAGS = ("store", "group")

EXITS = "Exit codes: 0 done; 2 something must be changed first; 75 try again; 1 a bug."


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the trainer's."""
    promote = commands.add_parser(
        "promote",
        help="let a model serve: store its folder as a version, and point at it",
        description="Stores a model folder as a version of its group, where it is none yet, and lets it serve. "
        "Detectors that run from the store take it over within seconds, without a restart.",
        epilog=EXITS,
    )
    promote.add_argument("what", metavar="DIR|VERSION", help="model folder, or a version that is stored")
    _add_why(promote)
    promote.set_defaults(command=_promote)
    retrain = commands.add_parser(
        "retrain",
        help="learn again from the newest normal readings of a topic, compare with what serves, and promote",
        description="One nightly run: reads a span of readings back from Kafka, leaves out what was no normal data, "
        "fits challengers, compares them with the version that serves and with window PCA on readings that none has "
        "learned from, and lets the winner serve where it keeps the promise and finds no less.",
        epilog="What models are fitted with is in [trainer] of the file, as for `trainer fit`. " + EXITS,
    )
    add_flags(retrain, RetrainSettings)
    retrain.set_defaults(command=_retrain)
    models = commands.add_parser(
        "models", help="list the versions of a store, and which one serves", epilog=EXITS,
        description="Lists the versions of every group, or of one, oldest first; the one marked with * serves.",
    )  # fmt: skip
    models.add_argument("--json", action="store_true", help="everything, as JSON")
    add_flags(models, StoreSettings, STORE_FLAGS)
    models.set_defaults(command=_models)
    rollback = commands.add_parser(
        "rollback", help="let an earlier version serve again", epilog=EXITS,
        description="Lets the version serve again that served before the one that serves, or the one that is named.",
    )  # fmt: skip
    rollback.add_argument("--to", metavar="VERSION", help="version to go back to")
    _add_why(rollback)
    rollback.set_defaults(command=_rollback)


def _add_why(command: argparse.ArgumentParser) -> None:
    command.add_argument("--why", default="", metavar="TEXT", help="why, for whoever reads it later")
    command.add_argument("--by", default=None, metavar="NAME", help="who says so; default USER@HOST")
    add_flags(command, StoreSettings, STORE_FLAGS)


def _opened(namespace: argparse.Namespace) -> tuple[StoreSettings, Store]:
    settings = StoreSettings.load(given(namespace, StoreSettings), namespace.config)
    return settings, Store(settings.store)


def _promote(namespace: argparse.Namespace) -> int:
    settings, store = _opened(namespace)
    group, what = settings.group, namespace.what
    if not _is_version(what):
        manifest = read_model(what).manifest
        group = settings.group if "group" in settings.model_fields_set else manifest.group
        version = store.add(group, what)
    elif Path(what).exists():
        raise SettingsError(f"{what} is a version's id and a folder here: name the folder ./{what}")
    else:
        version = what
    champion = store.promote(
        group, version, _by(namespace), namespace.why, seen=_say_what_changes(store, group, version)
    )
    print(f"{version} serves the group {group} in {store}" + _replaced(champion.now))
    return 0


def _say_what_changes(store: Store, group: str, version: str) -> Any:
    """Other channels, another window: what detectors cannot go on with, or have to warm up for."""

    def look(before: Champion | None) -> None:
        if before is None:
            return
        old, new = (store.version(group, v).manifest for v in (before.now.version, version))
        if old.channel_names != new.channel_names:
            _warn("other channels than the champion's: detectors that run go on without it; start them anew, under "
                  "another --group-id")  # fmt: skip
        elif new.window > old.window:
            _warn(f"a window of {new.window} readings, not {old.window}: streams are not judged until it is full")

    return look


def _retrain(namespace: argparse.Namespace) -> int:
    from trainer.retrain.night import has_drifted, retrain  # here: what is only listed needs no torch
    from trainer.retrain.schedule import every_night
    from trainer.settings import FitSettings

    settings = RetrainSettings.load(given(namespace, RetrainSettings), namespace.config)
    fitting = FitSettings.load({}, namespace.config)

    def run() -> None:
        print(_outcome(retrain(settings, fitting, say)), flush=True)

    if settings.schedule is not None:
        every_night(settings, run, lambda: has_drifted(settings, say), say)
        return 0
    run()
    return 0


def _outcome(night: Night) -> str:
    if night.promoted:
        return f"{night.version} serves"
    stored = f"{night.version} is stored" if night.version else "nothing is stored"
    return f"{stored}, and what served goes on: {night.contest.decision.reasons[0]}"


def _rollback(namespace: argparse.Namespace) -> int:
    settings, store = _opened(namespace)
    champion = store.rollback(settings.group, namespace.to, _by(namespace), namespace.why)
    print(f"{champion.now.version} serves the group {settings.group} in {store}" + _replaced(champion.now))
    return 0


def _models(namespace: argparse.Namespace) -> int:
    settings, store = _opened(namespace)
    groups = [settings.group] if "group" in settings.model_fields_set else store.groups()
    found = {
        group: (store.champion(group), [store.version(group, v) for v in store.versions(group)]) for group in groups
    }
    if namespace.json:
        print(json.dumps({group: _document(*of) for group, of in found.items()}, indent=2))
        return 0
    if not any(versions for _, versions in found.values()):
        print(f"{store} holds no model: `trainer promote DIR --store {store}`")
    for group, (champion, versions) in found.items():
        for line in _table(group, champion, versions):
            print(printable(line))
    return 0


def _document(champion: Champion | None, versions: Sequence[Version]) -> dict[str, Any]:
    return {
        "champion": champion.now.version if champion else None,
        "versions": [
            {
                "version": version.id,
                "manifest_sha256": version.sha256,
                "model": version.manifest.model,
                "channels": len(version.manifest.channels),
                "window": version.manifest.window,
                "training": version.manifest.training.model_dump(),
                "false_alarms": version.manifest.calibration.false_alarms,
                "metrics": version.manifest.metrics,
                "promotions": [p.model_dump() for p in _promotions(champion, version.id)],
            }
            for version in versions
        ],
    }


def _table(group: str, champion: Champion | None, versions: Sequence[Version]) -> list[str]:
    rows = [("  version", "model", "learned until", "promise", "promoted", "by, why")]
    for version in versions:
        manifest, promotions = version.manifest, _promotions(champion, version.id)
        serves = champion is not None and champion.now.version == version.id
        last = promotions[-1] if promotions else None
        said = "" if last is None else last.by + (f": {last.why}" if last.why else "")
        rows.append((
            f"{'*' if serves else ' '} {version.id}", manifest.model, manifest.training.end[:16].replace("T", " "),
            manifest.calibration.false_alarms, last.at[:16].replace("T", " ") if last else "never", said,
        ))  # fmt: skip
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    return [f"{group}:", *(line.rstrip() for line in lines)]


def _promotions(champion: Champion | None, version: str) -> list[Promotion]:
    return [p for p in champion.history if p.version == version] if champion else []


def _replaced(promotion: Promotion) -> str:
    return f", instead of {promotion.replaced}" if promotion.replaced else ""


def _is_version(text: str) -> bool:
    try:
        TypeAdapter(VersionId).validate_python(text)
    except ValidationError:
        return False
    return True


def _by(namespace: argparse.Namespace) -> str:
    return str(namespace.by or f"{getpass.getuser()}@{socket.gethostname()}")[:200]


def _warn(line: str) -> None:
    print(f"trainer: warning: {printable(line)}", file=sys.stderr)
