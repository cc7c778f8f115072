"""Where the time of the whole pipeline goes: the service in this process, over Kafka, with an observer. Prints JSON.

python stages.py BOOTSTRAP TOPIC MODEL GROUP
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict

from detector.adapters.kafka import KafkaLog
from detector.loading import load_engine
from detector.observer import Observer
from detector.run import serve
from schemas.settings import DetectorSettings


class Stages(Observer):
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def stage(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds

    def committed(self, transaction: object, types: list[str], seconds: float) -> None:
        self.seconds["producing"] += seconds


def main(bootstrap: str, topic: str, model: str, group: str) -> None:
    """Shares of the wall time; the engine's stages stand in place of "score"."""
    flags = {"bootstrap_servers": bootstrap, "readings_topic": topic, "model": model, "group_id": group}
    settings = DetectorSettings.load({**flags, "stop_at_end": True})
    engine, stages = load_engine(settings), Stages()
    log = KafkaLog(
        bootstrap_servers=bootstrap,
        readings_topic=topic,
        alerts_topic=f"{group}-alerts",
        dead_letters_topic=f"{group}-dead",
        state_topic=settings.state_topic_name,
        group_id=group,
    )
    began = time.perf_counter()
    serve(settings, log, engine, stages, threading.Event())
    spent = time.perf_counter() - began
    stages.seconds.pop("score", None)
    seconds = {"polling": stages.seconds.pop("poll"), "decoding": stages.seconds.pop("decode"), **stages.seconds}
    print(json.dumps({name: value / spent for name, value in {**seconds, **engine.seconds}.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
