"""The worst windows: where the largest scores lie, and what the served graph expected there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trainer_data import normal, table

from detector.adapters.files import Table
from detector.engine.scorer import Scorer
from schemas.moment import SECOND_NS
from trainer.calibrate import Calibrated, calibrate
from trainer.pipeline import Draft, drafted
from trainer.settings import FitSettings
from trainer.worst import SHOWN, Worst, worst_places, worst_windows

ROWS = 600
#: Readings of the calibration stretch at which a channel is wrong.
WRONG = 520


def fitted(model: str, readings: Table) -> tuple[Draft, Calibrated]:
    settings = FitSettings(model=model, false_alarms="1/20s", smoothing_span=1, context="none")
    draft = drafted(readings, settings, None, lambda _: None)
    return draft, calibrate(draft.model, readings, draft.data, settings.false_alarms)


def with_fault(rows: int = ROWS, seed: int = 0, channel: int = 2) -> np.ndarray:
    values = normal(rows, seed=seed)
    values[WRONG, channel] += 200
    return values


def worst_of(model: str, readings: Table) -> list[Worst]:
    draft, calibrated = fitted(model, readings)
    return worst_windows(draft.model, draft.data, calibrated, worst_places(readings, draft.data, calibrated))


def test_the_largest_score_and_its_channel_come_first() -> None:
    readings = table(with_fault(), normal(ROWS, seed=1), names=("<a>", "b"))
    worst = worst_of("pca", readings)
    assert len(worst) == SHOWN
    assert {w.stream for w in worst} == {"<a>", "b"}
    first = worst[0]
    assert first.stream == "<a>"
    # the fault is within the window that scored highest
    assert 0 <= first.time - (readings.times[0] / SECOND_NS + WRONG) < 10
    assert first.traces[0].channel == 2
    assert sum(trace.share for trace in first.traces) <= 1 + 1e-3
    assert [w.score for w in worst] == sorted((w.score for w in worst), reverse=True)


def test_those_of_one_stream_lie_a_window_apart() -> None:
    worst = worst_of("pca", table(with_fault()))
    assert len(worst) == SHOWN
    times = sorted(w.time for w in worst)
    assert (np.diff(times) >= 10).all()


def test_different_streams_come_before_larger_scores_of_the_same() -> None:
    readings = table(*(with_fault() if s == 0 else normal(ROWS, seed=s) for s in range(5)))
    assert len({w.stream for w in worst_of("pca", readings)}) == SHOWN


def test_expected_is_what_the_served_graph_says() -> None:
    readings = table(with_fault())
    draft, calibrated = fitted("dense", readings)
    (place, *_) = places = worst_places(readings, draft.data, calibrated)
    worst = worst_windows(draft.model, draft.data, calibrated, places)[0]
    assert worst.reconstructed
    given = replace(draft.data.calibration, ends=np.array([place.row])).raw(slice(None))
    window = Scorer(draft.model.graph, draft.model.manifest.batching).window(*given)[0]
    for trace in worst.traces:
        assert trace.expected[: -draft.data.window] == [None] * (len(trace.expected) - draft.data.window)
        np.testing.assert_allclose(
            np.array(trace.expected[-draft.data.window :], float), window[:, trace.channel], 1e-5
        )
        np.testing.assert_allclose(
            np.array(trace.observed[-draft.data.window :], float), given.x[0, :, trace.channel], 1e-5
        )


def test_of_a_forecaster_each_reading_is_shown_as_it_was_predicted() -> None:
    worst = worst_of("linear", table(with_fault()))[0]
    assert not worst.reconstructed
    trace = worst.traces[0]
    assert None not in trace.expected
    assert trace.expected != trace.observed


def test_holes_are_left_out_of_the_line() -> None:
    values = with_fault()
    values[WRONG - 3, :3] = np.nan
    worst = worst_of("pca", table(values))[0]
    assert None in worst.traces[0].observed


@pytest.mark.parametrize("rows", [160, 200])
def test_a_short_stretch_shows_as_many_as_it_holds(rows: int) -> None:
    worst = worst_of("pca", table(normal(rows)))
    assert 1 <= len(worst) <= SHOWN
