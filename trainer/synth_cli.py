"""``trainer synth``: a generator from normal readings, readings from a generator, faults to order."""

from __future__ import annotations

import argparse

from detector.adapters.aside import aside
from detector.flags import add_flags, given
from schemas.errors import SettingsError
from schemas.moment import parse_time
from trainer import synth_stream
from trainer.console import say
from trainer.synthesis.asked import (
    add_faults,
    add_made,
    asked_faults,
    asked_image_sampler,
    asked_sampler,
    asked_start,
    count,
)
from trainer.synthesis.settings import SynthSettings

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
    fit.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="normal readings: PATH, STREAM=PATH or kafka://HOST:PORT/TOPIC; images: an .npz or a folder",
    )
    fit.add_argument("--out", required=True, metavar="GEN", help="folder to write; another generator is replaced")
    add_flags(fit, SynthSettings)
    fit.set_defaults(command=_fit)
    sample = parts.add_parser(
        "sample", help="make readings, or images", epilog=EXITS,
        description="Makes readings and writes them to a file, CSV, CSV.gz or Parquet by its name; images to an .npz. "
        "The same seed makes the same ones.",
    )  # fmt: skip
    sample.add_argument("generator", metavar="GEN", help="folder of a generator")
    sample.add_argument("--length", required=True, type=count, metavar="N", help="readings of each stream")
    sample.add_argument("--out", required=True, metavar="DATA", help="file to write")
    add_made(sample, start="time of the first reading; default: as what was learned from")
    sample.set_defaults(command=_sample)
    plant = parts.add_parser(
        "plant", help="plant faults in measured readings", epilog=EXITS,
        description="Plants faults in the readings of a file, and says which.",
    )  # fmt: skip
    plant.add_argument("data", nargs="+", metavar="DATA", help="normal readings: PATH or STREAM=PATH")
    plant.add_argument("--out", required=True, metavar="DATA", help="file to write")
    plant.add_argument("--stream", default="default", metavar="NAME", help="stream of a file that names none")
    add_faults(plant, required=True)
    plant.set_defaults(command=_plant)
    synth_stream.add_command(parts)
    interpolate = parts.add_parser(
        "interpolate", help="draw what lies between two seeds, or two measured windows", epilog=EXITS,
        description="Draws what a generator makes between two seeds, or between two windows of measured readings.",
    )  # fmt: skip
    interpolate.add_argument("generator", metavar="GEN", help="folder of a generator")
    interpolate.add_argument("ends", nargs=2, metavar="END", help="a seed, or TIME of a window of --data")
    interpolate.add_argument("--out", required=True, metavar="PAGE", help="page to write, HTML")
    interpolate.add_argument("--data", metavar="DATA", help="measured readings of one stream: a file")
    interpolate.add_argument("--steps", type=_steps, default=7, metavar="N", help="pictures, ends included; default 7")
    interpolate.add_argument("--group", metavar="PATTERN", help="group of streams; default the first")
    interpolate.set_defaults(command=_interpolate)


def _steps(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 12:
        raise argparse.ArgumentTypeError("from 2 to 12")
    return value


def _fit(namespace: argparse.Namespace) -> int:
    from detector.adapters.images import are_images
    from trainer.data import load, read_catalogue, topic_of
    from trainer.synthesis.page import PAGE_FILE, render
    from trainer.synthesis.pipeline import fit_generator
    from trainer.synthesis.recipe import check_target, write_recipe

    settings = SynthSettings.load(given(namespace, SynthSettings), namespace.config)
    check_target(namespace.out)  # before half an hour of fitting, not after
    if settings.records == "images" if topic_of(namespace.data) else are_images(namespace.data):
        return _fit_images(namespace, settings)
    catalogue = None if settings.channels is None else read_catalogue(settings.channels)
    fitted = fit_generator(load(namespace.data, settings, catalogue), settings, say, catalogue)
    write_recipe(fitted.recipe, namespace.out, {PAGE_FILE: render(fitted).encode()})
    manifest = fitted.recipe.manifest
    print(f"{namespace.out}: {manifest.model} generator of {len(manifest.channels)} channels")
    return 0


def _fit_images(namespace: argparse.Namespace, settings: SynthSettings) -> int:
    from detector.adapters.pillow import require_pillow
    from trainer.synthesis.page import PAGE_FILE

    require_pillow("a generator of images")
    from trainer.images.data import load_images
    from trainer.synthesis.images.page import render
    from trainer.synthesis.images.pipeline import fit_image_generator
    from trainer.synthesis.images.recipe import write_image_recipe

    fitted = fit_image_generator(load_images(namespace.data, settings), settings, say)
    write_image_recipe(fitted.recipe, namespace.out, {PAGE_FILE: render(fitted).encode()})
    manifest = fitted.recipe.manifest
    print(f"{namespace.out}: {manifest.model} generator of images of {manifest.frame}")
    return 0


def _sample(namespace: argparse.Namespace) -> int:
    from trainer.synthesis.recipe import is_of_images

    if is_of_images(namespace.generator):
        return _sample_images(namespace)
    return _sample_readings(namespace)


def _sample_images(namespace: argparse.Namespace) -> int:
    from trainer.synthesis.images.feed import ImageFeed
    from trainer.synthesis.images.output import write_images
    from trainer.synthesis.planted import asked_and_told

    sampler = asked_image_sampler(namespace)
    manifest = sampler.recipe.manifest
    faults = asked_faults(namespace, manifest.interval_ns, namespace.each * len(manifest.groups), of_images=True)
    feed = ImageFeed(sampler, namespace.each, asked_start(namespace, manifest.start_ns), faults)
    asked, told = write_images(feed, namespace.length, namespace.out, namespace.truth)
    said = asked_and_told(asked, told) if faults else ""
    print(f"{namespace.out}: {namespace.length} images of {_streams(len(feed.names))}{said}")
    return 0


def _sample_readings(namespace: argparse.Namespace) -> int:
    from trainer.synthesis.feed import Feed
    from trainer.synthesis.output import writing
    from trainer.synthesis.planted import Told, asked_and_told, text_of

    sampler = asked_sampler(namespace)
    manifest = sampler.recipe.manifest
    faults = asked_faults(namespace, manifest.interval_ns, namespace.each * len(manifest.groups))
    feed = Feed(sampler, namespace.each, asked_start(namespace, manifest.start_ns), faults)
    told: list[Told] = []
    asked = 0
    with writing(namespace.out, feed.channels, streams=len(feed.names) > 1) as output:
        for number, name in enumerate(feed.names):
            for stretch in feed.of_stream(number, namespace.length):
                told += stretch.told
                asked += stretch.asked
                output.write([name], stretch.times, stretch.values)
        if namespace.truth is not None:
            with aside(namespace.truth) as file:
                file.write(text_of(told))
    said = asked_and_told(asked, len(told)) if faults else ""
    print(f"{namespace.out}: {namespace.length} readings of {_streams(len(feed.names))}{said}")
    return 0


def _plant(namespace: argparse.Namespace) -> int:
    from detector.adapters.files import read_table
    from trainer.data import interval_of, rows_by_stream
    from trainer.synthesis.output import writing
    from trainer.synthesis.planted import Told, asked_and_told, spoil, text_of

    table = read_table(namespace.data, default_stream=namespace.stream)
    by_stream = rows_by_stream(table)
    faults = asked_faults(namespace, interval_of(table, by_stream), len(by_stream))
    assert faults is not None  # --truth must be named
    told: list[Told] = []
    asked = 0
    with writing(namespace.out, table.channels, streams=len(by_stream) > 1) as output:
        for number, (stream, rows) in enumerate(by_stream.items()):
            times, values = table.times[rows], table.values[rows]
            wanted = round(faults.rate * len(rows))
            seed = [namespace.seed, number]
            values, found = spoil(times, values, stream, table.channels, wanted, seed, faults.kinds)
            told, asked = told + found, asked + wanted
            output.write([stream], times, values[None])
        with aside(namespace.truth) as file:
            file.write(text_of(told))
    said = asked_and_told(asked, len(told))
    print(f"{namespace.out}: {len(table)} readings of {_streams(len(by_stream))}{said}")
    return 0


def _interpolate(namespace: argparse.Namespace) -> int:
    from detector.adapters.files import read_table
    from trainer.synthesis.interpolated import render
    from trainer.synthesis.interpolation import between, of_seed, of_window
    from trainer.synthesis.recipe import read_recipe

    recipe = read_recipe(namespace.generator)
    groups = recipe.manifest.groups
    if namespace.group is not None and namespace.group not in groups:
        raise SettingsError(f"--group {namespace.group}: there are {'; '.join(groups)}")
    group = groups.index(namespace.group) if namespace.group is not None else 0
    if namespace.data is None:
        ends = [of_seed(recipe, _end_seed(end), group) for end in namespace.ends]
    else:
        table = read_table([namespace.data], channels=recipe.manifest.channels)
        ends = [of_window(recipe, table, _end_moment(end), group) for end in namespace.ends]
    text = render(between(recipe, ends[0], ends[1], namespace.steps, group))
    with aside(namespace.out) as file:
        file.write(text)
    print(f"{namespace.out}: {namespace.steps} steps from {ends[0].name} to {ends[1].name}")
    return 0


def _end_seed(text: str) -> int:
    if not text.isdecimal():
        raise SettingsError(f"{text} is no seed: write a number, or name the readings that it is a time of with --data")
    return int(text)


def _end_moment(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise SettingsError(f"{text}: {error}") from None


def _streams(number: int) -> str:
    return f"{number} stream{'s' * (number != 1)}"
