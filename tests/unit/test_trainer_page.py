"""The page of a report, whatever the data are like; pytest turns every warning of the plotting into an error."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import tiny_model

from trainer.page import render
from trainer.report import Line, Report, StreamRow


def report(**changes: object) -> Report:
    fields: dict[str, object] = {
        "settings": {"model": "tiny", "rate": 0.001},
        "fit_loss": [0.5],
        "validation_loss": [None],
        "best": 0,
        "windows": {"fit": 100, "validation": 0, "calibration": 10},
        "lines": [Line(stream="a", times=[0.0, 1.0], scores=[0.5, 2.0])],
        "streams": [StreamRow(name="a", readings=200, scores=10, threshold=3.0, own=False)],
        "usual_error": [0.1, 0.0, 2.0],
        "above": 1,
        "warnings": ["<few> scores"],
    }
    return Report.model_validate({**fields, **changes})


def line(start: float, span: float, points: int = 50) -> Line:
    return Line(
        stream="a", times=(start + np.linspace(0, span, points)).tolist(), scores=np.linspace(0.1, 2, points).tolist()
    )


@pytest.mark.parametrize("span", [0.0, 0.5, 20.0, 90.0, 1800.0, 12_600.0, 18_000.0, 86_400.0, 1e6, 1e7, 1e8, 5e8])
def test_any_span_of_time_can_be_drawn(span: float) -> None:
    assert render(tiny_model(), report(lines=[line(1.7e9, span)])).count("<svg") == 1


@pytest.mark.parametrize("start", [0.0, 9.0e9])
def test_so_can_the_ends_of_the_range_of_times(start: float) -> None:
    assert "<svg" in render(tiny_model(), report(lines=[line(start, 1e6)]))


def test_scores_of_zero_and_a_single_score_can_be_drawn() -> None:
    flat = Line(stream="a", times=[0.0, 1.0], scores=[0.0, 0.0])
    single = Line(stream="b", times=[5.0], scores=[0.5])
    assert "<svg" in render(tiny_model(), report(lines=[flat, single]))


def test_channels_come_by_their_share_of_the_error() -> None:
    text = render(tiny_model(), report())
    assert text.index('<td class="">c2</td>') < text.index('<td class="">c0</td>') < text.index(">c1</td>")
    assert "99.8%" in text
    assert "&lt;few&gt; scores" in text


def test_a_training_curve_is_drawn_where_there_was_one() -> None:
    losses = [1.0, 0.5, 0.4]
    assert render(tiny_model(), report(fit_loss=losses, validation_loss=losses, best=2)).count("<svg") == 2


def test_names_in_any_script_can_be_drawn() -> None:
    names = ["Öl-Temperatur", "温度", "_private", "$x^$", "n" * 300, "\u0416"]
    lines = [Line(stream=name, times=[0.0, 1.0], scores=[0.5, 2.0]) for name in names]
    assert render(tiny_model(), report(lines=lines)).count("<svg") == 1
