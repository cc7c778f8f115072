"""The command line of the trainer. Exit codes: 0 done, 2 yours to put right, 75 try again, 1 a bug."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.adapters.aside import aside
from detector.adapters.folder import check_target, read_model, write_model
from schemas.errors import ModelError, ResidualError, SettingsError
from schemas.printable import printable
from trainer.settings import PREFIX, TABLE, FitSettings

if TYPE_CHECKING:
    from trainer.pipeline import Learned

#: Settings that have a flag of their own, and what stands for its value in --help; all others go by ``--set``.
FLAGS = {
    "stream": "NAME", "model": "NAME", "epochs": "N", "seed": "N", "channels": "FILE", "init-from": "DIR",
    "span": "DURATION", "false-alarms": "N/DURATION",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    namespace = _parser().parse_args(arguments)
    try:
        return int(namespace.command(namespace))
    except ResidualError as error:
        print(f"trainer: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("trainer: interrupted; nothing half written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: its business
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trainer", description="Learns what is normal from readings.")
    parser.add_argument("--version", action="version", version=f"residual {importlib.metadata.version('residual')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit",
        help="learn a model from normal readings",
        description="Learns a model from normal readings and writes it as a folder, whole or not at all.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("data", nargs="+", metavar="DATA", help="readings: PATH, STREAM=PATH or kafka://HOST:PORT/TOPIC")
    fit.add_argument(
        "--out", required=True, metavar="DIR", help="model folder to write; another model there is replaced"
    )
    for name, value in FLAGS.items():
        help_text = _described(_key(name)).replace("%", "%%")
        fit.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar=value, help=help_text)
    fit.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs",
        help="any setting listed below; may be given several times",
    )  # fmt: skip
    fit.add_argument("--config", metavar="FILE", help="TOML file of settings (residual.toml where there is one)")
    fit.set_defaults(command=_fit)
    report = commands.add_parser(
        "report",
        help="write a model's report.html again",
        description="Writes report.html of a model folder again, from what the folder holds.",
        epilog="Exit codes: 0 done; 2 something must be changed first; 1 a bug.",
    )
    report.add_argument("folder", metavar="DIR", help="model folder")
    report.set_defaults(command=_report)
    return parser


def _key(flag: str) -> str:
    return flag.replace("-", "_")


def _described(name: str) -> str:
    field = FitSettings.model_fields[name]
    if field.default is None:
        return str(field.description)
    default = f"{field.default:.4g}" if isinstance(field.default, float) else field.default
    return f"{field.description}; default {default}"


def _epilog() -> str:
    width = max(map(len, FitSettings.model_fields))
    lines = [f"  {name:<{width}}  {_described(name)}" for name in FitSettings.model_fields]
    return "\n".join([
        "DATA is CSV, CSV.gz or Parquet with a column `timestamp`, optionally `stream`, and a column per channel;",
        "several files are one log, merged by time. A topic is read back from its newest reading, by --span.",
        "Images: an .npz with x[N,H,W] or x[N,H,W,bands], or a folder of PNG and JPEG whose sub-folders are streams.",
        "",
        f"Settings, as flags, --set KEY=VALUE, variables {PREFIX}KEY or keys of [{TABLE}] in residual.toml:",
        *lines,
        "",
        "Exit codes: 0 done; 2 something must be changed first; 75 try again; 130 interrupted; 1 a bug.",
    ])  # fmt: skip


def _given(namespace: argparse.Namespace) -> dict[str, Any]:
    """Flags and ``--set`` together, by field name."""
    flags = {_key(name): getattr(namespace, _key(name)) for name in FLAGS if hasattr(namespace, _key(name))}
    for pair in namespace.pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: write KEY=VALUE")
        if key in flags:
            raise SettingsError(f"--set {pair}: {key} is set twice: remove one")
        flags[key] = value
    return flags


def _fit(namespace: argparse.Namespace) -> int:
    settings = FitSettings.load(_given(namespace), namespace.config)
    check_target(namespace.out)  # before an hour of training, not after

    def say(line: str) -> None:
        print(f"trainer: {printable(line)}", file=sys.stderr, flush=True)

    learned = _learned(namespace.data, settings, say)
    for warning in learned.warnings:
        say(f"warning: {warning}")
    from trainer.page import PAGE_FILE, render
    from trainer.report import DATA_FILE
    from trainer.warm import WEIGHTS

    write_model(learned.model, namespace.out, {
        DATA_FILE: learned.report.model_dump_json().encode() + b"\n",
        PAGE_FILE: render(learned.model, learned.report).encode(),
        WEIGHTS: learned.weights,
    })  # fmt: skip
    print(f"{namespace.out}: {learned.model.manifest.model} model of {len(learned.model.manifest.channels)} channels")
    return 0


def _learned(sources: Sequence[str], settings: FitSettings, say: Callable[[str], None]) -> Learned:
    from detector.adapters.images import are_images
    from trainer.data import load, read_catalogue, topic_of

    if settings.records == "images" if topic_of(sources) else are_images(sources):
        from trainer.images.data import load_images
        from trainer.images.pipeline import learn_images

        return learn_images(load_images(sources, settings), settings, say)
    from trainer.pipeline import learn

    catalogue = None if settings.channels is None else read_catalogue(settings.channels)
    return learn(load(sources, settings, catalogue), settings, catalogue, say)


def _report(namespace: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from trainer.page import PAGE_FILE, render
    from trainer.report import DATA_FILE, Report

    folder = Path(namespace.folder)
    model = read_model(folder)
    try:
        report = Report.model_validate_json((folder / DATA_FILE).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {DATA_FILE}, of which a report is made: fit the model again") from None
    except (OSError, ValidationError) as error:
        raise ModelError(f"{folder / DATA_FILE} cannot be read: {str(error).splitlines()[0]}") from error
    with aside(folder / PAGE_FILE) as file:
        file.write(render(model, report))
    print(folder / PAGE_FILE)
    return 0
