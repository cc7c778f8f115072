"""The demo's plan, page and plot."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_model import tiny_model

from detector.adapters.files import Table, read_table
from detector.engine.streams import Streams
from schemas.alert import ChannelShare
from schemas.errors import SettingsError
from schemas.manifest import Calibration, Channel
from schemas.moment import SECOND_NS, format_time
from schemas.promise import Promise
from trainer.demo import page
from trainer.demo.console import sensor_lines
from trainer.demo.plan import LEAST_READINGS, Plan, detector_settings, fit_settings, raised, threshold_words
from trainer.demo.plot import Panel, Picture, draw
from trainer.demo.recorder import write_csv
from trainer.demo.sensors import amount, watched
from trainer.demo.story import Incident, Provoked, Span, judge

CHANNELS = (
    Channel(name="cpu.user", unit="%", min=0.0, max=100.0),
    Channel(name="disk.write", unit="B/s", min=0.0, max=5e8),
)
FAULT = Provoked("every <core> busy", 60 * SECOND_NS, 75 * SECOND_NS, 80 * SECOND_NS)
INCIDENT = Incident(
    "i",
    62 * SECOND_NS,
    78 * SECOND_NS,
    4.2,
    (
        ChannelShare(name="cpu.user", share=0.75, observed=99.4, expected=7.25),
        ChannelShare(name="disk.write", share=0.25, observed=2.5e8, expected=-2e3),
    ),
)


def picture(n: int = 200) -> Picture:
    rng = np.random.default_rng(1)
    times = np.arange(n, dtype=np.int64) * SECOND_NS // 2
    panels = [
        Panel(c.name, c.unit, times, rng.random(n) * (c.max or 1), times, rng.random(n) * (c.max or 1))
        for c in CHANNELS
    ]
    score = rng.random(n)
    score[:8] = np.nan
    return Picture(times, score, "score", panels, Span("learned", 0, 50 * SECOND_NS), (FAULT,), (INCIDENT,))


def content(running: str | None = None) -> page.Content:
    verdict = None if running else judge([FAULT], [INCIDENT], 0, 5)
    return page.Content(
        "a <host>",
        draw(picture()),
        running,
        CHANNELS,
        [(FAULT, "2 processes")],
        [INCIDENT],
        verdict,
        settings=[("a", "b")],
    )


def test_the_page_stands_alone_and_says_what_happened(tmp_path: Path) -> None:
    page.check_place(tmp_path)
    text = page.write(tmp_path, content()).read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)""", text)
    assert "a &lt;host&gt;" in text
    assert "every &lt;core&gt; busy" in text
    assert "<host>" not in text
    assert "every &lt;core&gt; busy: caught after 2.0 s" in text
    assert "clean: yes" in text
    assert "refresh" not in text
    for shown in ("99.4 %", "7.25 %", "250 MB/s", "75%"):
        assert shown in text


def test_while_it_runs_the_page_reloads_itself() -> None:
    text = page.render(content("recording"))
    assert 'http-equiv="refresh"' in text
    assert "Running: recording" in text
    assert "clean:" not in text


def test_the_plot_is_xml_with_every_part() -> None:
    root = ElementTree.fromstring(draw(picture()))
    words = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))
    for word in ("threshold", "incident", "learned", "score, in thresholds", "cpu.user", "MB/s", "local time"):
        assert word in words


def test_a_plot_of_nothing_yet_is_drawn() -> None:
    none = np.empty(0, np.int64)
    empty = np.empty(0)
    assert draw(Picture(none, empty, "score", [Panel("cpu.user", "%", none, empty, none, empty)])).startswith("<svg")


def test_a_second_run_replaces_the_page_and_somebody_elses_stays(tmp_path: Path) -> None:
    page.write(tmp_path, content("first"))
    page.check_place(tmp_path)
    page.write(tmp_path, content("second"))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert "second" in (tmp_path / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(SettingsError, match="--out"):
        page.check_place(tmp_path)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="another folder with --out"):
        page.check_place(tmp_path / "file")


@pytest.mark.parametrize("seconds", [12, 20, 60, 90, 300])
def test_every_plan_learns_from_enough_readings(seconds: float) -> None:
    plan = Plan.of(seconds, fast=seconds < 60)
    assert plan.normal_s / plan.interval_s >= LEAST_READINGS
    assert plan.interval_s <= 0.5
    assert plan.settle_s / plan.interval_s >= 20, "windows, the moving average and the newest flags are fresh by then"


def test_too_short_a_stretch_is_refused() -> None:
    with pytest.raises(SettingsError, match="--seconds"):
        Plan.of(5, fast=True)


def test_the_threshold_makes_no_promise_that_the_readings_do_not_carry() -> None:
    false_alarms, rate = fit_settings().false_alarms, Promise.parse(fit_settings().false_alarms).per_day(1)
    told = Calibration(false_alarms=false_alarms, rate=rate, readings=45, peaks=3, threshold=2.0, floor=1.5)
    extrapolated = threshold_words(told)
    assert "3 peaks of the 45 scores" in extrapolated
    assert "a false alarm in 1h" in extrapolated
    least = threshold_words(told.model_copy(update={"threshold": 1.5}))
    assert "the demo's least" in least
    assert all("carries no promise" in words for words in (extrapolated, least))
    assert detector_settings().incident_k <= detector_settings().incident_n


@pytest.mark.parametrize(("floor", "threshold"), [(12.0, 12.0), (0.5, 3.0)])
def test_a_raised_threshold_leaves_the_tail_as_it_was(floor: float, threshold: float) -> None:
    before = tiny_model(threshold=3.0)
    after = raised(before, floor)
    assert after.manifest.calibration.threshold == threshold
    assert (after.streams.threshold == threshold).all()
    raw = np.linspace(0.1, 5.0, 50)
    old, new = (Streams(model.streams, model.manifest.calibration.threshold, 256) for model in (before, after))
    slots = [streams.slots(0, ["a"] * 50) for streams in (old, new)]
    np.testing.assert_allclose(old.levels(slots[0], raw / 3.0), new.levels(slots[1], raw / threshold))
    np.testing.assert_array_equal(before.streams.tail_score, after.streams.tail_score)


def test_only_known_channels_are_watched_each_with_a_range() -> None:
    offered = [Channel(name=name) for name in ("cpu.core0", "cpu.core1", "load.1min", "cpu.switches", "new.thing")]
    chosen = watched(offered, cores=4)
    assert [channel.name for channel in chosen] == ["cpu.core0", "cpu.core1", "cpu.switches"]
    assert all(channel.max is not None and channel.max > 0 for channel in chosen)
    assert chosen[2].max == 4 * 50_000


def test_amounts_are_written_for_people() -> None:
    assert [amount(v, "B/s") for v in (0.0, 1500.0, 2.5e8, 3.21e9)] == ["0 B/s", "1.50 kB/s", "250 MB/s", "3.21 GB/s"]
    assert (amount(12034.0, "1/s"), amount(99.5, "%"), amount(3.0, None)) == ("12,034 /s", "99.5 %", "3")
    assert amount(None, "%") == "nothing"


def test_a_rate_is_never_expected_below_nothing() -> None:
    """A linear model's "-2 kB/s" is its way to say none at all; people need not read that."""
    lines = sensor_lines(INCIDENT.channels, CHANNELS)
    assert "expected 7.25 %" in lines[0]
    assert "expected 0 B/s" in lines[1]
    assert "-2" not in page.render(content()).partition("<h2>Incidents")[2]


def test_the_recording_is_a_file_that_the_trainer_reads(tmp_path: Path) -> None:
    times = np.array([1, 2], np.int64) * SECOND_NS
    values = np.array([[1.5, np.nan], [0.1, 3e8]], np.float32)
    table = Table(["host"] * 2, times, values, [format_time(int(t)) for t in times], ("cpu.user", "disk.write"))
    write_csv(table, tmp_path / "normal.csv")
    again = read_table([str(tmp_path / "normal.csv")])
    np.testing.assert_array_equal(again.values, values)
    assert again.streams == ["host", "host"]
    assert again.channels == table.channels
    np.testing.assert_array_equal(again.times, times)
