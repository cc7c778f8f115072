"""The measuring protocol itself, on cases that can be worked out by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from bench import metrics as m
from hypothesis import given
from hypothesis import strategies as st


def flags(text: str) -> np.ndarray:
    """``..##.`` → false, false, true, true, false."""
    return np.array([mark == "#" for mark in text])


def test_runs() -> None:
    assert m.runs(flags("")).tolist() == []
    assert m.runs(flags("....")).tolist() == []
    assert m.runs(flags("#..##.#")).tolist() == [[0, 1], [3, 5], [6, 7]]


def test_average_precision_by_hand() -> None:
    # ranks: anomaly, normal, anomaly, normal → precision 1 at recall 1/2, 2/3 at recall 1
    label, score = flags("#.#."), np.array([4.0, 3, 2, 1])
    assert m.auc_pr(label, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert m.roc_auc(label, score) == pytest.approx(3 / 4)
    assert m.best_f1(label, score) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_no_score_ranks_lowest() -> None:
    nan = float("nan")
    np.testing.assert_array_equal(m.ranked(np.array([nan, -5.0, 2.0])), [-6, -5, 2])
    np.testing.assert_array_equal(np.unique(m.ranked(np.array([nan, nan]))), [-1])
    assert m.auc_pr(flags("#..."), m.ranked(np.array([nan, -1.0, 0, 1]))) == pytest.approx(1 / 4)


def test_no_point_adjustment() -> None:
    label = flags("." * 50 + "#" * 50)
    alarm = flags("." * 50 + "#" + "." * 49)
    assert m.f1(label, alarm) == pytest.approx(2 / 51)


def test_false_positives_leave_out_segments_and_what_follows_them() -> None:
    label = flags("." * 10 + "#" * 5 + "." * 100)
    for place, counts in [(9, True), (10, False), (14, False), (15, False), (74, False), (75, True), (114, True)]:
        alarm = np.zeros(115, bool)
        alarm[place] = True
        assert m.false_positive_rate(label, alarm) == pytest.approx(counts / 50)
        assert len(m.false_episodes(label, alarm)) == counts
    assert m.false_positive_rate(label, np.ones(115, bool)) == 1


def test_false_episodes_are_maximal_runs_that_touch_nothing_excused() -> None:
    label = flags("." * 20 + "#" * 5 + "." * 100)
    alarm = np.zeros(125, bool)
    alarm[0:3] = alarm[5:6] = alarm[18:21] = alarm[80:90] = alarm[120:125] = True
    assert m.false_episodes(label, alarm).tolist() == [[0, 3], [5, 6], [120, 125]]
    quality = m.measure(label, np.zeros(125), alarm, alarm, 60.0)
    assert quality.episodes_per_day == pytest.approx(3 / (125 / 1440))


def test_segments_caught_and_delay() -> None:
    label = flags("..####..####..####")
    assert m.caught(label, flags("#.....##..........")) == 0
    assert np.isnan(m.delay(label, flags("#.....##..........")))
    alarm = flags(".###....#.........")  # the first is under alarm from its first reading, the second too
    assert (m.caught(label, alarm), m.delay(label, alarm)) == (pytest.approx(2 / 3), 0)
    alarm = flags("...#.......#......")
    assert (m.caught(label, alarm), m.delay(label, alarm)) == (pytest.approx(2 / 3), 2)


def test_without_anomalies_only_false_alarms_can_be_measured() -> None:
    quality = m.measure(np.zeros(100, bool), np.arange(100.0), np.arange(100) >= 98, np.arange(100) >= 98, 300.0)
    assert np.isnan([quality.auc_pr, quality.roc, quality.vus_pr, quality.best_f1, quality.f1, quality.caught]).all()
    assert quality.false_positives == pytest.approx(0.02)
    mean = m.mean([quality, quality])
    assert np.isnan(mean.auc_pr)
    assert mean.false_positives == pytest.approx(0.02)


def test_mean_leaves_out_what_could_not_be_measured() -> None:
    label = flags("." * 10 + "#" * 10)
    one = m.measure(label, np.arange(20.0), label, label, 60.0)
    two = m.measure(label, -np.arange(20.0), ~label, ~label, 60.0)
    mean = m.mean([one, two])
    assert np.isnan(two.delay)
    assert mean.delay == one.delay == 0
    assert mean.caught == 0.5


# VUS-PR


def slow_vus_pr(label: np.ndarray, score: np.ndarray, buffer: int, thresholds: int) -> float:
    """The definition, loop by loop."""
    n = len(label)
    segments = [(s, e - 1) for s, e in m.runs(label).tolist()]
    limits = [sorted(score, reverse=True)[int(i)] for i in np.linspace(0, n - 1, thresholds)]
    areas = []
    for width in range(buffer + 1):
        half = width // 2
        faded = [float(flag) for flag in label]
        for start, end in segments:
            for t in range(n):
                gap = start - t if t < start else t - end
                if 0 < gap <= half:
                    faded[t] = min(1.0, faded[t] + (1 - gap / width) ** 0.5)
        joined: list[list[int]] = []
        for start, end in segments:
            if joined and joined[-1][1] >= start - half:
                joined[-1][1] = end + half
            else:
                joined.append([start - half, end + half])
        area, before = 0.0, 0.0
        for limit in limits:
            alarm = [s >= limit for s in score]
            hits = sum(f for f, a in zip(faded, alarm, strict=True) if a)
            beside = sum(f for f, a, flag in zip(faded, alarm, label, strict=True) if a and not flag)
            exist = sum(any(alarm[max(s, 0) : e + 1]) for s, e in joined) / len(joined)
            recall = min(hits / (sum(label) + beside / 2), 1) * exist
            area += (recall - before) * hits / sum(alarm)
            before = recall
        areas.append(area)
    return sum(areas) / len(areas)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30).filter(
        lambda rows: any(flag for flag, _ in rows)
    ),
    st.integers(0, 12),
    st.sampled_from([2, 7, 40]),
)
def test_vus_is_what_its_definition_says(rows: list[tuple[bool, int]], buffer: int, thresholds: int) -> None:
    label = np.array([flag for flag, _ in rows])
    score = np.array([value for _, value in rows], float)
    assert m.vus_pr(label, score, buffer, thresholds) == pytest.approx(slow_vus_pr(label, score, buffer, thresholds))


def test_vus_by_hand() -> None:
    # Without buffers and with every rank as a threshold it is the average precision times existence: here of two
    # segments the first is found at rank 1 and the second at rank 3.
    label, score = flags("#.#."), np.array([4.0, 3, 2, 1])
    # ranks 1, 2, 3, 4: recall ½, ½, 1, 1; existence ½, ½, 1, 1; precision 1, ½, ⅔, ½
    assert m.vus_pr(label, score, buffer=0, thresholds=4) == pytest.approx(1 / 4 * 1 + 3 / 4 * 2 / 3)
    # Width 2 fades over one reading, √½ high; ranks by the score, the anomaly is the second reading of three.
    label, score, half = flags(".#."), np.array([3.0, 2, 1]), 0.5**0.5
    # hits √½, 1+√½, 1+2√½; positives 1+√½/2, 1+√½/2, 1+√½; recall of the last two is cut to 1
    first = half / (1 + half / 2)
    wide = first * half + (1 - first) * (1 + half) / 2
    narrow = 1 / 2  # widths 0 and 1: the only anomaly is at rank 2
    assert m.vus_pr(label, score, buffer=2, thresholds=3) == pytest.approx((2 * narrow + wide) / 3)


@given(st.integers(0, 10_000))
def test_vus_of_a_perfect_score_is_near_one_and_does_not_mind_the_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros(1000, bool)
    start = int(rng.integers(100, 800))
    label[start : start + 50] = True
    score = label + 0.5 * rng.random(1000)
    value = m.vus_pr(label, score, buffer=0)
    assert value == pytest.approx(1, abs=0.01)
    assert m.vus_pr(label, np.exp(3 * score), buffer=0) == value
    late = np.roll(score, 20)
    assert m.vus_pr(label, late) > m.vus_pr(label, late, buffer=0) > m.vus_pr(label, np.roll(score, 400))
