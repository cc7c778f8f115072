"""The page of a report, whatever the data are like; pytest turns every warning of the plotting into an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_model import tiny_model

from detector.engine.model import Model
from schemas.manifest import Candidate, Channel, Season, Suspect
from trainer.latent import STEPS, Decoded, Latent, Points
from trainer.page import render
from trainer.page.promise import about
from trainer.report import Line, Report, ReturnLevels, StreamRow
from trainer.worst import Trace, Worst


def report(**changes: object) -> Report:
    fields: dict[str, object] = {
        "settings": {"model": "tiny", "false_alarms": "1/7d"},
        "fit_loss": [0.5],
        "validation_loss": [None],
        "best": 0,
        "windows": {"fit": 100, "validation": 0, "calibration": 10},
        "lines": [Line(stream="a", times=[0.0, 1.0], scores=[0.5, 2.0])],
        "streams": [StreamRow(name="a", readings=200, scores=10, threshold=3.0, factor=1.0)],
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


def worst(points: int = 40, **changes: object) -> Worst:
    wave = np.sin(np.arange(points) / 5).tolist()
    fields: dict[str, object] = {
        "stream": "a", "time": 1.7e9, "score": 2.5, "step": 1, "window": min(10, points), "reconstructed": True,
        "traces": [
            Trace(channel=c, share=0.3, observed=wave, expected=[*([None] * (points // 2)), *wave[points // 2 :]])
            for c in range(3)
        ],
    }  # fmt: skip
    return Worst.model_validate({**fields, **changes})


def latent(**changes: object) -> Latent:
    few = Points(x=[0.0, 1.0, 2.0], y=[0.0, -1.0, 1.0])
    fields: dict[str, object] = {
        "model": "dense-vae", "size": 16, "share": (0.6, 0.2), "fit": few, "calibration": few,
        "worst": Points(x=[5.0], y=[5.0]),
    }  # fmt: skip
    return Latent.model_validate({**fields, **changes})


def decoded(window: int = 4, channels: int = 2) -> Decoded:
    G = len(STEPS)
    grid = np.random.default_rng(0).normal(size=(G, G, channels, window)).tolist()
    return Decoded(steps=list(STEPS), channels=list(range(channels)), windows=grid)


def with_manifest(**changes: object) -> Model:
    model = tiny_model()
    return replace(model, manifest=model.manifest.model_copy(update=changes))


def card_of(model: Model, shown: Report) -> str:
    text = render(model, shown)
    return text[text.index("Model card") : text.index("Settings and versions")]


@pytest.mark.parametrize("points", [1, 2, 3, 400])
@pytest.mark.parametrize("interval_s", [0.01, 1.0, 300.0, 86_400.0])
def test_worst_windows_of_any_length_and_step_can_be_drawn(points: int, interval_s: float) -> None:
    text = render(tiny_model(interval_s=interval_s), report(worst=[worst(points)]))
    assert text.count("<svg") == 2
    assert "1. a, 2023-11-14T22:13:20Z, score 2.5" in text


def test_a_channel_that_is_hardly_there_or_never_moves_can_be_drawn() -> None:
    none, flat = [None] * 40, [0.0] * 40
    traces = [
        Trace(channel=0, share=1, observed=none, expected=none),
        Trace(channel=1, share=0, observed=flat, expected=flat),
        Trace(channel=2, share=0, observed=[1e30] * 40, expected=[-1e30] * 40),
    ]
    assert "Worst windows" in render(tiny_model(), report(worst=[worst(traces=traces), worst(traces=[])]))


def test_of_a_forecaster_the_page_says_that_readings_were_predicted() -> None:
    assert "as the model reconstructs it" in render(tiny_model(), report(worst=[worst()]))
    assert "from those before it" in render(tiny_model(), report(worst=[worst(reconstructed=False)]))


def test_codes_are_drawn_with_what_their_axes_carry() -> None:
    text = render(tiny_model(), report(worst=[worst()], latent=latent()))
    assert "which carry 80% of their variance" in text
    assert "first axis, 60% of the variance" in text
    assert "Decoded grid" not in text


def test_codes_in_one_point_can_be_drawn() -> None:
    one, none = Points(x=[0.0], y=[0.0]), Points(x=[], y=[])
    text = render(tiny_model(), report(latent=latent(fit=one, calibration=one, worst=none, share=(0.0, 0.0))))
    assert "Codes" in text


@pytest.mark.parametrize("window", [1, 2, 48])
def test_the_grid_of_a_variational_model_is_drawn(window: int) -> None:
    text = render(tiny_model(), report(latent=latent(), decoded=decoded(window)))
    assert "Decoded grid" in text
    assert text.count("<svg") == 3


def test_a_grid_that_does_not_move_can_be_drawn() -> None:
    flat = decoded().model_copy(update={"windows": np.zeros((5, 5, 2, 4)).tolist()})
    assert "Decoded grid" in render(tiny_model(), report(latent=latent(), decoded=flat))


def test_streams_show_what_was_measured_and_a_dash_for_what_was_not() -> None:
    row = StreamRow(
        name="<b>", readings=200, scores=10, threshold=3.0, factor=2.0, median=0.25, largest=1.5, above=0.0123,
        episodes=0.5, error=0.4321,
    )  # fmt: skip
    text = render(
        tiny_model(), report(streams=[row, StreamRow(name="b", readings=1, scores=0, threshold=3, factor=1.0)])
    )
    assert all(f'<td class="n">{cell}</td>' in text for cell in ("0.25", "1.5", "1.23%", "0.50", "0.432", "–"))
    assert "&lt;b&gt;" in text


def test_names_from_the_data_are_escaped_wherever_they_stand() -> None:
    evil = "<script>&$a_$"
    model = tiny_model(streams=(evil, "b"))
    channels = tuple(Channel(name=f"{evil}{c}", unit=evil) for c in range(3))
    model = replace(model, manifest=model.manifest.model_copy(update={"channels": channels, "group": evil}))
    shown = report(
        worst=[worst(stream=evil)], latent=latent(model=evil), decoded=decoded(), warnings=[evil],
        lines=[Line(stream=evil, times=[0.0, 1.0], scores=[0.5, 2.0])],
    )  # fmt: skip
    text = render(model, shown)
    assert "<script" not in text
    assert "&lt;script&gt;&amp;" in text


def test_the_card_takes_its_numbers_from_the_manifest() -> None:
    shown = report(parameters=1234)
    model = with_manifest(metrics={"parity": 3e-7}, made_with={"torch": "9.9"})
    card = card_of(model, shown)
    for fact in (
        "1,234 parameters", "agreed within 3.0e-07", "torch 9.9", "seed 0", "999 scores",
        "At most 1 false-alarm episode of a stream in 7 days", "a raw score of 3.", "4 readings (4 s)", "no season",
        "span 4", "0" * 64, "named by who fitted it",
    ):  # fmt: skip
        assert fact in card, fact


def test_the_card_says_what_a_model_was_chosen_from_and_which_season_it_knows() -> None:
    candidate = Candidate(
        model="tiny", found=0.5, over_baseline=0, standard_errors=0, parameters=1, mflop=1, microseconds=1, fit_s=1
    )
    card = card_of(with_manifest(candidates=(candidate,), season=Season(period_s=86_400, bins=24)), report())
    assert "by what each found of faults planted" in card
    assert "periods of 1 d" in card


def test_what_an_older_folder_did_not_keep_is_left_out() -> None:
    text = render(tiny_model(), report())
    for section in ("Worst windows", "Codes", "Decoded grid"):
        assert section not in text
    card = card_of(tiny_model(), report())
    assert "parameters" not in card
    assert "Not recorded" in card


def test_the_page_needs_no_network_and_follows_the_readers_colours() -> None:
    text = render(tiny_model(), report(worst=[worst()], latent=latent(), decoded=decoded()))
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text
    assert "url(http" not in text
    drawn = text[text.index("<svg") :]
    assert "stroke: #000" not in drawn
    assert "fill: #ffffff" not in drawn
    assert "var(--c0)" in drawn


def returns(**changes: object) -> ReturnLevels:
    fields: dict[str, object] = {
        "period_s": [1e6, 5e5, 3e5], "level": [5.0, 0.9, 0.7], "suspect": [True, False, False],
        "band_s": [3e5, 6e5, 6e6], "least": [0.6, 0.8, 1.0], "most": [0.8, 1.2, 1.7],
    }  # fmt: skip
    return ReturnLevels.model_validate({**fields, **changes})


def promising(model: Model, **changes: object) -> Model:
    calibration = model.manifest.calibration.model_copy(update=changes)
    return replace(model, manifest=model.manifest.model_copy(update={"calibration": calibration}))


def test_the_promise_is_drawn_and_said_in_words() -> None:
    suspect = Suspect(stream="<a>", time="2024-05-01T00:00:00Z", score=5.0)
    changes = {"method": "bulk-exponential", "days": 9.0, "share": 0.3, "peaks": 3, "reach_s": 777_600.0}
    changes |= {"interval": (2.4, 4.5), "suspected": 1, "suspects": (suspect,)}
    text = render(promising(tiny_model(threshold=3.0), **changes), report(returns=returns()))
    for words in (
        "<h2>The promise</h2>", "At most 1 false-alarm episode of a stream in 7 days", "30% of the data",
        "the largest look like faults", "between 0.80 and 1.50 of this one", "one episode in 9 days",
        "1 episode of these data would raise an alarm and looks like a fault", "&lt;a&gt;",
    ):  # fmt: skip
        assert words in text, words


def test_a_fleet_s_promise_says_what_it_comes_to() -> None:
    model = promising(tiny_model(), false_alarms="fleet:2/7d", rate=1 / 7, method="ranks", days=100.0, peaks=50)
    text = render(model, report(returns=returns(suspect=[False] * 3, band_s=[], least=[], most=[])))
    assert "At most 2 false-alarm episodes of all 2 streams in 7 days, one in 7 days of each" in text
    assert "look like faults, the worst" not in text


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e9])
@pytest.mark.parametrize("period", [1e-3, 1e3, 1e12])
def test_any_return_levels_can_be_drawn(level: float, period: float) -> None:
    shown = returns(period_s=[period], level=[level], suspect=[False], band_s=[], least=[], most=[])
    assert "The promise" in render(tiny_model(), report(returns=shown))
    assert "The promise" not in render(tiny_model(), report())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 s"), (90, "90 s"), (7200, "2 h"), (86_400 * 7, "7 days"), (86_400 * 21, "3 weeks"), (1e9, "32 years")],
)
def test_long_times_are_told_in_one_unit(seconds: float, words: str) -> None:
    assert about(seconds) == words
