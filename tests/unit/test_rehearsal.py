"""The page of a rehearsal: through the command, its numbers beside those of scores.csv and alerts.jsonl."""

from __future__ import annotations

import csv
import html
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_model import tiny_model

from detector.adapters import overflow
from detector.adapters.files import Table
from detector.adapters.folder import write_model
from detector.cli import main
from detector.engine.engine import Engine
from detector.engine.readings import Readings
from detector.page.plots import STEPS, Scale, around, line, log_ticks, plot, thinned, time_ticks
from detector.rehearsal import Record, render
from detector.rehearsal.sent import IN_FULL, Incident, Sent, only_in
from schemas.alert import Alert, AlertData, ChannelShare, Ended, EventType, Kind, Severity
from schemas.manifest import Channel
from schemas.moment import SECOND_NS, format_time
from schemas.settings import DetectorSettings

START = 1_704_067_200  # 2024-01-01
STEP = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of the streams a and b, which are 0 but for a little."""
    write_model(tiny_model(interval_s=STEP), tmp_path / "model")
    return tmp_path


def write(path: Path, streams: tuple[str, ...] = ("a", "b"), count: int = 400, loud: tuple[range, ...] = ()) -> Path:
    """One reading every ten minutes of each stream; the first is loud for a while."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "stream", "c0", "c1", "c2"])
        for t in range(count):
            for stream in streams:
                high = 9.0 * any(t in part for part in loud) * (stream == streams[0])
                rows.writerow([format_time((START + STEP * t) * SECOND_NS), stream, *(high + rng.normal(0, 0.1, 3))])
    return path


def rehearse(folder: Path, data: Path, *more: str) -> str:
    """The page that the command writes."""
    command = ["score", "--model", str(folder / "model"), str(data), "--out", str(folder / "scores.csv")]
    command += ["--alerts", str(folder / "alerts.jsonl"), "--report", str(folder / "page.html"), *more]
    assert main(command) == 0
    return (folder / "page.html").read_text(encoding="utf-8")


def facts(text: str) -> list[str]:
    """The large numbers at the top."""
    return re.findall(r"<div><b>(.*?)</b>", text)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()]


LOUD = (range(100, 130), range(250, 260), range(300, 303))


def test_its_numbers_are_those_of_the_other_files(folder: Path) -> None:
    text = rehearse(folder, write(folder / "data.csv", loud=LOUD))
    sent = events(folder)
    opened = [event for event in sent if event["type"].endswith("opened")]
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    alarmed = sum(row["alert"] == "1" for row in rows)
    scored = [float(row["score"]) for row in rows if row["score"]]
    assert len(opened) >= 2
    assert facts(text)[0] == f"{len(opened)}"
    assert f"{len(sent)} messages sent" in text
    weeks = len(scored) * STEP / (7 * 86_400)
    assert float(facts(text)[1].replace(",", "")) == pytest.approx(len(opened) / weeks, rel=0.01)
    assert "promised: false ones at most 1<" in text  # one a week is what the tiny model promises
    assert facts(text)[2] == f"{alarmed / len(rows):.2%}"
    assert facts(text)[3] == f"{len({event['subject'] for event in opened})}"
    assert float(facts(text)[5].replace(",", "")) == pytest.approx(max(scored), rel=0.01)
    kinds = Counter(event["data"]["kind"] for event in opened)
    for kind, count in kinds.items():
        assert re.search(rf"{kind}</td><td class=\"wordy\">[^<]*</td><td class=\"n\">{count}</td>", text)
    assert text.count('<section class="incident">') == len(opened)
    for event in opened:
        when = event["data"]["opened"].replace("T", " ")[:16]
        assert f"opened {when} UTC" in text
        if event["data"]["summary"]:
            assert html.escape(event["data"]["summary"]) in text
    assert "What would have been sent over 800 readings of 2 streams, 2024-01-01 00:00 UTC" in text


def test_the_page_changes_nothing_of_what_else_is_written(folder: Path) -> None:
    data = write(folder / "data.csv", loud=LOUD)
    rehearse(folder, data, "--compare", "incident_k=2")
    with_page = [(folder / name).read_bytes() for name in ("scores.csv", "alerts.jsonl")]
    command = ["score", "--model", str(folder / "model"), str(data), "--out", str(folder / "scores.csv")]
    assert main([*command, "--alerts", str(folder / "alerts.jsonl")]) == 0
    assert with_page == [(folder / name).read_bytes() for name in ("scores.csv", "alerts.jsonl")]


def test_the_same_readings_give_the_same_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(folder / "data.csv", loud=LOUD)
    page = rehearse(folder, data, "--compare", "incident_quiet=9")
    assert rehearse(folder, data, "--compare", "incident_quiet=9") == page
    with monkeypatch.context() as patch:  # whatever lies on disk, and however small the parts are
        patch.setattr(overflow, "LIMIT", 0)
        patch.setattr(overflow, "CHUNK_CELLS", 64)
        assert rehearse(folder, data, "--compare", "incident_quiet=9") == page
    assert facts(rehearse(folder, data, "--partitions", "3")) == facts(page)


def test_two_settings_side_by_side(folder: Path) -> None:
    data = write(folder / "data.csv", loud=(range(100, 130), range(300, 302)))
    text = rehearse(folder, data, "--compare", "incident_k=3,incident_quiet=60")
    assert "<b>A</b>: incident_k=1, incident_quiet=3 (this page). <b>B</b>: incident_k=3, incident_quiet=60." in text
    columns = re.search(r"<tbody>\s*<tr><td class=\"\">(?:<b>)?incidents.*?</tr>", text)
    assert columns is not None
    a, b = (int(n) for n in re.findall(r">(\d+)<", columns[0]))
    assert a == int(facts(text)[0])
    rehearse(folder, data, "--incident-k", "3", "--incident-quiet", "60")
    assert b == sum(event["type"].endswith("opened") for event in events(folder))


def test_incidents_of_only_one_setting_are_listed(folder: Path) -> None:
    data = write(folder / "data.csv", loud=(range(100, 130), range(300, 301)))
    text = rehearse(folder, data, "--incident-k", "30", "--incident-n", "30", "--compare", "incident_k=1")
    assert re.search(r"Only with B: \d+ incident", text)
    assert "Every incident of A has one in B at the same time." in text
    assert '<div class="lanes">' in text


def test_nothing_would_have_been_sent(folder: Path) -> None:
    text = rehearse(folder, write(folder / "data.csv"))
    assert facts(text)[:3] == ["0", "0", "0.00%"]
    assert "Nothing would have been sent." in text
    assert "<section" not in text


def test_what_a_new_stream_does_not_publish_is_said(folder: Path) -> None:
    data = write(folder / "data.csv", ("new", "b"), loud=LOUD[:1])
    with data.open("a") as file:
        file.write(data.read_text().splitlines()[-1] + "\n")
    text = rehearse(folder, data)
    assert re.search(r"\d+ scores above the threshold would not have been published", text)
    assert "1 reading came late or twice" in text
    text = rehearse(folder, data, "--unseen-readings", "10")
    assert "would not have been published" not in text


def test_a_few_readings_in_warm_up(folder: Path) -> None:
    text = rehearse(folder, write(folder / "data.csv", count=2), "--compare", "incident_k=1")
    assert "Nothing would have been sent." in text
    assert "No reading was scored" in text
    assert facts(text)[:3] == ["0", "–", "0.00%"]


def test_no_reading_at_all() -> None:
    text = render(a_record(count=0), a_record(count=0), {"incident_k": "1"})
    assert "There are no readings in these data." in text
    assert facts(text)[:3] == ["0", "–", "–"]


def test_history_is_no_part_of_it(folder: Path) -> None:
    history = write(folder / "history.csv", count=200, loud=(range(150, 160),))
    lines = write(folder / "all.csv", count=400).read_text().splitlines()
    (folder / "data.csv").write_text("\n".join([lines[0], *lines[401:]]))
    text = rehearse(folder, folder / "data.csv", "--history", str(history))
    assert "over 400 readings of 2 streams, 2024-01-02 09:20 UTC" in text
    assert facts(text)[0] == "0"


def test_it_may_not_be_written_over_what_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "data.csv", count=10)
    before = data.read_bytes()
    command = ["score", "--model", str(folder / "model"), str(data), "--out", str(folder / "scores.csv")]
    for more, says in [
        (["--report", str(data)], "is read and would be written over"),
        (["--report", str(folder / "scores.csv")], "--out and --report are both"),
        (["--report", str(folder / "x"), "--alerts", str(folder / "x")], "--alerts and --report are both"),
        (["--report", str(folder / "no" / "page.html")], "does not exist"),
        (["--compare", "incident_k=1"], "name one with --report"),
        (["--report", "p.html", "--compare", "incident_k"], "write KEY=VALUE"),
        (["--report", "p.html", "--compare", "model=x"], "write KEY=VALUE"),
        (["--report", "p.html", "--compare", "incident_k=1,incident-k=2"], "named twice"),
        (["--report", "p.html", "--compare", "incident_k=many"], "--compare incident_k=many: setting 'incident_k'"),
        (["--report", "p.html", "--compare", "incident_k=9,incident_n=3"], "can never be reached"),
    ]:
        assert main([*command, *more]) == 2
        assert says in capsys.readouterr().err
    assert data.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "model"]


def test_names_are_escaped_wherever_they_stand(folder: Path) -> None:
    evil = '<script>&"a"</script>'
    model = tiny_model(interval_s=STEP, streams=(evil,))
    channels = tuple(Channel(name=f"{evil}{c}", unit=evil) for c in range(3))
    model = replace(model, manifest=model.manifest.model_copy(update={"channels": channels, "group": evil}))
    write_model(model, folder / "evil")
    lines = write(folder / "data.csv", ("x",), loud=LOUD).read_text().splitlines()
    quoted = '"' + evil.replace('"', '""') + '"'
    named = [",".join(["timestamp", "stream", *(quoted[:-1] + f'{c}"' for c in range(3))])]
    named += [line.replace(",x,", f",{quoted},") for line in lines[1:]]
    (folder / "data.csv").write_text("\n".join(named))
    text = rehearse(folder, folder / "data.csv", "--model", str(folder / "evil"), "--compare", "incident_k=1")
    assert "<script" not in text
    assert "&lt;script&gt;&amp;" in text
    assert "http" not in text  # nothing is fetched


# many streams, many incidents: events made by hand, through the same record


def an_alert(stream: str, opened: int, kind: Kind = Kind.ANOMALY, *, resolved: bool = False, **more: Any) -> Alert:
    data: dict[str, Any] = {
        "incident": f"{stream}-{kind}-{opened}", "kind": kind, "opened": format_time(opened * SECOND_NS), "score": 2.0,
        "p_value": 0.1, "model": "0" * 64,
        "channels": (ChannelShare(name="c1", share=0.9, observed=5.0, expected=1.0, unit="bar"),),
    }  # fmt: skip
    time = more.pop("time", opened)
    kind_of_event = EventType.RESOLVED if resolved else more.pop("type", EventType.OPENED)
    return Alert(
        type=kind_of_event, source="/residual/default", subject=stream, time=format_time(time * SECOND_NS), id="x",
        data=AlertData.model_validate({**data, **more}),
    )  # fmt: skip


def a_record(streams: int = 1, count: int = 60) -> Record:
    """``count`` quiet readings, one a minute, of each stream, which the engine has seen."""
    model = tiny_model(interval_s=60.0, streams=tuple(f"s{i}" for i in range(min(streams, 2))))
    n = streams * count
    times = (START + 60 * np.repeat(np.arange(count), streams)) * SECOND_NS
    names = [f"s{i}" for i in range(streams)] * count
    values = np.random.default_rng(0).normal(0, 0.1, (n, 3)).astype(np.float32)
    table = Table(names, times, values, [""] * n, ("c0", "c1", "c2"))
    engine = Engine(model)
    record = Record(engine, DetectorSettings.load({}), table)
    record.add(np.arange(n), engine.process([Readings(0, names, times, values)]))
    return record


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("ended", [None, *Ended])
def test_every_kind_and_end_can_be_shown(kind: Kind, ended: Ended | None) -> None:
    record = a_record()
    for alert in (
        an_alert("s0", START + 600, kind),
        an_alert("s0", START + 600, kind, type=EventType.UPDATED, time=START + 900, severity=Severity.MAJOR),
        an_alert("s0", START + 600, kind, resolved=True, time=START + 1800, ended=ended),
    )[: 3 if ended else 2]:
        record.sent.add(alert)
    text = render(record)
    assert '<span class="chip major">major</span>1. s0: ' in text
    assert f"{kind} · opened 2024-01-01 00:10 UTC" in text
    assert ("still open at the end of the data" in text) == (ended is None)
    assert f"{3 if ended else 2} messages" in text
    assert ("When it ended: s0: " in text) == (ended not in (None, Ended.QUIET))


def test_an_incident_without_channels_or_without_readings_can_be_shown() -> None:
    record = a_record()
    record.sent.add(an_alert("s0", START + 600, Kind.SILENT, channels=(), score=None, p_value=None))
    record.sent.add(an_alert("gone", START + 600, Kind.SILENT, channels=(), score=None, p_value=None))
    record.sent.add(an_alert("s0", START - 10**8, Kind.DRIFT))
    record.sent.add(an_alert("s0", START + 10**8, Kind.STUCK, resolved=True))
    text = render(record)
    assert "There are no readings around it in these data." in text
    assert text.count('<section class="incident">') == 4


def test_the_most_severe_come_first_and_what_is_more_than_fifty_is_a_table() -> None:
    record = a_record(count=2000)
    for n in range(3000):
        record.sent.add(an_alert("s0", START + n, score=1.0 + n, return_period_s=86_400.0))
        record.sent.add(an_alert("s0", START + n, resolved=True, time=START + n + 1, ended=Ended.QUIET))
    record.sent.add(an_alert("s0", START + 5000, severity=Severity.CRITICAL, return_period_s=1.0))
    text = render(record)
    assert facts(text)[0] == "3,001"
    assert text.count('<section class="incident">') == IN_FULL
    first = text.index('<section class="incident">')
    assert "critical" in text[first : first + 100]
    assert "The other 2,951" in text
    assert "And 951 more, less severe." in text
    assert len(text) < 5e6


def test_of_a_thousand_streams_the_noisiest_are_drawn() -> None:
    record = a_record(streams=1000, count=8)
    for n in range(200):
        record.sent.add(an_alert(f"s{n * 5}", START + 60, resolved=True, time=START + 120))
    record.sent.add(an_alert("s777", START + 60, Kind.STUCK))
    record.sent.add(an_alert("s777", START + 60, Kind.ANOMALY))
    text = render(record)
    assert "the 50 of 1,000 streams with the most incidents" in text
    assert re.findall(r"<h3>(s\d+) ", text)[0] == "s777"
    assert "The noisiest 500 of 1,000 streams" in text


@pytest.mark.parametrize("count", [1, 2, 5, 300, 3000])
def test_a_timeline_has_no_holes_and_reaches_the_highest_scores(count: int) -> None:
    record = a_record(count=count)
    (line_of,) = record.maxima([0], 720)
    assert 1 <= len(line_of) <= 720
    scored = np.flatnonzero(~np.isnan(line_of))
    if count > 10:
        assert np.diff(scored).max() == 1
        assert line_of[scored].max() == np.float32(record.tally.highest[0])


def test_pictures_of_more_incidents_than_can_be_shown_are_not_kept() -> None:
    sent = Sent()
    image = {"x": 1, "y": 2, "error": 3.0, "map": "AAAA"}
    for n in range(1000):
        sent.add(an_alert("cam", START + n, image=image, score=float(n)))
    kept = [incident for incident in sent.incidents if incident.data.image is not None]
    assert len(kept) <= 4 * IN_FULL
    worst = sorted(sent.incidents, key=lambda incident: incident.rank)[-IN_FULL:]
    assert all(incident.data.image is not None for incident in worst)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.booleans()), max_size=12)


def incidents_of(drawn: list[tuple[int, int, bool]]) -> list[Incident]:
    """Incidents of one stream one after the other, as an engine has them; only the last may be open."""
    sent, after = Sent(), -1
    for start, length, still_open in sorted(drawn):
        if start <= after:
            continue
        sent.add(an_alert("a", start))
        if still_open:
            break
        after = start + length
        sent.add(an_alert("a", start, resolved=True, time=after))
    return list(sent.incidents)


@given(spans, spans)
def test_what_only_one_setting_has_is_what_meets_nothing_of_the_other(
    one: list[tuple[int, int, bool]], other: list[tuple[int, int, bool]]
) -> None:
    mine, others = incidents_of(one), incidents_of(other)

    def meet(a: Incident, b: Incident) -> bool:
        return (a.ended is None or b.opened <= a.ended) and (b.ended is None or a.opened <= b.ended)

    assert only_in(mine, others) == [a for a in mine if not any(meet(a, b) for b in others)]


def test_a_shift_is_what_an_anomaly_became_and_other_kinds_are_not() -> None:
    sent = [Sent() for _ in range(3)]
    for one, kind in zip(sent, (Kind.ANOMALY, Kind.SHIFT, Kind.STUCK), strict=True):
        one.add(an_alert("a", START, kind))
    anomaly, shift, stuck = (list(one.incidents) for one in sent)
    assert only_in(anomaly, shift) == []
    assert only_in(anomaly, stuck) == anomaly


# plots


numbers = st.lists(st.floats(), max_size=30)


@given(numbers)
@example([-1.7e308])
def test_a_scale_holds_what_it_is_around(values: list[float]) -> None:
    scale = around(values)
    places = scale(values)
    assert scale.low < scale.high
    assert ((places >= 0) & (places <= 1) | np.isnan(values)).all()


@given(numbers, st.integers(3, 12))
def test_any_line_can_be_drawn_and_thinned(values: list[float], most: int) -> None:
    y = around(values)(values)
    x = np.linspace(0, 1, len(y))
    drawn = line(x, y, "c0")
    assert "nan" not in drawn
    assert (drawn == "") == bool(np.isnan(y).all())
    few_x, few_y = thinned(x, y, most)
    assert len(few_x) == len(few_y) <= max(most, 3)
    if not np.isnan(y).all():
        assert (np.nanmin(few_y), np.nanmax(few_y)) == (np.nanmin(y), np.nanmax(y))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_any_span_of_time_has_its_ticks(one: int, other: int) -> None:
    ticks = time_ticks(min(one, other), max(one, other))
    assert len(ticks) <= 9
    assert all(0 <= tick.place <= 1 and tick.text for tick in ticks)


@pytest.mark.parametrize("step", STEPS[:-2])
def test_ticks_are_told_apart(step: int) -> None:
    ticks = time_ticks(START * SECOND_NS, (START + 6 * step) * SECOND_NS)
    assert 3 <= len(ticks) <= 8
    assert all(one.text != after.text for one, after in pairwise(ticks))
    assert re.match(r"\d+ [A-Z][a-z]{2}", ticks[0].text)


def test_powers_of_ten() -> None:
    assert [tick.text for tick in log_ticks(Scale(0.01, 200, log=True))] == ["0.01", "0.1", "1", "10", "100"]
    assert len(log_ticks(Scale(1e-30, 1e30, log=True))) <= 5


def test_a_plot_says_what_it_is_to_who_cannot_see_it() -> None:
    assert 'aria-label="a &lt;b&gt;"' in plot((), 1, (), (), "a <b>")
