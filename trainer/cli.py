"""The command line of the trainer. Exit codes: 0 done, 2 yours to put right, 75 try again, 1 a bug."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.adapters.aside import aside
from detector.adapters.folder import check_target, read_file, read_model, write_model
from detector.flags import refuse_secrets
from schemas.errors import ModelError, ResidualError, SettingsError
from schemas.printable import printable
from schemas.security import SECRETS, Security
from trainer import store_cli, synth_cli
from trainer.console import say
from trainer.retrain.settings import RetrainSettings
from trainer.settings import PREFIX, TABLE, FitSettings
from trainer.source import SourceSettings
from trainer.synthesis.settings import SynthSettings

if TYPE_CHECKING:
    from trainer.pipeline import Learned

#: Settings that have a flag of their own, and what stands for its value in --help; all others go by ``--set``.
FLAGS = {
    "stream": "NAME", "model": "NAME", "epochs": "N", "seed": "N", "channels": "FILE", "init-from": "DIR",
    "span": "DURATION", "false-alarms": "N/DURATION",
}  # fmt: skip


#: Settings of the connection to Kafka, in the order of --help.
SECURITY = tuple(Security.model_fields)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="trainer: warning: %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it retries is no news; it may name secrets
    try:
        for kind in (FitSettings, RetrainSettings, SynthSettings):
            refuse_secrets(sys.argv[1:] if arguments is None else arguments, kind)
        namespace = _parser().parse_args(arguments)
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
    sign = commands.add_parser(
        "sign",
        help="sign a model folder, or make a key to sign with",
        description="Signs a model folder (Ed25519, over the manifest, which holds the hashes of the graph, the "
        "thresholds and the weights): detectors whose trusted_keys holds the public key take it, and no other. A model "
        "that is fitted anew is signed anew.",
        epilog="Keys are PEM files, as OpenSSL makes them too. Exit codes: 0 done; 2 something must be changed first.",
    )
    sign.add_argument("folder", metavar="DIR", nargs="?", help="model folder")
    which = sign.add_mutually_exclusive_group(required=True)
    which.add_argument("--key", metavar="FILE", help="private key to sign with")
    which.add_argument("--new-key", metavar="FILE", help="make a private key FILE and its public key FILE.pub")
    sign.set_defaults(command=_sign)
    store_cli.add_commands(commands)
    synth_cli.add_commands(commands)
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
    # what is inherited comes first among the fields, and is asked for last
    names = sorted(FitSettings.model_fields, key=lambda name: name in SourceSettings.model_fields)
    lines = [f"  {name:<{width}}  {_described(name)}" for name in names if name not in SECURITY]
    security = [f"  {name:<{width}}  {_described(name)}" for name in SECURITY]
    return "\n".join([
        "DATA is CSV, CSV.gz or Parquet with a column `timestamp`, optionally `stream`, and a column per channel;",
        "several files are one log, merged by time. A topic is read back from its newest reading, by --span.",
        "Images: an .npz with x[N,H,W] or x[N,H,W,bands], or a folder of PNG and JPEG whose sub-folders are streams.",
        "",
        f"Settings, as flags, --set KEY=VALUE, variables {PREFIX}KEY or keys of [{TABLE}] in residual.toml:",
        *lines,
        "",
        f"Security of kafka://…, likewise; but {', '.join(SECRETS)} are no flags, which all can read:",
        *security,
        "",
        "Exit codes: 0 done; 2 something must be changed first; 75 try again; 130 interrupted; 1 a bug.",
    ])  # fmt: skip


def _given(namespace: argparse.Namespace) -> dict[str, Any]:
    """Flags and ``--set`` together, by field name."""
    flags = {_key(name): getattr(namespace, _key(name)) for name in FLAGS if hasattr(namespace, _key(name))}
    for pair in namespace.pairs:
        key, equals, value = pair.partition("=")
        if FitSettings.is_secret(key):
            raise SettingsError(
                f"--set {key}=…: what stands on a command line can be read by every user of this machine; give it by "
                f"{FitSettings.variable(key)}, in [{TABLE}] of the settings file, or as a file by {key}_file"
            )
        if not equals:
            raise SettingsError(f"--set {pair}: write KEY=VALUE")
        if key in flags:
            raise SettingsError(f"--set {pair}: {key} is set twice: remove one")
        flags[key] = value
    return flags


def _fit(namespace: argparse.Namespace) -> int:
    settings = FitSettings.load(_given(namespace), namespace.config)
    check_target(namespace.out)  # before an hour of training, not after

    learned = _learned(namespace.data, settings, say)
    for warning in learned.warnings:
        say(f"warning: {warning}")
    if settings.detectability and learned.track is not None:
        from trainer.detectability.measure import with_detectability

        learned = with_detectability(learned, settings.seed, say)
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
    if not (folder / DATA_FILE).is_file():
        raise ModelError(f"{folder} holds no {DATA_FILE}, of which a report is made: fit the model again")
    try:
        report = Report.model_validate_json(read_file(folder, DATA_FILE, model.manifest))
    except ValidationError as error:
        raise ModelError(f"{folder / DATA_FILE} cannot be read: {str(error).splitlines()[0]}") from error
    with aside(folder / PAGE_FILE) as file:
        file.write(render(model, report))
    print(folder / PAGE_FILE)
    return 0


def _sign(namespace: argparse.Namespace) -> int:
    from trainer.sign import new_key, sign

    if namespace.new_key is not None:
        if namespace.folder is not None:
            raise SettingsError("trainer sign: --new-key only makes a key; then sign with --key")
        made = new_key(namespace.new_key)
        print(f"{namespace.new_key}.pub: the public key {made}, for trusted_keys; keep {namespace.new_key} to yourself")
        return 0
    if namespace.folder is None:
        raise SettingsError("trainer sign: name the model folder")
    print(f"{namespace.folder}: signed with the key {sign(namespace.folder, namespace.key)}")
    return 0
