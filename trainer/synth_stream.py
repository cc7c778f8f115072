"""``trainer synth stream``: a generator's readings, or images, as a live topic or as a file in the order of time."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from detector.adapters.aside import aside
from detector.flags import add_flags, given
from schemas.errors import SettingsError
from schemas.moment import SECOND_NS
from schemas.reading import FieldNames
from schemas.security import Security
from trainer.console import say
from trainer.synthesis.asked import add_made, asked_faults, asked_image_sampler, asked_sampler, asked_start, count
from trainer.synthesis.settings import SynthSettings

if TYPE_CHECKING:
    from detector.adapters.kafka_feed import Feed as KafkaFeed
    from trainer.synthesis.feed import Feed
    from trainer.synthesis.images.feed import ImageFeed
    from trainer.synthesis.images.recipe import ImageManifest
    from trainer.synthesis.images.records import Pictures
    from trainer.synthesis.planted import Told
    from trainer.synthesis.records import Encoder

#: Settings that it takes.
FIELDS = ("startup_timeout", "stream_field", "timestamp_field", "values_field", *Security.model_fields)

EPILOG = """A topic gets records as the detector reads them, with the stream's name as their key, until --length is
reached or it is interrupted. What the faults are is told on a topic of its own, each when its last reading has been
sent. The same seed and --start give the same readings. A detector sets aside what is dated more than its max_ahead (an
hour) past its arrival: what comes faster than it was measured has to start in the past. Of images there is one a
record, whose own time is the image's: brokers delete what is older than the topic's retention, and refuse what lies
more than an hour ahead.

Exit codes: 0 done; 2 something must be changed first; 75 try again; 130 interrupted before a file was whole."""


def add_command(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to ``trainer synth``'s."""
    stream = parts.add_parser(
        "stream", help="make readings at a stated rate, into a topic or a file", epilog=EPILOG,
        description="Makes readings of many streams in the order of time, at a stated rate.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    stream.add_argument("generator", metavar="GEN", help="folder of a generator")
    stream.add_argument("--to", required=True, metavar="PLACE", help="kafka://HOST:PORT/TOPIC, or a file to write")
    stream.add_argument(
        "--rate", dest="per_s", type=_rate, metavar="N",
        help="readings per second of all streams together, 0: as fast as can be; default: a topic as fast as they were "
        "measured, a file as fast as can be",
    )  # fmt: skip
    stream.add_argument("--length", type=count, metavar="N", help="readings of each stream; a topic: default no end")
    stream.add_argument("--per-record", type=count, default=1, metavar="N", help="readings in a record; default 1")
    stream.add_argument("--partitions", type=count, metavar="N", help="make the topic, with so many, if there is none")
    add_made(
        stream,
        start="time of the first reading; default: now where a topic gets them no faster than they were "
        "measured, else as what was learned from",
    )
    add_flags(stream, SynthSettings, only=FIELDS)
    stream.set_defaults(command=_stream)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError("at least 0")
    return value


def _stream(namespace: argparse.Namespace) -> int:
    from trainer.data import topic_of
    from trainer.synthesis.recipe import is_of_images

    settings = SynthSettings.load(given(namespace, SynthSettings), namespace.config)
    topic = topic_of([namespace.to])
    if topic is None and namespace.length is None:
        raise SettingsError(f"{namespace.to} is a file, which has an end: name one with --length")
    if topic is not None and namespace.truth == topic[1]:
        raise SettingsError(f"--truth {namespace.truth} is the topic of the readings: name another")
    made = _images if is_of_images(namespace.generator) else _readings
    with _terminated():
        said = made(namespace, settings, topic)
    print(f"{namespace.to}: {said}")
    return 0


def _readings(namespace: argparse.Namespace, settings: SynthSettings, topic: tuple[str, str] | None) -> str:
    from trainer.synthesis.feed import Feed
    from trainer.synthesis.records import Encoder

    sampler = asked_sampler(namespace)
    manifest = sampler.recipe.manifest
    streams = namespace.each * len(manifest.groups)
    faults = asked_faults(namespace, manifest.interval_ns, streams)
    rate, live = _rates(namespace, streams, manifest.interval_ns, topic)
    start_ns = asked_start(namespace, _now(manifest.interval_ns) if live else manifest.start_ns)
    feed = Feed(sampler, namespace.each, start_ns, faults)
    if topic is None:
        return _to_file(namespace, feed, rate)
    fields = FieldNames(stream=settings.stream_field, timestamp=settings.timestamp_field, values=settings.values_field)
    encoder = Encoder(feed.names, feed.channels, fields, namespace.per_record)
    return _to_topic(namespace, settings, feed, encoder, rate, *topic)


def _images(namespace: argparse.Namespace, settings: SynthSettings, topic: tuple[str, str] | None) -> str:
    from detector.adapters.pillow import require_pillow
    from trainer.synthesis.images.feed import ImageFeed
    from trainer.synthesis.images.output import write_images
    from trainer.synthesis.images.records import Pictures
    from trainer.synthesis.planted import asked_and_told

    sampler = asked_image_sampler(namespace)
    manifest = sampler.recipe.manifest
    streams = namespace.each * len(manifest.groups)
    faults = asked_faults(namespace, manifest.interval_ns, streams, of_images=True)
    rate, live = _rates(namespace, streams, manifest.interval_ns, topic)
    if topic is None:
        feed = ImageFeed(sampler, namespace.each, asked_start(namespace, manifest.start_ns), faults)
        asked, told = write_images(feed, namespace.length, namespace.to, namespace.truth)
        said = asked_and_told(asked, told) if faults else ""
        return f"{namespace.length} images of {streams} stream{'s' * (streams != 1)}{said}"
    if namespace.per_record != 1:
        raise SettingsError(f"--per-record {namespace.per_record}: a record holds one image")
    require_pillow("a topic of images")
    encoder = Pictures(manifest)
    feed = ImageFeed(sampler, namespace.each, asked_start(namespace, _before(namespace, manifest, live)), faults)
    return _to_topic(namespace, settings, feed, encoder, rate, *topic)


def _before(namespace: argparse.Namespace, manifest: ImageManifest, live: bool) -> int:
    """A time of the first image that brokers take, and keep: an image's is its record's own, ns."""
    now_ns = _now(manifest.interval_ns)
    if live or namespace.start is not None:
        return now_ns
    if namespace.length is None:
        raise SettingsError("images that come faster than they were taken lie ahead of time soon: name --length")
    return int(now_ns - namespace.length * manifest.interval_ns)


def _rates(
    namespace: argparse.Namespace, streams: int, interval_ns: int, topic: tuple[str, str] | None
) -> tuple[float | None, bool]:
    """(readings per second, None: as fast as can be; whether that is no faster than they were measured)."""
    natural = streams * SECOND_NS / interval_ns
    rate = natural if namespace.per_s is None and topic is not None else namespace.per_s or None
    return rate, topic is not None and rate is not None and rate <= natural


def _now(interval_ns: int) -> int:
    return time.time_ns() // interval_ns * interval_ns


@contextmanager
def _terminated() -> Iterator[None]:
    """Whoever ends it by a signal means the same as ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _to_file(namespace: argparse.Namespace, feed: Feed, rate: float | None) -> str:
    from trainer.synthesis.output import writing
    from trainer.synthesis.pace import Pace
    from trainer.synthesis.planted import asked_and_told, text_of

    told: list[Told] = []
    asked = 0
    total = namespace.length * len(feed.names)
    with writing(namespace.to, feed.channels, streams=len(feed.names) > 1) as output, Pace(rate, total, say) as pace:
        for stretch in feed.of_all(namespace.length):
            told += stretch.told
            asked += stretch.asked
            step = len(stretch.times) if rate is None else max(int(rate / len(feed.names) / 10), 1)
            for at in range(0, len(stretch.times), step):
                part = slice(at, at + step)
                output.write(feed.names, stretch.times[part], stretch.values[:, part])
                pace.sent(len(feed.names) * len(stretch.times[part]))
        if namespace.truth is not None:
            with aside(namespace.truth) as file:
                file.write(text_of(told))
    return pace.said + (asked_and_told(asked, len(told)) if namespace.truth is not None else "")


def _to_topic(
    namespace: argparse.Namespace, settings: SynthSettings, feed: Feed | ImageFeed, encoder: Encoder | Pictures,
    rate: float | None, servers: str, topic: str,
) -> str:  # fmt: skip
    from detector.adapters.kafka_clients import Clients
    from detector.adapters.kafka_feed import open_feed
    from detector.adapters.kafka_security import client_settings
    from trainer.synthesis.pace import Pace
    from trainer.synthesis.planted import asked_and_told

    keys = [name.encode() for name in feed.names]
    clients = Clients(servers, "residual-synth", client_settings(settings))
    stretches = feed.of_all(namespace.length)
    total = namespace.length and namespace.length * len(keys)
    told = asked = 0
    opened = open_feed(clients, topic, namespace.truth, namespace.partitions, settings.startup_timeout)
    with closing(opened) as kafka, Pace(rate, total, say) as pace:
        try:
            for stretch in stretches:
                due = sorted(stretch.told, key=lambda one: one.end_ns, reverse=True)
                for record in encoder.records(stretch.times, stretch.values):
                    while due and due[-1].end_ns < record.newest_ns:
                        told += _told(kafka, due.pop())
                    kafka.send(keys[record.stream], record.value, record.timestamp_ms)
                    pace.sent(record.readings)
                for one in reversed(due):
                    told += _told(kafka, one)
                asked += stretch.asked
        except KeyboardInterrupt:  # the usual end of what has none
            say("interrupted: waits until the brokers have what was sent")
        kafka.flush()
        return pace.said + (asked_and_told(asked, told) if namespace.truth is not None else "")


def _told(kafka: KafkaFeed, one: Told) -> int:
    kafka.tell(one.stream.encode(), one.to_bytes())
    return 1
