"""``trainer synth``: a generator from normal readings, readings from a generator, faults to order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detector.adapters.aside import aside
from detector.flags import add_flags, given
from schemas.errors import SettingsError
from schemas.moment import SECOND_NS, parse_time
from schemas.promise import DAY_S, Promise
from trainer.console import say
from trainer.synthesis.settings import SynthSettings

if TYPE_CHECKING:
    from trainer.faults import Kind

EXITS = "Exit codes: 0 done; 2 something must be changed first; 1 a bug or a generator of no use."


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the trainer's."""
    synth = commands.add_parser(
        "synth", help="generate readings that behave like yours, and plant faults in them",
        description="Learns to generate readings that behave like those of a file; makes as many as are wanted, with "
        "faults of which the truth is known.", epilog=EXITS,
    )  # fmt: skip
    parts = synth.add_subparsers(required=True, metavar="COMMAND")
    fit = parts.add_parser(
        "fit", help="learn a generator from normal readings", epilog=EXITS,
        description="Learns a generator and writes it as a folder with a report that says how good it is, beside real "
        "readings of another time and a Gaussian; one that copies, or makes always the same, is refused.",
    )  # fmt: skip
    fit.add_argument("data", nargs="+", metavar="DATA", help="normal readings: PATH or STREAM=PATH")
    fit.add_argument("--out", required=True, metavar="GEN", help="folder to write; another generator is replaced")
    add_flags(fit, SynthSettings)
    fit.set_defaults(command=_fit)
    sample = parts.add_parser(
        "sample", help="make readings", epilog=EXITS,
        description="Makes readings and writes them to a file, CSV, CSV.gz or Parquet by its name. The same seed makes "
        "the same readings.",
    )  # fmt: skip
    sample.add_argument("generator", metavar="GEN", help="folder of a generator")
    sample.add_argument("--length", required=True, type=_count, metavar="N", help="readings of each stream")
    sample.add_argument("--out", required=True, metavar="DATA", help="file to write")
    sample.add_argument("--streams", type=_count, default=1, metavar="N", help="streams of each group; default 1")
    sample.add_argument("--start", metavar="TIME", help="of the first reading; default: as what was learned from")
    for style, text in (("coarse", "level and course"), ("middle", "shape"), ("fine", "texture")):
        sample.add_argument(
            f"--{style}", type=_spread, default=1.0, metavar="X",
            help=f"how much the {text} varies: 1 as learned, 0 not at all",
        )  # fmt: skip
    _add_faults(sample)
    sample.set_defaults(command=_sample)
    plant = parts.add_parser(
        "plant", help="plant faults in measured readings", epilog=EXITS,
        description="Plants faults in the readings of a file, and says which.",
    )  # fmt: skip
    plant.add_argument("data", nargs="+", metavar="DATA", help="normal readings: PATH or STREAM=PATH")
    plant.add_argument("--out", required=True, metavar="DATA", help="file to write")
    plant.add_argument("--stream", default="default", metavar="NAME", help="stream of a file that names none")
    _add_faults(plant, required=True)
    plant.set_defaults(command=_plant)


def _add_faults(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of all that is drawn; default 0")
    parser.add_argument(
        "--truth", required=required, metavar="FILE",
        help="plant faults, and write what they are: CSV with stream, kind, start, end, channels, size",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", default="1/1d", metavar="N/DURATION", help="faults of each stream in a time; default 1/1d"
    )
    parser.add_argument("--kinds", metavar="KIND;…", help="kinds of faults; default all")


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("at least 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _spread(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError("from 0 to 10")
    return value


def _fit(namespace: argparse.Namespace) -> int:
    from detector.adapters.files import read_table
    from trainer.synthesis.page import PAGE_FILE, render
    from trainer.synthesis.pipeline import fit_generator
    from trainer.synthesis.recipe import check_target, write_recipe

    settings = SynthSettings.load(given(namespace, SynthSettings), namespace.config)
    check_target(namespace.out)  # before half an hour of fitting, not after
    fitted = fit_generator(read_table(namespace.data, default_stream=settings.stream), settings, say)
    write_recipe(fitted.recipe, namespace.out, {PAGE_FILE: render(fitted).encode()})
    manifest = fitted.recipe.manifest
    print(f"{namespace.out}: {manifest.model} generator of {len(manifest.channels)} channels")
    return 0


def _sample(namespace: argparse.Namespace) -> int:
    from trainer.synthesis.output import writing
    from trainer.synthesis.planted import Told, spoil, text_of
    from trainer.synthesis.recipe import read_recipe
    from trainer.synthesis.sampler import Sampler, Styles

    recipe = read_recipe(namespace.generator)
    manifest = recipe.manifest
    start = manifest.start_ns if namespace.start is None else _time(namespace.start)
    sampler = Sampler(recipe, namespace.seed, Styles(namespace.coarse, namespace.middle, namespace.fine))
    kinds = _kinds(namespace.kinds)
    told: list[Told] = []
    names = [_name(pattern, n, namespace.streams) for pattern in manifest.groups for n in range(namespace.streams)]
    asked = _rate(namespace.episodes, manifest.interval_ns, len(names))
    rate = 0.0 if namespace.truth is None else asked
    with writing(namespace.out, manifest.channels, streams=len(names) > 1) as output:
        for number, name in enumerate(names):
            group = number // namespace.streams
            times, values = sampler.whole(number, group, start, namespace.length)
            values, found = spoil(times, values, name, manifest.channels, rate, [namespace.seed, number], kinds)
            told += found
            output.write(name, times, values)
        if namespace.truth is not None:
            with aside(namespace.truth) as file:
                file.write(text_of(told))
    faults = f", {len(told)} faults" if namespace.truth is not None else ""
    print(f"{namespace.out}: {namespace.length} readings of {len(names)} streams{faults}")
    return 0


def _name(pattern: str, number: int, count: int) -> str:
    """Of a made stream: its group's pattern, the first star of which is a number."""
    if "*" not in pattern:
        return pattern if count == 1 else f"{pattern}-{number + 1}"
    return "default" if pattern == "*" and count == 1 else pattern.replace("*", f"{number + 1}", 1).replace("*", "")


def _plant(namespace: argparse.Namespace) -> int:
    from detector.adapters.files import read_table
    from trainer.data import interval_of, rows_by_stream
    from trainer.synthesis.output import writing
    from trainer.synthesis.planted import Told, spoil, text_of

    table = read_table(namespace.data, default_stream=namespace.stream)
    by_stream = rows_by_stream(table)
    rate = _rate(namespace.episodes, interval_of(table, by_stream), len(by_stream))
    kinds = _kinds(namespace.kinds)
    told: list[Told] = []
    with writing(namespace.out, table.channels, streams=len(by_stream) > 1) as output:
        for number, (stream, rows) in enumerate(by_stream.items()):
            times, values = table.times[rows], table.values[rows]
            values, found = spoil(times, values, stream, table.channels, rate, [namespace.seed, number], kinds)
            told += found
            output.write(stream, times, values)
        with aside(namespace.truth) as file:
            file.write(text_of(told))
    print(f"{namespace.out}: {len(table)} readings of {len(by_stream)} streams, {len(told)} faults")
    return 0


def _time(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise SettingsError(f"--start {text}: {error}") from None


def _rate(text: str, interval_ns: int, streams: int) -> float:
    """Episodes per reading of each stream."""
    try:
        return Promise.parse(text).per_day(streams) / DAY_S * interval_ns / SECOND_NS
    except ValueError as error:
        raise SettingsError(f"--episodes {text}: {error}") from None


def _kinds(text: str | None) -> Sequence[Kind]:
    from trainer.faults import KINDS, Kind

    if text is None:
        return KINDS
    try:
        return [Kind(name.strip()) for name in text.split(";")]
    except ValueError:
        raise SettingsError(f"--kinds {text}: there are {'; '.join(KINDS)}") from None
