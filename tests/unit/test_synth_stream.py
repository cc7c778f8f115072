"""Made readings as a feed: records that the detector reads, faults at their rate, files in the order of time."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import START_NS, STEP_NS, made

from detector.adapters.files import read_table
from detector.adapters.port import Records
from detector.decoding.json_readings import JsonDecoder
from schemas.reading import FieldNames
from trainer import cli
from trainer.synthesis.feed import Feed
from trainer.synthesis.pace import Pace
from trainer.synthesis.planted import Faults
from trainer.synthesis.recipe import write_recipe
from trainer.synthesis.records import Encoder
from trainer.synthesis.sampler import BLOCK, Sampler


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.floats(0, 0.02), st.integers(0, 50))
def test_however_a_stream_is_cut_its_faults_come_to_the_rate(cuts: list[int], rate: float, stream: int) -> None:
    faults, first, found = Faults(rate), 0, 0
    for count in cuts:
        found += faults.within(first, count, stream)
        first += count
    assert abs(found - rate * first) <= 1


def test_a_feed_of_all_streams_is_what_each_is_alone() -> None:
    feed = Feed(Sampler(made().recipe, 3), 3, START_NS, Faults(0.004, seed=3))
    together = list(feed.of_all(BLOCK + 700))
    for number in range(3):
        alone = list(feed.of_stream(number, BLOCK + 700))
        for one, all_ in zip(alone, together, strict=True):
            # a batch of one may differ in the last digits
            np.testing.assert_allclose(one.values[0], all_.values[number], atol=1e-3)
            assert one.told == tuple(told for told in all_.told if told.stream == feed.names[number])
    assert sum(len(stretch.told) for stretch in together) > 10
    assert [len(stretch.times) for stretch in together] == [BLOCK, 700]


@pytest.mark.parametrize("per_record", [1, 7])
def test_the_detector_reads_what_is_sent(per_record: int) -> None:
    names, channels = ('pump "7"', "Säge"), ("a,b", "ü")
    times = START_NS + STEP_NS * np.arange(30)
    values = np.random.default_rng(1).normal(size=(2, 30, 2)).astype(np.float32)
    values[0, 3, 1], values[1, :, 0] = np.nan, np.round(1e7 * values[1, :, 0])
    fields = FieldNames(stream="s", timestamp="t", values="v")
    sent = list(Encoder(names, channels, fields, per_record).records(times, values))
    assert sum(record.readings for record in sent) == 60
    assert [record.newest_ns for record in sent] == sorted(record.newest_ns for record in sent)
    count = len(sent)
    decoded = JsonDecoder(channels, "readings", fields).decode(
        Records(
            0, np.arange(count), np.array([record.newest_ns // 10**6 for record in sent]), [None] * count,
            [record.value for record in sent],
        )
    )  # fmt: skip
    assert not decoded.dead_letters
    readings = decoded.readings
    for number, name in enumerate(names):
        own = np.flatnonzero(np.array(readings.streams) == name)
        np.testing.assert_array_equal(readings.values[own], values[number])
        np.testing.assert_array_equal(readings.times[own], times)


def test_a_file_in_the_order_of_time_with_its_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, truth = tmp_path / "gen", tmp_path / "made.parquet", tmp_path / "truth.csv"
    write_recipe(made().recipe, str(folder), {})
    asked = ["synth", "stream", str(folder), "--to", str(out), "--length", "2500", "--streams", "2"]
    assert cli.main([*asked, "--truth", str(truth), "--episodes", "3/1d", "--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"5,000 readings in .* a second, \d+ faults", said)
    table = read_table([str(out)])
    assert (np.diff(table.times) >= 0).all()
    assert list(table.streams[:4]) == ["1", "2", "1", "2"]
    with truth.open() as file:
        told = list(csv.DictReader(file))
    assert f"{len(told)} faults" in said
    assert 70 <= len(told) <= 105  # of 17.4 days and two streams
    sampled = tmp_path / "sampled.parquet"
    assert cli.main(["synth", "sample", str(folder), "--out", str(sampled), "--length", "2500", "--streams", "2",
                     "--truth", str(tmp_path / "again.csv"), "--episodes", "3/1d", "--seed", "5"]) == 0  # fmt: skip
    assert (tmp_path / "again.csv").read_text() == truth.read_text()


def test_a_rate_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with Pace(1000, None, print) as pace:
        for _ in range(10):
            pace.sent(20)
    assert pace.elapsed_s >= 0.19
    assert pace.said.startswith("200 readings in ")
    assert "of 1,000 asked for" in pace.said


@pytest.mark.parametrize(("arguments", "said"), [
    (["--to", "x.csv"], "name one with --length"),
    (["--to", "kafka://nowhere"], "is no topic's address"),
    (["--to", "kafka://nowhere:1/t", "--truth", "t"], "is the topic of the readings"),
    (["--to", "x.csv", "--length", "10", "--truth", "t", "--kinds", "boom"], "there are spike"),
    (["--to", "no/x.csv", "--length", "10"], "does not exist"),
    (["--to", "x.csv", "--length", "10", "--streams", "100000"], "too many for one process"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(made().recipe, str(tmp_path / "gen"), {})
    monkeypatch.chdir(tmp_path)
    assert cli.main(["synth", "stream", "gen", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["gen"]


def test_the_truth_as_a_record_is_the_same_as_in_a_file() -> None:
    feed = Feed(Sampler(made().recipe, 3), 1, START_NS, Faults(0.01, seed=3))
    for told in next(feed.of_stream(0, BLOCK)).told:
        read = json.loads(told.to_bytes())
        stream, kind, start, end, channels, size = told.cells
        assert (read["stream"], read["kind"], read["start"], read["end"]) == (stream, kind, start, end)
        assert (";".join(read["channels"]), read["size"]) == (channels, float(size))


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    write_recipe(made().recipe, str(tmp_path / "gen"), {})
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("before")
    link.symlink_to(target)
    assert cli.main(["synth", "sample", str(tmp_path / "gen"), "--length", "20", "--out", str(link)]) == 0
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 21
