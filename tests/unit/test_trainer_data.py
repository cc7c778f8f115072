"""Rows, parts, windows and scaling against slow and obvious ways of getting them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_data import START, normal, table

from detector.adapters.files import Table
from detector.engine.segments import blocks
from schemas.errors import DataError, SettingsError
from schemas.manifest import Channel
from schemas.moment import SECOND_NS
from trainer.batches import Batches
from trainer.data import CLIP, fingerprint, load, prepare, read_catalogue, rows_by_stream
from trainer.scaling import LEAST, Scaling, scaling_of
from trainer.settings import FitSettings

SETTINGS = FitSettings(context="none")


def one_stream(times: np.ndarray, values: np.ndarray) -> Table:
    channels = tuple(f"c{c}" for c in range(values.shape[1]))
    return Table(["a"] * len(times), START + times * SECOND_NS, values.astype(np.float32), [""] * len(times), channels)


def test_each_stream_is_split_in_time_and_a_window_belongs_where_its_newest_reading_lies() -> None:
    data = prepare(table(normal(1000), normal(500, seed=1)), 10, SETTINGS)
    for stream, rows in ((0, 1000), (1, 500)):
        parts = [
            ends[data.stream[ends] == stream] for ends in (data.fit_ends, data.validation_ends, data.calibration_ends)
        ]
        assert [len(part) for part in parts] == [rows * 6 // 10 - 9, rows // 10, rows * 3 // 10]
        assert parts[0].max() < parts[1].min() <= parts[1].max() < parts[2].min()
        assert data.calibration_start[stream] == START + rows * 7 // 10 * SECOND_NS


def test_windows_are_views_of_the_rows() -> None:
    data = prepare(table(normal(400)), 10, SETTINGS)
    for rows in (data.scaled, data.observed, data.values):
        assert np.shares_memory(blocks(rows, data.window), rows)
    batches = Batches(data.fit)
    batch = batches.gather(torch.tensor([0, 5]))
    np.testing.assert_array_equal(batch.z[1].numpy(), data.scaled[5:15])
    assert batch.observed.all()
    x, loc, scale, context = data.fit.raw(slice(5, 6))
    np.testing.assert_array_equal(x[0], data.values[5:15])
    np.testing.assert_allclose((x[0] - loc) / scale, batch.z[1].numpy(), rtol=1e-5, atol=1e-5)
    assert batch.context is None
    assert context is None
    assert sum(len(part.z) for part in batches.in_order(64)) == len(data.fit)
    shuffled = torch.cat([part.z for part in batches.shuffled(64, most=100)])
    assert len(shuffled) == 100
    assert not torch.equal(shuffled, torch.cat([part.z for part in batches.in_order(100)])[:100])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.0, 0.05, 0.2]))
def test_windows_never_cross_a_long_gap_and_hold_missing_rows_for_a_short_one(seed: int, W: int, gaps: float) -> None:
    """Against windows picked out reading by reading."""
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(400) < gaps, rng.integers(2, 2 * W + 3, 400), 1)
    seconds = np.cumsum(step)
    values = np.arange(1.0, 401.0)[:, None]
    data = prepare(one_stream(seconds, values), W, SETTINGS)

    at = dict(zip(seconds.tolist(), values[:, 0].tolist(), strict=True))
    newest, began = [], 0
    for t, gap in zip(seconds.tolist(), step.tolist(), strict=True):
        began = t if gap > W else began or t  # a gap of a window or more: the stream warms up again
        if t - began + 1 >= W:
            newest.append(t)
    ends = np.concatenate([data.fit_ends, data.validation_ends, data.calibration_ends])
    slow = np.array([[at.get(t - W + 1 + k, np.nan) for k in range(W)] for t in newest], np.float32)
    np.testing.assert_array_equal(np.stack([data.values[end - W + 1 : end + 1, 0] for end in ends]), slow)


def test_the_interval_is_the_median_step_over_streams() -> None:
    readings = table(normal(300), normal(300, seed=1), interval_s=2.5)
    assert prepare(readings, 5, SETTINGS).interval_ns == 2_500_000_000


def test_late_readings_and_duplicates_do_not_count() -> None:
    values = normal(300)
    seconds = np.arange(300)
    order = np.concatenate([seconds[:150], [149, 20], seconds[150:]])
    clean = prepare(one_stream(seconds, values), 5, SETTINGS)
    messy = prepare(one_stream(order, values[order]), 5, SETTINGS)
    np.testing.assert_array_equal(messy.values, clean.values)
    np.testing.assert_array_equal(messy.calibration_ends, clean.calibration_ends)


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        (table(normal(60)), "51 whole windows of 10; 100 are needed"),
        (table(normal(1)), "at least two"),
        (one_stream(np.arange(300) * 7 % 300 * 100, normal(300)), "whole windows"),
        (one_stream(np.arange(0), normal(0)), "no readings"),
    ],
    ids=["short", "single", "shuffled", "empty"],
)
def test_too_little_is_said_to_be_so(readings: Table, words: str) -> None:
    with pytest.raises(DataError, match=words):
        prepare(readings, 10, SETTINGS)


def test_a_calibration_stretch_without_a_window_is_too_little() -> None:
    values = normal(1000)
    values[700:] = np.nan
    with pytest.raises(DataError, match="to calibrate on"):
        prepare(table(values), 10, SETTINGS)


def test_scaling_is_learned_before_the_calibration_stretch() -> None:
    values = normal(1000)
    shifted = values.copy()
    shifted[700:] += 1000
    for a, b in zip(*(vars_of(prepare(table(v), 10, SETTINGS).scaling) for v in (values, shifted)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert prepare(table(shifted), 10, SETTINGS).scaled.max() == CLIP


def vars_of(scaling: Scaling) -> list[np.ndarray]:
    return list(vars(scaling).values())


def test_a_channel_that_hardly_moves_is_judged_by_its_range_over_the_group() -> None:
    rng = np.random.default_rng(0)
    lively, still = rng.uniform(0, 100, (200, 1)), np.full((200, 1), 50.0)
    values = np.concatenate([lively, still]).astype(np.float32)
    scaling = scaling_of(values, np.repeat([0, 1], 200), 2, 0.01)
    assert scaling.scale[1, 0] == pytest.approx(0.01 * (lively.max() - lively.min()))
    assert scaling.scale[0, 0] == pytest.approx(lively.std(), rel=1e-5)
    assert scaling.group_loc[0] == pytest.approx(values.mean(), rel=1e-5)
    assert scaling.group_scale[0] == pytest.approx(values.std(dtype=np.float64), rel=1e-5)


@pytest.mark.parametrize(("value", "scale"), [(0.0, 0.01), (0.3, 0.01), (-5000.0, 50.0)])
def test_a_constant_channel_is_scaled_by_its_size(value: float, scale: float) -> None:
    scaling = scaling_of(np.full((100, 1), value, np.float32), np.zeros(100, np.int64), 1, 0.01)
    assert scaling.loc[0, 0] == pytest.approx(value)
    assert scaling.scale[0, 0] == pytest.approx(scale)


def test_missing_values_do_not_count_and_what_was_never_seen_is_neutral() -> None:
    values = np.full((400, 3), np.nan, np.float32)
    values[:200, 0] = np.random.default_rng(0).normal(7, 2, 200)
    values[200:400, 1] = np.random.default_rng(1).normal(3, 1, 200)
    values[200 : 200 + LEAST - 1, 0] = 1e6  # too few to say what this stream's level is
    scaling = scaling_of(values, np.repeat([0, 1], 200), 2, 0.01)
    assert scaling.loc[0, 0] == pytest.approx(np.nanmean(values[:200, 0]), rel=1e-5)
    assert scaling.loc[1, 0] == scaling.group_loc[0]
    assert scaling.loc[0, 1] == scaling.group_loc[1] == pytest.approx(np.nanmean(values[:, 1]), rel=1e-5)
    assert (scaling.loc[:, 2] == 0).all()
    assert (scaling.scale[:, 2] == 1).all()
    assert np.isnan(scaling.low[2])
    assert all(np.isfinite(a).all() for a in (scaling.loc, scaling.scale, scaling.group_loc, scaling.group_scale))


def test_the_catalogues_range_counts_more_than_what_was_seen() -> None:
    values = np.random.default_rng(0).normal(50, 0.001, (100, 1)).astype(np.float32)
    scaling = scaling_of(values, np.zeros(100, np.int64), 1, 0.01, [Channel(name="t", min=0, max=100)])
    assert scaling.scale[0, 0] == pytest.approx(1.0)


def test_a_catalogue_chooses_and_orders_channels(tmp_path: Path) -> None:
    file = tmp_path / "channels.toml"
    file.write_text('[[channel]]\nname = "b"\nunit = "°C"\nmin = 0\nmax = 90\n[[channel]]\nname = "a"\n')
    catalogue = read_catalogue(str(file))
    assert catalogue == [Channel(name="b", unit="°C", min=0, max=90), Channel(name="a")]
    data = tmp_path / "x.csv"
    data.write_text("timestamp,a,b,z\n1000,1,2,3\n2000,4,5,6\n")
    readings = load([str(data)], SETTINGS, catalogue)
    assert readings.channels == ("b", "a")
    assert readings.values.tolist() == [[2, 1], [5, 4]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        '[[channel]]\nunit = "m"',
        '[[channel]]\nname = "a"\nfoo = 1',
        '[[channel]]\nname = "a"\nlowest = 1',
        '[[channel]]\nname = "a"\nmin = 2\nmax = 2',
        '[[channel]]\nname = "a"\nweight = -1',
        '[[channel]]\nname = "a"\ndirection = "up"',
        '[[channel]]\nname = "a"\n[[channel]]\nname = "a"',
        "[[channel",
    ],
)
def test_a_catalogue_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "channels.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"channels\.toml"):
        read_catalogue(str(file))


@pytest.mark.parametrize("source", ["kafka://host:9092", "kafka:///topic", "kafka://h:1/a/b"])
def test_a_topics_address_that_is_none_is_an_error(source: str) -> None:
    with pytest.raises(SettingsError, match="kafka://HOST:PORT/TOPIC"):
        load([source], SETTINGS, None)


def test_a_topic_stands_alone() -> None:
    with pytest.raises(SettingsError, match="alone"):
        load(["kafka://h:1/t", "a.csv"], SETTINGS, None)


def test_the_fingerprint_tells_data_apart() -> None:
    first = table(normal(50), normal(50, seed=1))
    assert fingerprint(first) == fingerprint(table(normal(50), normal(50, seed=1)))
    changed = normal(50)
    changed[3, 1] = np.nan
    others = [
        table(normal(50)),
        table(changed, normal(50, seed=1)),
        table(normal(50), normal(50, seed=1), interval_s=2),
    ]
    assert len({fingerprint(t) for t in (first, *others)}) == 4


def test_rows_of_a_stream_keep_their_order() -> None:
    by_stream = rows_by_stream(table(normal(3), normal(3), names=("b", "a")))
    assert {name: rows.tolist() for name, rows in by_stream.items()} == {"a": [1, 3, 5], "b": [0, 2, 4]}
    assert list(by_stream) == ["a", "b"]
