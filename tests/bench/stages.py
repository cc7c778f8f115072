"""Where the CPU time of the whole pipeline goes: the service in this process, over Kafka. Prints JSON.

python stages.py BOOTSTRAP TOPIC MODEL GROUP

The steps are timed by the CPU clock of the main thread; what the Kafka clients' own threads use is added to polling
(they fetch) and producing, by their names.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil

from detector.adapters.kafka import KafkaLog
from detector.decoding.json_readings import JsonDecoder
from detector.loading import load_engine
from detector.service import Service
from schemas.settings import DetectorSettings


class Clock:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def follow(self, thing: Any, method: str, step: str) -> None:
        """Count what a method of this object uses."""
        call: Callable[..., Any] = getattr(thing, method)

        def counted(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[step] += time.thread_time() - began

        setattr(thing, method, counted)


def client_threads() -> dict[str, float]:
    """CPU seconds of the Kafka clients' threads: the producer's, and those that fetch and ask."""
    used = {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}
    found = {"polling": 0.0, "producing": 0.0}
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and "residual-" in thread.name:
            step = "producing" if thread.name.endswith("network-thread") else "polling"
            found[step] += used.get(thread.native_id or -1, 0.0)
    return found


def main(bootstrap: str, topic: str, model: str, group: str) -> None:
    """Shares of the CPU time between the first poll and the end."""
    flags = {"bootstrap_servers": bootstrap, "readings_topic": topic, "model": model, "group_id": group}
    settings = DetectorSettings.load({**flags, "stop_at_end": True})
    engine, clock = load_engine(settings), Clock()
    decoder = JsonDecoder(engine.model.manifest.channel_names, topic)
    log = KafkaLog(
        bootstrap_servers=bootstrap,
        readings_topic=topic,
        alerts_topic=f"{group}-alerts",
        dead_letters_topic=f"{group}-dead",
        state_topic=settings.state_topic_name,
        commands_topic=settings.commands_topic_name,
        group_id=group,
    )
    for thing, method, step in (
        (log, "poll", "polling"),
        (decoder, "decode", "decoding"),
        (engine, "process", "engine"),
        (engine, "dump", "checkpoints"),
        (log, "commit", "producing"),
    ):
        clock.follow(thing, method, step)
    close, ends = log.close, []

    def closed() -> None:  # the threads' times are lost when they end
        ends.append((time.process_time(), client_threads()))
        close()

    log.close = closed  # type: ignore[method-assign]
    before, began = client_threads(), time.process_time()
    Service(log, engine, decoder, settings).run()
    ended, after = ends[0]
    for step in before:
        clock.seconds[step] += after[step] - before[step]
    print(json.dumps(shares(clock.seconds, engine.seconds, ended - began)))


def shares(used: dict[str, float], inside: dict[str, float], total: float) -> dict[str, float]:
    """Shares of the whole; the engine's part is divided as its own clock, which does not know CPU time, says."""
    judged = used.pop("engine") / sum(inside.values())
    found = {"polling": used.pop("polling"), "decoding": used.pop("decoding")}
    found |= {name: inside[name] * judged for name in ("windows", "onnx", "decide")}
    found |= {"producing": used.pop("producing"), **used}
    found["the rest"] = total - sum(found.values())
    return {name: seconds / total for name, seconds in found.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
