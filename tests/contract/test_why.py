"""An alert names the channels that are wrong; ``tests/bench/why.py`` in small."""

from __future__ import annotations

import numpy as np
import pytest
from bench.proving import generated
from bench.why import SIZED, Counted, measure, nothing
from tiny_model import tiny_model

from detector.engine.attribution import smoothed_error
from detector.engine.scorer import Scorer
from detector.engine.smoothing import smoothing_weights


@pytest.fixture(scope="module")
def counted() -> Counted:
    """Faults of one and two channels of four streams, of eight standard deviations."""
    found = nothing()
    measure(generated(4, fit_days=14, watch_days=6, shared=0.5, seed=1), found, most=12, sizes=(8.0,))
    return found


def right(counted: Counted, way: str, channels: int) -> tuple[float, float]:
    """How often the first channel is a true one, and all true ones are among the first three."""
    cells = [(kind, channels) for kind in SIZED]
    judged = sum(counted.judged[cell] for cell in cells)
    assert judged >= 20, "too few were caught to say anything"
    tallies = [counted.tallies[cell][way] for cell in cells]
    return sum(tally.first for tally in tallies) / judged, sum(tally.three for tally in tallies) / judged


@pytest.mark.parametrize("channels", [1, 2])
def test_the_first_channels_are_true(counted: Counted, channels: int) -> None:
    first, three = right(counted, "recomputed", channels)
    assert first >= 0.85
    assert three >= 0.8


@pytest.mark.parametrize("channels", [1, 2])
def test_no_costly_way_is_clearly_better(counted: Counted, channels: int) -> None:
    first, _ = right(counted, "recomputed", channels)
    for way in ("hidden", "replaced", "shapley, hidden", "shapley, replaced"):
        assert first >= right(counted, way, channels)[0] - 0.05, way


def test_a_spike_is_found_behind_the_newest_reading() -> None:
    model = tiny_model(channels=5)
    scorer = Scorer(model.graph, model.manifest.batching)
    W = model.manifest.window
    x = np.zeros((W, 5), np.float32)
    x[-2, 3] = 50
    loc, scale = np.zeros(5, np.float32), np.ones(5, np.float32)
    share = smoothed_error(scorer, x, loc, scale, None, smoothing_weights(8))
    assert share.shape == (5,)
    assert int(share.argmax()) == 3
