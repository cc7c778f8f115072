"""How fast ``trainer synth stream`` makes readings, into files and a real Kafka, beside what writing alone takes.

    python tests/bench/feed.py [--readings 400000] [--streams 20] [--data DIR] [--no-kafka]

A generator of 19 channels (a server's; how well it is fitted does not matter here). For each place: readings a second
by the clock and by processor time of this process (all threads), and the same for its yardstick, which writes readings
that were made before: Arrow's own writer, or the Kafka client sending records that are ready. The ratio of the two
processor times says what making costs beside writing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "kafka"), str(ROOT / "tests")]

from broker import Broker  # noqa: E402

from detector.adapters.files import read_table  # noqa: E402
from detector.adapters.kafka_clients import Clients  # noqa: E402
from detector.adapters.kafka_feed import open_feed  # noqa: E402
from schemas.reading import FieldNames  # noqa: E402
from trainer.cli import main as trainer  # noqa: E402
from trainer.synthesis.feed import Feed  # noqa: E402
from trainer.synthesis.output import writing  # noqa: E402
from trainer.synthesis.pipeline import fit_generator  # noqa: E402
from trainer.synthesis.recipe import Recipe, write_recipe  # noqa: E402
from trainer.synthesis.records import Encoder  # noqa: E402
from trainer.synthesis.sampler import Sampler  # noqa: E402
from trainer.synthesis.settings import SynthSettings  # noqa: E402


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds, processor seconds)."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - cpu


def said(place: str, readings: int, ours: tuple[float, float], yardstick: tuple[float, float]) -> None:
    """One line."""
    (wall, cpu), (_, bare) = ours, yardstick
    print(
        f"{place:26} {readings / wall:>10,.0f} readings a second, {readings / cpu:>10,.0f} a processor second; "
        f"yardstick {readings / bare:>12,.0f}: making and writing costs {cpu / bare:.1f} times as much",
        flush=True,
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=400_000)
    parser.add_argument("--streams", type=int, default=20)
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR")
    parser.add_argument("--no-kafka", action="store_true")
    chosen = parser.parse_args()
    table = read_table([str(chosen.data / "asd" / "omi-1" / "train.csv.gz")])
    recipe = fit_generator(table, SynthSettings.load({"model": "vae", "steps": 400})).recipe
    length = chosen.readings // chosen.streams
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_recipe(recipe, place / "gen", {})
        asked = [
            "synth", "stream", str(place / "gen"), "--rate", "0", "--length", str(length),
            "--streams", str(chosen.streams),
        ]  # fmt: skip
        _files(asked, recipe, chosen.streams, length, place)
        if not chosen.no_kafka:
            with Broker() as broker:
                _kafka(asked, recipe, chosen.streams, length, broker.bootstrap)


def _files(asked: list[str], recipe: Recipe, streams: int, length: int, place: Path) -> None:
    feed = Feed(Sampler(recipe, 0), streams, recipe.manifest.start_ns)
    ready = list(feed.of_all(length))
    for name in ("made.csv", "made.csv.gz", "made.parquet"):

        def bare(name: str = name) -> None:
            with writing(str(place / f"bare-{name}"), feed.channels, streams=True) as output:
                for stretch in ready:
                    output.write(feed.names, stretch.times, stretch.values)

        yardstick = timed(bare)
        ours = timed(lambda name=name: trainer([*asked, "--to", str(place / name)]))  # type: ignore[misc]
        said(name.partition(".")[2], streams * length, ours, yardstick)


def _kafka(asked: list[str], recipe: Recipe, streams: int, length: int, bootstrap: str) -> None:
    feed = Feed(Sampler(recipe, 0), streams, recipe.manifest.start_ns)
    keys = [name.encode() for name in feed.names]
    for per_record in (1, 20, 100):
        encoder = Encoder(feed.names, feed.channels, FieldNames(), per_record)
        ready = [record for stretch in feed.of_all(length) for record in encoder.records(stretch.times, stretch.values)]
        clients = Clients(bootstrap, "bench")

        def bare(ready: list[object] = ready, per_record: int = per_record, clients: Clients = clients) -> None:
            with closing(open_feed(clients, f"bare-{per_record}", None, 2, 60)) as kafka:
                for record in ready:
                    kafka.send(keys[record.stream], record.value)  # type: ignore[attr-defined]
                kafka.flush()

        yardstick = timed(bare)
        to = ["--to", f"kafka://{bootstrap}/made-{per_record}", "--partitions", "2", "--per-record", str(per_record)]
        ours = timed(lambda to=to: trainer([*asked, *to]))  # type: ignore[misc]
        said(f"kafka, {per_record} a record", streams * length, ours, yardstick)


if __name__ == "__main__":
    main()
