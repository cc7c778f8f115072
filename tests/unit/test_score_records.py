"""The scores topic: what offline scoring says of each reading, once, whatever befalls the detector."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import orjson
import pytest
from pipeline import CrashError, CrashingLog, fill, rows, serve
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.adapters.memory import MemoryBroker
from detector.cli import main
from schemas.errors import SettingsError
from schemas.score import Score
from schemas.settings import DetectorSettings


def test_scores_are_those_of_a_file_and_each_is_there_once(tmp_path: Path) -> None:
    model, broker, dice = tiny_model(), MemoryBroker(2), random.Random(3)
    made = [*rows("a"), *rows("b", loud=range(35, 40)), *rows("c")]
    fill(broker, made, 2)

    def dies() -> str | None:
        return dice.choice(["before", "after", None, None, None])

    for _ in range(200):
        try:
            log = CrashingLog(broker, "residual", dies)
            serve(model, broker, log, scores_topic="scores", batch_size=7)
            break
        except CrashError:
            continue
    found = [Score.model_validate_json(record.value) for record in broker.scores]
    assert [record.key.decode() for record in broker.scores] == [one.stream for one in found]
    assert len(found) == len({(one.stream, one.timestamp) for one in found})
    write_model(model, tmp_path / "model")
    lines = ["stream,timestamp,c0,c1,c2"]
    lines += [f"{stream},{1000 * t},{','.join(map(str, values))}" for stream, t, values in made]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    asked = ["score", "--model", str(tmp_path / "model"), str(tmp_path / "x.csv"), "--out", str(tmp_path / "s.csv")]
    assert main(asked) == 0
    with (tmp_path / "s.csv").open() as file:
        wanted = {(row["stream"], int(row["timestamp"])): row for row in csv.DictReader(file) if row["score"]}
    assert len(found) == len(wanted) > 100
    for one in found:
        seconds = int(one.timestamp[17:19]) + 60 * int(one.timestamp[14:16])
        row = wanted[one.stream, 1000 * seconds]
        assert one.score == pytest.approx(float(row["score"]), rel=1e-6)
        assert one.p_value == pytest.approx(float(row["p_value"]), rel=1e-6)
        named = [part.partition(":")[0] for part in row["channels"].split(";") if part]
        assert [share.name for share in one.channels] == named
    assert any(one.score > 1 for one in found)


def test_without_a_topic_there_are_none_and_its_name_is_its_own() -> None:
    broker = MemoryBroker(1)
    fill(broker, rows("a"), 1)
    serve(tiny_model(), broker)
    assert broker.scores == []
    with pytest.raises(SettingsError, match="each needs a topic of its own"):
        DetectorSettings.load({"scores_topic": "alerts"})


def test_a_score_is_canonical_json() -> None:
    broker = MemoryBroker(1)
    fill(broker, rows("a"), 1)
    serve(tiny_model(), broker, scores_topic="scores")
    document = orjson.loads(broker.scores[-1].value)
    assert list(document) == ["alert", "channels", "p_value", "score", "stream", "timestamp"]
