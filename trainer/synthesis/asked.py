"""What the commands of ``trainer synth`` are asked for alike: seed, styles, start and faults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import SettingsError
from schemas.moment import SECOND_NS, parse_time
from schemas.promise import DAY_S, Promise

if TYPE_CHECKING:
    from trainer.synthesis.images.sampler import ImageSampler
    from trainer.synthesis.planted import Faults
    from trainer.synthesis.sampler import Sampler


def add_made(parser: argparse.ArgumentParser, start: str) -> None:
    """Flags of what makes readings; ``start``: the help of --start."""
    parser.add_argument(
        "--streams", dest="each", type=count, default=1, metavar="N", help="streams of each group; default 1"
    )
    parser.add_argument("--start", metavar="TIME", help=start)
    for style, text in (("coarse", "level and course"), ("middle", "shape"), ("fine", "texture")):
        parser.add_argument(
            f"--{style}", type=_spread, default=1.0, metavar="X",
            help=f"how much the {text} varies: 1 as learned, 0 not at all",
        )  # fmt: skip
    add_faults(parser)


def add_faults(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Flags of faults to order."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all that is drawn; default 0")
    parser.add_argument(
        "--truth",
        required=required,
        metavar="FILE",
        help="plant faults, and write what they are: CSV with stream, kind, start, end, channels, size; of a topic "
        "this is a topic, too, with the same as JSON",
    )
    parser.add_argument(
        "--episodes", default="1/1d", metavar="N/DURATION", help="faults of each stream in a time; default 1/1d"
    )
    parser.add_argument("--kinds", metavar="KIND;…", help="kinds of faults; default all")


def seed(text: str) -> int:
    """A number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("at least 0")
    return value


def count(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _spread(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError("from 0 to 10")
    return value


def asked_sampler(namespace: argparse.Namespace) -> Sampler:
    """Of the generator that was named, by seed and styles. Raises ModelError."""
    from trainer.synthesis.recipe import read_recipe
    from trainer.synthesis.sampler import Sampler, Styles

    styles = Styles(namespace.coarse, namespace.middle, namespace.fine)
    return Sampler(read_recipe(namespace.generator), namespace.seed, styles)


def asked_image_sampler(namespace: argparse.Namespace) -> ImageSampler:
    """Of the generator of images that was named. Raises ModelError."""
    from trainer.synthesis.images.recipe import read_image_recipe
    from trainer.synthesis.images.sampler import ImageSampler
    from trainer.synthesis.sampler import Styles

    styles = Styles(namespace.coarse, namespace.middle, namespace.fine)
    return ImageSampler(read_image_recipe(namespace.generator), namespace.seed, styles)


def asked_start(namespace: argparse.Namespace, usual_ns: int) -> int:
    """Time of the first reading, ns."""
    if namespace.start is None:
        return usual_ns
    try:
        return parse_time(namespace.start)
    except ValueError as error:
        raise SettingsError(f"--start {namespace.start}: {error}") from None


def asked_faults(
    namespace: argparse.Namespace, interval_ns: int, streams: int, *, of_images: bool = False
) -> Faults | None:
    """What is ordered; None: nothing. Raises SettingsError for what cannot be, whether it is ordered or not."""
    from trainer.synthesis.planted import Faults

    kinds = _kinds(namespace.kinds, of_images)
    try:
        per_day = Promise.parse(namespace.episodes).per_day(streams)
    except ValueError as error:
        raise SettingsError(f"--episodes {namespace.episodes}: {error}") from None
    rate = per_day / DAY_S * interval_ns / SECOND_NS
    return None if namespace.truth is None else Faults(rate, kinds, namespace.seed)


def _kinds(text: str | None, of_images: bool) -> Sequence[str]:
    from trainer.faults import KINDS
    from trainer.images import faults

    known = tuple(faults.KINDS) if of_images else KINDS
    wanted = known if text is None else [name.strip() for name in text.split(";")]
    if unknown := [name for name in wanted if name not in known]:
        raise SettingsError(f"--kinds {unknown[0]}: there are {'; '.join(known)}")
    return wanted
