"""``detector run``: one replica over Kafka, from its settings to its exit."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from detector.adapters.kafka import KafkaLog
from detector.adapters.kafka_security import client_settings
from detector.adapters.port import Log, Watch, unwatched
from detector.decoding.decoded import Decoder
from detector.decoding.images import ImageDecoder
from detector.decoding.json_readings import JsonDecoder
from detector.decoding.of_streams import OfStreams
from detector.engine.engine import Engine
from detector.engine.readings import at_once
from detector.loading import load_engine, succession
from detector.monitor import Monitor
from detector.service import Service
from detector.succession import Succession
from detector.watchdog import Watchdog
from schemas.manifest import Manifest
from schemas.reading import FieldNames
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)


def run(
    settings: DetectorSettings,
    connect: Callable[[DetectorSettings], Log] | None = None,
    watch: Watch = unwatched,
) -> None:
    """Watch until SIGTERM, ctrl-C or, with ``stop_at_end``, the end. Raises the errors of ``schemas.errors``.

    ``connect``: opens the log, Kafka's by default; ``watch``: told of each step of the delivery protocol.
    """
    engine = load_engine(settings)
    limit_s = max(settings.watchdog, settings.startup_timeout + 30)  # connecting has its own, shorter time-out
    with (
        stopping() as stop,
        Watchdog(limit_s) as watchdog,
        Monitor(settings.http, limit_s, watchdog) as monitor,
    ):
        source = (connect or kafka)(settings)
        stop.connecting = False
        model = engine.model
        log.info("watching %s with %s, version %s…", settings.readings_topic, settings.model, model.id[:12])
        serve(settings, source, engine, monitor, stop, watch, succession(settings, model))


def serve(
    settings: DetectorSettings,
    source: Log,
    engine: Engine,
    monitor: Monitor,
    stop: threading.Event,
    watch: Watch = unwatched,
    following: Succession | None = None,
) -> None:
    """Run the service over a log that is already open. ``following``: the models after the engine's."""
    manifest = engine.model.manifest
    size = at_once(settings.batch_size, manifest.values)
    if size < settings.batch_size:
        log.info("images of %s are large: batches of at most %d", manifest.frame, size)
        settings = settings.model_copy(update={"batch_size": size})
    decoder = decoder_of(settings, manifest)
    Service(source, engine, decoder, settings, monitor, stop, watch=watch, succession=following).run()


def decoder_of(settings: DetectorSettings, manifest: Manifest) -> Decoder:
    """What turns a record into readings of the kind that the model was fitted on."""
    if manifest.frame is not None:
        return OfStreams(ImageDecoder(manifest.frame, settings.readings_topic), settings.streams)
    decoder = JsonDecoder(manifest.channel_names, settings.readings_topic, field_names(settings), settings.max_ahead)
    return OfStreams(decoder, settings.streams)


def field_names(settings: DetectorSettings) -> FieldNames:
    """What the fields of a reading are called."""
    return FieldNames(stream=settings.stream_field, timestamp=settings.timestamp_field, values=settings.values_field)


def kafka(settings: DetectorSettings, **further: Any) -> KafkaLog:
    """The log that the settings name. ``further``: what KafkaLog takes besides, such as time-outs."""
    return KafkaLog(
        bootstrap_servers=settings.bootstrap_servers,
        readings_topic=settings.readings_topic,
        alerts_topic=settings.alerts_topic,
        dead_letters_topic=settings.dead_letters_topic,
        state_topic=settings.state_topic_name,
        commands_topic=settings.commands_topic_name,
        scores_topic=settings.scores_topic,
        group_id=settings.group_id,
        replica_id=settings.replica_id,
        startup_timeout_s=settings.startup_timeout,
        skip_corrupt=settings.skip_corrupt,
        **{"client": client_settings(settings), **further},
    )


class Stop(threading.Event):
    """Set when the process is asked to end. While it is ``connecting`` there is no batch to finish: it ends at once."""

    connecting = True


@contextmanager
def stopping() -> Iterator[Stop]:
    """An event that SIGTERM or ctrl-C sets; a second one ends the process the hard way."""
    stop = Stop()

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)
        if stop.connecting:
            raise SystemExit(0)
        log.info("%s: finishing the batch", signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
