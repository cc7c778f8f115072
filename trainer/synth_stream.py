"""``trainer synth stream``: a generator's readings as a live topic, or as a file in the order of time."""

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
from trainer.synthesis.asked import add_made, asked_faults, asked_sampler, asked_start, count
from trainer.synthesis.settings import SynthSettings

if TYPE_CHECKING:
    from detector.adapters.kafka_feed import Feed as KafkaFeed
    from trainer.synthesis.feed import Feed
    from trainer.synthesis.planted import Told

#: Settings that it takes.
FIELDS = ("startup_timeout", "stream_field", "timestamp_field", "values_field", *Security.model_fields)

EPILOG = """A topic gets records as the detector reads them, with the stream's name as their key, until --length is
reached or it is interrupted. What the faults are is told on a topic of its own, each when its last reading has been
sent. The same seed and --start give the same readings. A detector sets aside what is dated more than its max_ahead (an
hour) past its arrival: what comes faster than it was measured has to start in the past.

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
    from trainer.synthesis.feed import Feed

    settings = SynthSettings.load(given(namespace, SynthSettings), namespace.config)
    topic = topic_of([namespace.to])
    if topic is None and namespace.length is None:
        raise SettingsError(f"{namespace.to} is a file, which has an end: name one with --length")
    if topic is not None and namespace.truth == topic[1]:
        raise SettingsError(f"--truth {namespace.truth} is the topic of the readings: name another")
    sampler = asked_sampler(namespace)
    manifest = sampler.recipe.manifest
    interval = manifest.interval_ns
    faults = asked_faults(namespace, interval, namespace.each * len(manifest.groups))
    natural = namespace.each * len(manifest.groups) * SECOND_NS / interval
    rate = natural if namespace.per_s is None and topic is not None else namespace.per_s or None
    live = topic is not None and rate is not None and rate <= natural
    usual = time.time_ns() // interval * interval if live else manifest.start_ns
    feed = Feed(sampler, namespace.each, asked_start(namespace, usual), faults)
    with _terminated():
        if topic is None:
            said = _to_file(namespace, feed, rate)
        else:
            said = _to_topic(namespace, settings, feed, rate, *topic)
    print(f"{namespace.to}: {said}")
    return 0


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
    namespace: argparse.Namespace, settings: SynthSettings, feed: Feed, rate: float | None, servers: str, topic: str
) -> str:
    from detector.adapters.kafka_clients import Clients
    from detector.adapters.kafka_feed import open_feed
    from detector.adapters.kafka_security import client_settings
    from trainer.synthesis.pace import Pace
    from trainer.synthesis.planted import asked_and_told
    from trainer.synthesis.records import Encoder

    fields = FieldNames(stream=settings.stream_field, timestamp=settings.timestamp_field, values=settings.values_field)
    encoder = Encoder(feed.names, feed.channels, fields, namespace.per_record)
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
                    kafka.send(keys[record.stream], record.value)
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
