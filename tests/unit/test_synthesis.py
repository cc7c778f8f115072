"""Generators: what they make is continuous, repeatable and within what was seen; what is of no use is refused."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import START_NS, STEP_NS, made, table

from detector.adapters.files import read_table
from schemas.errors import DataError, ModelError, ParityError
from schemas.manifest import Channel
from schemas.moment import format_time, parse_time
from trainer import cli
from trainer.faults import KINDS
from trainer.synthesis import game
from trainer.synthesis.clock import Clock
from trainer.synthesis.critic import Critic
from trainer.synthesis.game import LEAST_VARIETY, MOST_GAP, WATCHED, Course, Game, Rules, _lost
from trainer.synthesis.gaussian import Gaussian
from trainer.synthesis.generator import SIZES, STRIDES, Generator
from trainer.synthesis.interpolation import SHOWN, between, of_seed, of_window
from trainer.synthesis.lesson import Windows, lesson_of, possible
from trainer.synthesis.marginals import Marginal
from trainer.synthesis.pipeline import fit_generator
from trainer.synthesis.planted import spoil
from trainer.synthesis.quality import faults_of_quality, judge
from trainer.synthesis.recipe import INPUTS, all_levelled, quantiles_of, read_recipe, write_recipe
from trainer.synthesis.rests import margins, rested
from trainer.synthesis.sampler import BLOCK, LEAD, TAIL, Sampler, Styles, check_parity
from trainer.synthesis.seen import MADE, SEEN, draw_of
from trainer.synthesis.settings import SynthSettings
from trainer.synthesis.variational import LENGTH

# -- marginals -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60))
def test_what_has_few_values_makes_exactly_these(values: list[float]) -> None:
    column = np.array(values, np.float32)
    own = Marginal.of(column)
    np.testing.assert_array_equal(own.back(own.scores(column)), column)
    drawn = own.back(np.linspace(-9, 9, 50, dtype=np.float32))
    assert set(drawn.tolist()) <= set(column.tolist())


def test_what_has_many_comes_back_nearly_and_never_beyond() -> None:
    column = np.random.default_rng(0).gamma(2, size=5000).astype(np.float32)
    own = Marginal.of(column)
    assert not own.steps
    np.testing.assert_allclose(own.back(own.scores(column)), column, rtol=0.02, atol=0.01)
    far = own.back(np.array([-99, 99], np.float32))
    np.testing.assert_array_equal(far, [column.min(), column.max()])
    assert abs(own.scores(column).mean()) < 0.05
    assert abs(own.scores(column).std() - 1) < 0.05


# -- lessons ---------------------------------------------------------------------------------------------------------


def test_constant_channels_and_copies_are_not_learned() -> None:
    lesson = lesson_of(table())
    assert lesson.varying.tolist() == [0, 1]
    assert lesson.same_as == (0, 1, 2, 0)
    assert (lesson.clock.daily, lesson.clock.weekly) == (True, True)


def test_a_gap_cuts_and_a_missing_value_is_what_was_last_read() -> None:
    whole = table(800)
    values = whole.values.copy()
    values[100:103, 0] = np.nan
    kept = np.flatnonzero((np.arange(800) < 300) | (np.arange(800) >= 330) & (np.arange(800) != 500))
    lesson = lesson_of(replace(whole, values=values).rows(kept))
    assert [len(s.times) for s in lesson.stretches] == [300, 469]
    np.testing.assert_array_equal(lesson.stretches[0].values[99:103, 0], np.repeat(values[99, 0], 4))


def test_values_that_the_catalogue_calls_impossible_are_never_made() -> None:
    rows = table(600)
    spoilt = rows.values.copy()
    spoilt[::7, 0], spoilt[::5, 1] = 500.0, -1.0
    catalogue = [
        Channel(name="level", max=60),
        Channel(name="count", min=0),
        Channel(name="limit"),
        Channel(name="again"),
    ]
    lesson = lesson_of(possible(replace(rows, values=spoilt), catalogue))
    level, count = lesson.marginals[0][:2]
    assert level.values.max() <= 60
    assert count.values.min() >= 0
    assert lesson_of(rows).marginals[0][0].values.max() == level.values.max()


def test_too_little_is_said_in_one_line() -> None:
    with pytest.raises(DataError, match=r"150 readings of \* without gaps: 200 are needed"):
        lesson_of(table(150))
    torn = lesson_of(table(1000).rows(np.flatnonzero(np.arange(1000) % 100 < 90)))
    with pytest.raises(DataError, match="no 160 readings in a row"):
        Windows(torn, 160)
    with pytest.raises(DataError, match="the stream b is of no group: a"):
        lesson_of(table(300, ("a", "b")), ["a"])


def test_the_clock_knows_the_day_only_where_it_was_seen_twice() -> None:
    assert Clock.of(86_400, 300, 1).size == 0
    assert Clock.of(20 * 86_400, 300, 3).size == 6 + 2 + 3
    assert Clock.of(400 * 86_400, 86_400, 1).size == 2
    context = Clock.of(20 * 86_400, 300, 2).context(np.array([START_NS, START_NS + 86_400 * 10**9]), 1)
    np.testing.assert_allclose(context[0, :6], context[1, :6], atol=1e-6)
    np.testing.assert_array_equal(context[:, -2:], [[0, 1], [0, 1]])


# -- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_is_the_same_however_long_it_is_and_has_no_seams() -> None:
    sampler = Sampler(made().recipe, 7)
    _, long = sampler.whole(0, 0, START_NS, 3 * BLOCK)
    times, short = sampler.whole(0, 0, START_NS, BLOCK + 100)
    np.testing.assert_array_equal(long[: BLOCK + 100], short)
    assert np.all(np.diff(times) == STEP_NS)
    jumps = np.abs(np.diff(long[:, 0]))
    seams = jumps[[BLOCK - 1, 2 * BLOCK - 1]]
    assert seams.max() <= np.quantile(jumps, 0.999)


def test_another_seed_and_another_stream_are_other_samples() -> None:
    recipe = made().recipe
    one, other, third = (
        Sampler(recipe, seed).whole(stream, 0, START_NS, 500)[1] for seed, stream in ((7, 0), (8, 0), (7, 1))
    )
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, third)
    _, both = Sampler(recipe, 7).block([0, 1], 0, START_NS, 0, 500)
    np.testing.assert_allclose(both, [one, third], atol=1e-3)


def test_a_sample_has_only_values_that_the_channels_can_have() -> None:
    _, drawn = Sampler(made().recipe, 1).whole(0, 0, START_NS, 4000)
    seen = table().values
    assert (drawn[:, 2] == 7.5).all()
    np.testing.assert_array_equal(drawn[:, 3], drawn[:, 0])
    assert set(drawn[:, 1].tolist()) <= set(seen[:, 1].tolist())
    assert (drawn.min(axis=0) >= seen.min(axis=0)).all()
    assert (drawn.max(axis=0) <= seen.max(axis=0)).all()


def test_styles_vary_what_they_are_called_after() -> None:
    recipe = made().recipe
    still = Sampler(recipe, 1, Styles(0, 0, 0))
    a, b = (still.whole(stream, 0, START_NS, 600)[1] for stream in (0, 1))
    np.testing.assert_array_equal(a, b)  # only the time of day is left
    rough = Sampler(recipe, 1, Styles(1, 1, 0)).whole(0, 0, START_NS, 2000)[1]
    usual = Sampler(recipe, 1).whole(0, 0, START_NS, 2000)[1]
    assert np.abs(np.diff(rough[:, 0])).mean() < np.abs(np.diff(usual[:, 0])).mean()


def test_it_keeps_the_rhythm_of_the_day() -> None:
    _, drawn = Sampler(made().recipe, 2).whole(0, 0, START_NS, 40 * 144)
    by_hour = drawn[:, 0].reshape(40, 24, 6).mean(axis=(0, 2))
    wanted = 20 + 3 * np.sin(2 * np.pi * (np.arange(24) + 0.4) / 24)
    assert np.abs(by_hour - wanted).mean() < 0.8


def test_groups_have_their_own_level() -> None:
    settings = SynthSettings.load(
        {"steps": 60, "hidden": 16, "model": "vae", "groups": "pump-*; fan-*", "window": 12}
    )  # fmt: skip
    made = fit_generator(table(1500, ("pump-1", "fan-1")), settings).recipe
    assert made.manifest.groups == ("pump-*", "fan-*")
    pump, fan = (Sampler(made, 0).whole(0, group, START_NS, 1000)[1][:, 0].mean() for group in (0, 1))
    assert (round(float(pump) / 10), round(float(fan) / 10)) == (2, 3)


def test_a_folder_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    recipe = made().recipe
    write_recipe(recipe, tmp_path / "gen", {})
    again = read_recipe(tmp_path / "gen")
    a, b = (Sampler(one, 3).whole(0, 0, START_NS, 300)[1] for one in (recipe, again))
    np.testing.assert_array_equal(a, b)
    graph = tmp_path / "gen" / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"generator\.onnx is not what generator\.json says"):
        read_recipe(tmp_path / "gen")
    with pytest.raises(ModelError, match="holds no generator"):
        read_recipe(tmp_path)


# -- quality ---------------------------------------------------------------------------------------------------------


def windows(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    course = np.sin(phase + np.arange(12)[:, None] / 3 + np.arange(3))
    return (course + 0.3 * rng.normal(size=(count, 12, 3))).astype(np.float32)


def test_a_generator_that_makes_always_the_same_is_refused() -> None:
    known, real = windows(600, 0), windows(400, 1)
    mode = (known[0] + 0.05 * np.random.default_rng(2).normal(size=(400, 12, 3))).astype(np.float32)
    good, bad = (judge(made, real, known, 0) for made in (windows(400, 3), mode))
    best = judge(known, real, known, 0, whole=False)
    assert faults_of_quality(good, best) == []
    assert "makes only some of what there is" in faults_of_quality(bad, best)[0]
    assert bad.recall < 0.1 < good.recall


def test_a_generator_that_copies_is_refused() -> None:
    known, real = windows(600, 0), windows(400, 1)
    copies = known[:400] + np.float32(1e-3)
    found = judge(copies, real, known, 0)
    assert found.discriminative < 0.2, "told from real windows by nothing, which is why it is looked for"
    assert any("copies" in fault for fault in faults_of_quality(found, judge(known, real, known, 0, whole=False)))


def test_the_cheap_sample_is_told_apart_where_data_are_no_gaussian() -> None:
    rng = np.random.default_rng(0)
    known, real = (np.sign(rng.normal(size=(600, 12, 3))).astype(np.float32) for _ in range(2))
    made = Gaussian.of(known).drawn(600, 1)
    assert judge(made, real, known, 0).discriminative > 0.4
    np.testing.assert_allclose(made.std(), known.std(), rtol=0.1)


# -- the game --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "variety", "why"), [
    (MOST_GAP + 0.1, 1.0, "the critic has won"), (0.5, LEAST_VARIETY / 2, "the generator has collapsed"),
    (math.nan, 1.0, "the game diverged"), (0.5, 1.0, None),
])  # fmt: skip
def test_a_game_that_is_lost_is_seen(gap: float, variety: float, why: str | None) -> None:
    found = _lost(Course([gap] * WATCHED, [variety] * WATCHED))
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


def test_a_game_that_diverges_leaves_the_weights_of_before() -> None:
    lesson = lesson_of(table(600))
    torch.manual_seed(0)
    generator = Generator(2, lesson.clock.size, 8)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    critic = Critic(2, lesson.clock.size, 8, SEEN)
    course = Game(generator, critic, draw_of(Windows(lesson, MADE)), Rules(50, 8, 1, math.inf, 1e-3, 60)).play(
        lambda _: 0.5
    )
    assert course.lost is not None
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_the_best_of_a_game_is_kept_and_it_ends_when_it_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game, "LOOK", 2)
    lesson = lesson_of(table(600))
    torch.manual_seed(0)
    generator, seen = Generator(2, lesson.clock.size, 8), []
    critic = Critic(2, lesson.clock.size, 8, SEEN)

    def look(one: Generator) -> float:
        seen.append({name: value.clone() for name, value in one.state_dict().items()})
        return 0.1 if len(seen) == 3 else 0.4

    course = Game(generator, critic, draw_of(Windows(lesson, MADE)), Rules(50, 8, 1, 1e-3, 1e-3, 60)).play(look)
    assert course.lost is None
    assert course.told_apart == [0.4, 0.4, 0.1] + [0.4] * game.PATIENCE
    assert len(course.gap) == 2 * (2 + game.PATIENCE)
    assert all(torch.equal(value, seen[2][name]) for name, value in generator.state_dict().items())
    assert any(not torch.equal(value, seen[2][name]) for name, value in seen[0].items())


# -- what is put right after the network ------------------------------------------------------------------------------


@given(st.integers(0, 50), st.floats(0.3, 3), st.floats(-2, 2))
def test_made_scores_get_the_distribution_of_measured_ones(seed: int, spread: float, level: float) -> None:
    wrong = np.random.default_rng(seed).gamma(2, spread, size=(1, 4000, 1)).astype(np.float32) + np.float32(level)
    right = all_levelled(wrong, quantiles_of(wrong[0]))
    assert abs(right.mean()) < 0.1
    assert right.std() == pytest.approx(1, abs=0.1)
    order = np.argsort(wrong[0, :, 0])
    assert (np.diff(right[0, order, 0]) >= 0).all()


@given(st.integers(0, 50), st.floats(0.5, 0.95), st.integers(2, 40))
def test_a_stepwise_channel_rests_as_often_as_is_wanted(seed: int, wanted: float, count: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(3, 400, 1)).astype(np.float32)
    marginal = Marginal.of(np.random.default_rng(seed).integers(0, count, 500).astype(np.float32))
    margin = margins(scores, [marginal], np.float32([wanted]))
    held = rested(scores, [marginal], margin)
    values = marginal.back(held)
    rests = (np.diff(values, axis=1) == 0).mean()
    natural = (np.diff(marginal.back(scores), axis=1) == 0).mean()
    assert rests == pytest.approx(max(wanted, natural), abs=0.1)
    moved = held != scores
    assert (held[moved] == held[:, :-1][moved[:, 1:]]).all()  # it is what it was


# -- interpolation ---------------------------------------------------------------------------------------------------


def test_between_two_seeds_the_ends_are_their_samples() -> None:
    recipe = made().recipe
    path = between(recipe, of_seed(recipe, 4, 0), of_seed(recipe, 9, 0), 5, 0)
    assert path.steps.shape == (5, 288, 4)
    for step, seed in ((0, 4), (4, 9)):
        _, sample = Sampler(recipe, seed).whole(0, 0, recipe.manifest.start_ns, 288)
        np.testing.assert_allclose(path.steps[step], sample, atol=1e-3)
    apart = np.abs(np.diff(path.steps[:, :, 0], axis=0)).mean(axis=1)
    assert (apart < np.abs(path.steps[4, :, 0] - path.steps[0, :, 0]).mean()).all()
    assert path.steps[2, :, 0].std() > 0.5 * path.steps[0, :, 0].std()


def test_between_two_windows_the_ends_resemble_what_was_measured() -> None:
    recipe, rows = made().recipe, table()
    moments = [START_NS + n * STEP_NS for n in (300, 372)]  # half a day apart
    ends = [of_window(recipe, rows, moment, 0) for moment in moments]
    path = between(recipe, *ends, 3, 0)
    assert [end.name for end in ends] == [format_time(moment) for moment in moments]
    for step, place in ((0, 300), (2, 372)):
        wanted = rows.values[place : place + LENGTH][SHOWN]
        measured = path.measured[step // 2]
        assert measured is not None
        np.testing.assert_array_equal(measured, wanted)
        assert np.corrcoef(path.steps[step, :, 0], wanted[:, 0])[0, 1] > 0.5
    with pytest.raises(DataError, match="in a row"):
        of_window(recipe, rows, int(rows.times[-20]), 0)


def test_interpolation_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(made().recipe, str(tmp_path / "gen"), {})
    out = tmp_path / "between.html"
    assert cli.main(["synth", "interpolate", str(tmp_path / "gen"), "1", "2", "--out", str(out)]) == 0
    assert out.read_text().count("<svg") == 3
    assert "7 steps from seed 1 to seed 2" in capsys.readouterr().out
    assert cli.main(["synth", "interpolate", str(tmp_path / "gen"), "now", "2", "--out", str(tmp_path / "x")]) == 2
    assert "now is no seed" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# -- faults to order -------------------------------------------------------------------------------------------------


@given(st.integers(0, 100), st.floats(0.001, 0.01))
def test_the_truth_holds_every_cell_that_changed(seed: int, rate: float) -> None:
    rows = table(1200)
    spoilt, told = spoil(rows.times, rows.values, "s", rows.channels, round(rate * 1200), [seed])
    changed = ~((spoilt == rows.values) | np.isnan(spoilt) & np.isnan(rows.values))
    truth = np.zeros_like(changed)
    for one in told:
        during = (rows.times >= one.start_ns) & (rows.times <= one.end_ns)
        columns = [rows.channels.index(name) for name in one.channels]
        truth[np.ix_(during, columns)] = True
        assert changed[np.ix_(during, columns)].any()
    assert not (changed & ~truth).any()
    assert len(told) <= round(rate * 1200)


# -- the command line ------------------------------------------------------------------------------------------------


def test_fit_and_sample_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = tmp_path / "normal.csv", tmp_path / "gen"
    rows = table(1500)
    lines = [",".join(["timestamp", *rows.channels])]
    lines += [f"{at // 10**6}," + ",".join(map(str, row)) for at, row in zip(rows.times, rows.values, strict=True)]
    source.write_text("\n".join(lines) + "\n")
    quick = ["--steps", "60", "--model", "vae", "--hidden", "16", "--window", "12"]
    assert cli.main(["synth", "fit", str(source), "--out", str(folder), *quick]) == 0
    assert "vae generator of 4 channels" in capsys.readouterr().out
    assert "told apart" in (folder / "report.html").read_text()
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        out, truth = tmp_path / name, tmp_path / f"{name}.truth"
        asked = ["synth", "sample", str(folder), "--length", "3000", "--out", str(out), "--truth", str(truth)]
        assert cli.main([*asked, "--episodes", "2/1d", "--seed", "4"]) == 0
    header, first = (tmp_path / "a.csv").read_text().splitlines()[:2]
    assert header == "timestamp,level,count,limit,again"
    assert first.startswith(format_time(START_NS) + ",")
    read = [read_table([str(tmp_path / name)]) for name in ("a.csv", "b.csv.gz", "c.parquet")]
    for other in read[1:]:
        np.testing.assert_array_equal(other.values, read[0].values)
        np.testing.assert_array_equal(other.times, read[0].times)
    assert (len(read[0]), read[0].channels) == (3000, rows.channels)
    with (tmp_path / "a.csv.truth").open() as file:
        told = list(csv.DictReader(file))
    assert 25 <= len(told) <= 42  # of 41.7 days
    assert {one["kind"] for one in told} <= set(KINDS)
    assert all(parse_time(one["start"]) in read[0].times for one in told)


@pytest.mark.parametrize(("arguments", "said"), [
    (["fit", "nowhere.csv", "--out", "gen"], "nowhere.csv: no such file"),
    (["sample", "nowhere", "--length", "5", "--out", "x.csv"], "nowhere holds no generator"),
    (["plant", "nowhere.csv", "--out", "x.csv", "--truth", "t", "--episodes", "often"], "no such file"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["synth", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_makes_something_else_is_refused() -> None:
    recipe = made().recipe
    other = Generator(2, recipe.clock.size, 24)
    length = LEAD + BLOCK + TAIL
    rates = [*zip(SIZES, STRIDES, strict=True), (2, 1), (recipe.clock.size, 1)]
    with pytest.raises(ParityError, match="differ"):
        check_parity(recipe.graph, INPUTS, other, [(2, size, length // stride) for size, stride in rates])
