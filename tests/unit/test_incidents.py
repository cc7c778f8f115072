"""Every kind of incident and every path through its life, each on the real engine with a small ONNX file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import tiny_image_model, tiny_model

from detector.engine.baseline import AS_USUAL, MOST_RELIEF, RELIEF_FADES_S, SCORE_STEPS, UPPER
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from schemas.alert import Alert, Ended, EventType, Kind, Severity
from schemas.command import Command, Verb
from schemas.frame import Frame
from schemas.manifest import Channel, Season
from schemas.moment import SECOND_NS, parse_time

C = 3
OPENED, UPDATED, RESOLVED = "opened", "updated", "resolved"
ANOMALY, SHIFT, DRIFT = Kind.ANOMALY, Kind.SHIFT, Kind.DRIFT

#: Anomalies, and no more.
PLAIN = Policy(
    k=2, n=3, quiet=3, unseen=10, worse=2, update_after=5, flap_after=0, expire_after=10_000, shift_after=0,
    trial_after=0, drift_after=0, silent_after=0,
)  # fmt: skip
#: Seconds until an anomaly is a shift, and until that is for good.
LASTING, TRIAL = 48, 60
#: Longer than a turn of the baselines.
TURN = 7

Row = tuple[EventType | str, Kind, Ended | None, tuple[str, ...]]


class Watch:
    """An engine and what it said: the events in order, and whether each stream was under alarm after each reading."""

    def __init__(self, policy: Policy = PLAIN, model: Model | None = None, **changed: Any) -> None:
        self.model = model or tiny_model(span=1, streams=("a", "b", "c"))
        self.engine = Engine(self.model, policy.model_copy(update=changed))
        self.events: list[Alert] = []
        self.alert: dict[str, list[bool]] = defaultdict(list)
        self._open: dict[str, set[str]] = defaultdict(set)
        self._rng = np.random.default_rng(5)
        self.now = 1000

    def quiet(self, count: int, **levels: float) -> NDArray[np.float32]:
        """Normal readings ``[count, C]``, some channels at other levels: ``c1=9``."""
        rows = self._rng.normal(0, 0.05, (count, C))
        for name, level in levels.items():
            rows[:, int(name[1:])] += level
        return rows.astype(np.float32)

    def feed(
        self, rows: NDArray[np.float32], stream: str = "a", times: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """The next readings of a stream, one a second; their scores."""
        seconds = np.arange(self.now, self.now + len(rows)) if times is None else np.array(times)
        self.now = max(self.now, int(seconds[-1]) + 1)
        return self.take([Readings(0, [stream] * len(rows), seconds * SECOND_NS, rows)])

    def take(self, batches: list[Readings]) -> NDArray[np.float64]:
        """Readings of any streams; checks that the alert column says what the events say."""
        scored = self.engine.process(batches)
        streams = [name for batch in batches for name in batch.streams]
        at = 0
        for index, stream in enumerate(streams):
            while at < len(scored.published) and scored.published[at].index == index:
                self._note(scored.published[at].alert)
                at += 1
            self.alert[stream].append(bool(scored.alert[index]))
            assert scored.alert[index] == bool(self._open[stream]), (index, stream)
        assert at == len(scored.published)
        return scored.score

    def say(self, verb: str, stream: str = "a", *channels: str) -> None:
        """What an operator says."""
        command = Command(id=str(len(self.events)), command=Verb(verb), stream=stream, channels=channels)
        for published in self.engine.apply(0, command):
            self._note(published.alert)

    def _note(self, alert: Alert) -> None:
        self.events.append(alert)
        if alert.type is EventType.RESOLVED:
            self._open[alert.subject].remove(alert.data.incident)
        else:
            self._open[alert.subject].add(alert.data.incident)

    def told(self) -> list[Row]:
        """What was published, shortly; checks what holds for every life."""
        lives: dict[str, list[Alert]] = defaultdict(list)
        for event in self.events:
            lives[event.data.incident].append(event)
        for incident, life in lives.items():
            check(incident, life)
        return [(e.type.rpartition(".")[2], e.data.kind, e.data.ended, named(e)) for e in self.events]

    @property
    def open(self) -> bool:
        """The first stream is under alarm."""
        return self.alert["a"][-1]


def named(event: Alert) -> tuple[str, ...]:
    """The channels it is about; when it is over, those that it was about."""
    channels = event.data.channels
    if event.type is EventType.RESOLVED:
        return tuple(c.name for c in channels)
    return tuple(c.name for c in channels if c.share >= channels[0].share / 3)


def check(incident: str, life: list[Alert]) -> None:
    """One incident from its opening on, as far as it went."""
    assert [e.id for e in life] == [f"{incident}-{n}" for n in range(len(life))]
    assert [e.type is EventType.OPENED for e in life] == [True] + [False] * (len(life) - 1)
    assert all(e.type is not EventType.RESOLVED for e in life[:-1])
    for e in life:
        assert (e.data.ended is not None) == (e.type is EventType.RESOLVED)
        assert e.data.summary.startswith("`") or e.subject in e.data.summary
        assert (e.data.opened, e.data.began) == (life[0].data.opened, life[0].data.began)
        assert parse_time(e.data.began) <= parse_time(e.data.opened) <= parse_time(e.time)
        assert e.to_bytes() == Alert.model_validate_json(e.to_bytes()).to_bytes()
    times = [parse_time(e.time) for e in life]
    assert times == sorted(times)


def seconds(text: str) -> int:
    return parse_time(text) // SECOND_NS


def lines(*rows: Sequence[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


# -- anomalies: opening ------------------------------------------------------------------------------------------------


def test_an_anomaly_opens_and_is_resolved_quiet() -> None:
    w = Watch()
    w.feed(w.quiet(20))
    w.feed(w.quiet(4, c1=20))
    w.feed(w.quiet(20))
    assert w.told() == [
        (OPENED, ANOMALY, None, ("c1",)),
        (RESOLVED, ANOMALY, Ended.QUIET, ("c1",)),
    ]
    opened, resolved = w.events
    assert (seconds(opened.data.began), seconds(opened.data.opened)) == (1020, 1021), "it began before it opened"
    assert opened.data.score is not None
    assert opened.data.score > 1
    assert opened.data.return_period_s is not None
    assert len(opened.data.channels[0].observed_window or ()) == 4
    assert resolved.data.channels[0].observed_window is None
    assert w.alert["a"] == [False] * 21 + [True] * (seconds(resolved.time) - 1021) + [False] * (
        1044 - seconds(resolved.time)
    )


def test_k_of_n() -> None:
    spikes = [True, False, False, True, False, True, False, False, False, False, False, False]
    w = Watch(k=2, n=3, model=tiny_model(window=1, span=1))
    w.feed(w.quiet(4))
    w.feed(np.concatenate([w.quiet(1, c0=20.0 * spike) for spike in spikes]))
    assert w.told()[0] == (OPENED, ANOMALY, None, ("c0",))
    assert seconds(w.events[0].data.opened) == 1009, "two of three are anomalous for the first time"
    assert w.alert["a"][4:] == [False] * 5 + [True] * 3 + [False] * 4


def test_k_equal_to_n_is_a_minimum_length() -> None:
    w = Watch(k=3, n=3, model=tiny_model(window=1, span=1))
    w.feed(w.quiet(4))
    for length in (1, 2):
        w.feed(w.quiet(length, c0=20))
        w.feed(w.quiet(4))
    assert w.told() == []
    w.feed(w.quiet(3, c0=20))
    assert [row[0] for row in w.told()] == [OPENED]


def test_between_release_and_threshold_nothing_opens_and_nothing_ends() -> None:
    """A level of 5.53 scores .85 thresholds once the window knows it."""
    slowly = Watch()
    slowly.feed(slowly.quiet(20))
    ramp = slowly.quiet(60)
    ramp[:, 0] += np.linspace(0, 5.53, 60)
    slowly.feed(ramp)
    score = slowly.feed(slowly.quiet(30, c0=5.53))
    assert (score[4:] > 0.7).all()
    assert (score[4:] < 1).all()
    assert slowly.told() == []

    at_once = Watch()
    at_once.feed(at_once.quiet(20))
    at_once.feed(at_once.quiet(200, c0=5.53))
    assert at_once.open
    at_once.feed(at_once.quiet(10))
    assert [row[0] for row in at_once.told()] == [OPENED, RESOLVED]


def test_a_stream_never_seen_publishes_nothing_at_first() -> None:
    w = Watch(unseen=30)
    w.feed(w.quiet(10), "new")
    w.feed(w.quiet(15, c0=20), "new")
    w.feed(w.quiet(10), "new")
    assert w.told() == []
    assert not any(w.alert["new"])
    w.feed(w.quiet(4, c0=20), "new")
    w.feed(w.quiet(10), "new")
    assert [row[0] for row in w.told()] == [OPENED, RESOLVED]


# -- anomalies: updates ------------------------------------------------------------------------------------------------


def test_it_is_updated_because_it_is_worse() -> None:
    w = Watch()
    w.feed(w.quiet(20))
    w.feed(w.quiet(10, c1=9))
    w.feed(w.quiet(10, c1=60))
    assert w.told() == [(OPENED, ANOMALY, None, ("c1",)), (UPDATED, ANOMALY, None, ("c1",))]
    opened, updated = (e.data for e in w.events)
    assert updated.score is not None
    assert opened.score is not None
    assert updated.score >= 2 * opened.score
    assert updated.return_period_s is not None
    assert opened.return_period_s is not None
    assert updated.return_period_s > opened.return_period_s
    assert updated.severity is not Severity.MINOR


def test_it_is_updated_because_another_channel_came_to_the_front() -> None:
    w = Watch(worse=1000)
    w.feed(w.quiet(20))
    w.feed(w.quiet(10, c1=20))
    w.feed(w.quiet(10, c2=20))
    w.feed(w.quiet(10, c1=20))
    w.feed(w.quiet(10))
    assert [row[:2] for row in w.told()] == [(OPENED, ANOMALY), (UPDATED, ANOMALY), (RESOLVED, ANOMALY)]
    _, updated, resolved = w.told()
    assert updated[3][0] == "c2"
    assert set(resolved[3]) == {"c1", "c2"}, "what was named is still named when it is over"


def test_it_is_not_updated_too_often() -> None:
    w = Watch(update_after=20)
    w.feed(w.quiet(20))
    for level in (9, 30, 90, 300, 900, 3000):
        w.feed(w.quiet(6, c1=level))
    w.feed(w.quiet(20))
    assert [row[0] for row in w.told()] == [OPENED, UPDATED, RESOLVED]
    opened, updated, _ = w.events
    assert parse_time(updated.time) - parse_time(opened.time) >= 20 * SECOND_NS


# -- anomalies: ends ---------------------------------------------------------------------------------------------------


def test_it_expires_and_does_not_open_again_before_it_was_over() -> None:
    w = Watch(expire_after=60)
    w.feed(w.quiet(20))
    w.feed(w.quiet(200, c1=20))
    assert w.told() == [
        (OPENED, ANOMALY, None, ("c1",)),
        (RESOLVED, ANOMALY, Ended.EXPIRED, ("c1",)),
    ]
    opened, expired = w.events
    assert parse_time(expired.time) - parse_time(opened.time) == 60 * SECOND_NS
    assert sum(w.alert["a"]) == 60
    w.feed(w.quiet(20))
    w.feed(w.quiet(4, c1=20))
    assert w.told()[2:] == [(OPENED, ANOMALY, None, ("c1",))]


def test_a_stream_that_flaps_needs_more_calm() -> None:
    def length(w: Watch) -> int:
        """Calm readings until it is over."""
        w.feed(w.quiet(3, c1=20))
        w.feed(w.quiet(60))
        return parse_time(w.events[-1].time) // SECOND_NS - (w.now - 61)

    w = Watch(flap_after=100, model=tiny_model(window=1, span=1))
    w.feed(w.quiet(20))
    assert [length(w) for _ in range(6)] == [3, 6, 12, 24, 24, 24], "at most eight times as many"
    assert [e.data.reopened for e in w.events if e.type is EventType.OPENED] == [0, 1, 2, 3, 3, 3]
    w.feed(w.quiet(200))
    assert length(w) == 3, "all is forgotten after a time without one"
    assert all(row[2] in (None, Ended.QUIET) for row in w.told())


# -- shifts ------------------------------------------------------------------------------------------------------------

MOVING = PLAIN.model_copy(update={"shift_after": float(LASTING), "trial_after": float(TRIAL)})


def shifted(**changed: Any) -> Watch:
    """A stream whose c1 moved by 12 and stays, until that is its level."""
    w = Watch(MOVING, **changed)
    w.feed(w.quiet(30))
    w.feed(w.quiet(LASTING + 2 * TURN, c1=12))
    return w


def test_what_persists_is_a_shift_and_then_the_baseline() -> None:
    w = shifted()
    assert w.told() == [
        (OPENED, ANOMALY, None, ("c1",)),
        (UPDATED, SHIFT, None, ("c1",)),
        (RESOLVED, SHIFT, Ended.REBASELINED, ("c1",)),
    ]
    opened, moved, over = w.events
    assert LASTING <= (parse_time(moved.time) - parse_time(opened.time)) / SECOND_NS <= LASTING + TURN
    assert parse_time(over.time) - parse_time(moved.time) == 2 * SECOND_NS
    channel = moved.data.channels[0]
    assert channel.observed == pytest.approx(12, abs=0.2)
    assert channel.expected == pytest.approx(0, abs=0.2)
    assert "12" in moved.data.summary


def test_a_shift_that_settles_is_the_level_from_then_on() -> None:
    w = shifted()
    score = w.feed(w.quiet(TRIAL + TURN, c1=12))
    assert (score[: TRIAL - 2 * TURN] > 1).all(), "on trial the score is that of the level before …"
    assert not any(w.alert["a"][-TRIAL:]), "… but a reading that fits either is no anomaly"
    assert (w.feed(w.quiet(20, c1=12)) < 1).all()
    count = len(w.events)
    w.feed(w.quiet(10))
    assert w.told()[count:] == [(OPENED, ANOMALY, None, ("c1",))], "the old level is as wrong as any other"


def test_a_shift_on_trial_that_returns_is_taken_back() -> None:
    w = shifted()
    w.feed(w.quiet(20, c1=12))
    score = w.feed(w.quiet(30))
    assert (score[4:] < 1).all()
    assert len(w.told()) == 3, "back at the old level nothing is told"
    w.feed(w.quiet(10, c1=12))
    assert w.told()[3:] == [(OPENED, ANOMALY, None, ("c1",))], "what was taken back is no longer known"


def test_a_fault_on_trial_that_fits_neither_level_is_told() -> None:
    w = shifted()
    w.feed(w.quiet(10, c1=12))
    w.feed(w.quiet(6, c1=12, c0=30))
    w.feed(w.quiet(10, c1=12))
    assert [row[:3] for row in w.told()[3:]] == [(OPENED, ANOMALY, None), (RESOLVED, ANOMALY, Ended.QUIET)]
    assert w.events[3].data.channels[0].name == "c0"


def test_a_second_fault_after_a_shift_settled_is_told() -> None:
    w = shifted(trial_after=0.0)
    w.feed(w.quiet(20, c1=12))
    w.feed(w.quiet(6, c1=24))
    w.feed(w.quiet(10, c1=12))
    assert [row[0] for row in w.told()[3:]] == [OPENED, RESOLVED]


def test_what_opened_and_stays_below_the_threshold_is_a_shift_too() -> None:
    """It is not over, as it is not calm; it must not be open until it expires."""
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    score = w.feed(w.quiet(LASTING + 2 * TURN, c1=5.53))
    assert (score > 1).mean() < 0.3
    assert [row[:3] for row in w.told()] == [
        (OPENED, ANOMALY, None),
        (UPDATED, SHIFT, None),
        (RESOLVED, SHIFT, Ended.REBASELINED),
    ]


def test_a_wider_spread_is_a_shift_too() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    for _ in range(2):
        rows = w.quiet(LASTING)
        rows[:, 2] += np.where(np.arange(LASTING) % 2, 12, -12)
        w.feed(rows)
    assert [row[:3] for row in w.told()] == [
        (OPENED, ANOMALY, None),
        (UPDATED, SHIFT, None),
        (RESOLVED, SHIFT, Ended.REBASELINED),
    ]
    assert float(w.engine.state.base_spread[0, 2]) == pytest.approx(12, rel=0.1)
    for event in w.events[1:]:
        assert str(event.data.summary).startswith("a: c2 scatters 12× as much as usual since"), event.data.summary


def scattered(w: Watch, count: int, size: float) -> NDArray[np.float32]:
    """Normal readings but for a channel that is that far away on either side in turn."""
    rows = w.quiet(count)
    rows[:, 2] += np.where(np.arange(count) % 2, size, -size)
    return rows


def test_a_spread_that_grew_stays_while_the_channel_scatters_and_shrinks_when_it_no_longer_does() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    w.feed(scattered(w, 2 * LASTING + TRIAL, 12))
    told = len(w.events)
    spread = float(w.engine.state.base_spread[0, 2])
    w.feed(scattered(w, 20 * TURN, 12))
    assert len(w.events) == told
    assert float(w.engine.state.base_spread[0, 2]) == pytest.approx(spread, rel=1e-6)
    w.feed(w.quiet(20 * TURN))
    shrunk = float(w.engine.state.base_spread[0, 2])
    weeks = 20 * TURN / RELIEF_FADES_S
    assert spread**2 - shrunk**2 == pytest.approx(weeks * spread**2, rel=0.2)
    w.feed(w.quiet(10, c0=9))
    assert w.open, "another channel is watched as before"


def test_incidents_that_come_back_soon_are_a_shift_by_the_time_of_them_all() -> None:
    w = Watch(MOVING, flap_after=30)
    w.feed(w.quiet(30))
    w.feed(w.quiet(LASTING // 2, c1=12))
    w.feed(w.quiet(6))
    w.feed(w.quiet(LASTING // 2 + TURN, c1=12))  # neither lasts
    assert [row[:2] for row in w.told()][:4] == [
        (OPENED, ANOMALY), (RESOLVED, ANOMALY), (OPENED, ANOMALY), (UPDATED, SHIFT)
    ]  # fmt: skip


def test_what_the_level_does_not_explain_is_relieved() -> None:
    """It moves on just after it was re-baselined."""
    w = Watch(MOVING, trial_after=0.0)
    w.feed(w.quiet(30))
    while not any(e.data.kind is SHIFT for e in w.events):
        w.feed(w.quiet(1, c1=12))
    w.feed(w.quiet(60, c1=30))
    told = [row[:3] for row in w.told()]
    assert told[0] == (OPENED, ANOMALY, None)
    assert set(told[1:-1]) == {(UPDATED, SHIFT, None)}
    assert told[-1] == (RESOLVED, SHIFT, Ended.REBASELINED)
    assert len(told) <= 5
    assert w.engine.state.base_relief[0] > 1
    assert (w.feed(w.quiet(20, c1=30)) < 1).all()


def test_relief_covers_how_far_scores_scatter_and_stays_while_they_do() -> None:
    """Errors that change all the time, of no channel's level or spread alone: as noise does that grew for good."""
    w = Watch(MOVING, trial_after=0.0)
    w.feed(w.quiet(30))
    base, state = w.engine.baselines, w.engine.state
    at, usual = np.array([0]), np.array([0.02])
    logs = np.array([2.0, 4.0, 2.0, 4.0]) * SCORE_STEPS  # typically 2 ** 3, and a deviation of one doubling
    state.base_scores[0] = logs.sum(), (logs**2).sum(), 4
    base._relieve(state, at, usual)
    assert state.base_relief[0] == pytest.approx(2 ** (3 + UPPER), rel=1e-3)
    for typical, fades in ((AS_USUAL * 0.02 * 1.1, False), (AS_USUAL * 0.02 * 0.9, True)):
        log, before = round(np.log2(typical) * SCORE_STEPS), float(state.base_relief[0])
        state.base_scores[0] = 5 * log, 5 * log**2, 5
        base._fade_out(state, at, usual)
        assert (state.base_relief[0] < before) == fades


def test_a_drift_beyond_its_limit_is_told_once() -> None:
    w = Watch(MOVING, drift_after=15.0, drift_limit=1.0)
    w.feed(w.quiet(30))
    ramp = w.quiet(200)
    ramp[:, 2] -= np.linspace(0, 2.5, 200)
    w.feed(ramp)
    assert w.told() == [(OPENED, DRIFT, None, ("c2",)), (RESOLVED, DRIFT, Ended.QUIET, ("c2",))]
    assert sum(w.alert["a"]) == 1
    assert w.engine.state.base_level[0, 2] == pytest.approx(-1), "it goes no further"
    assert w.events[0].data.severity is Severity.MINOR


def test_a_slow_drift_within_its_limit_is_followed_and_not_told() -> None:
    w = Watch(MOVING, drift_after=15.0, drift_limit=3.0)
    w.feed(w.quiet(30))
    ramp = w.quiet(300)
    ramp[:, 2] += np.linspace(0, 2.5, 300)
    w.feed(ramp)
    assert w.told() == []
    assert w.engine.state.base_level[0, 2] == pytest.approx(2.5, abs=0.4)


def test_a_drift_that_the_season_follows_is_told_once_and_can_be_accepted() -> None:
    """What is usual at this time of the day follows without a bound, and the scores with it."""
    season = Season(period_s=30, bins=6, decay=0.5)
    w = Watch(MOVING, tiny_model(span=1, streams=("a",), season=season), drift_after=1e6, drift_limit=3.0)
    w.feed(w.quiet(90))
    ramp = w.quiet(900)
    ramp[:, 2] += np.linspace(0, 8, 900)
    w.feed(ramp)
    assert w.told() == [(OPENED, DRIFT, None, ("c2",)), (RESOLVED, DRIFT, Ended.QUIET, ("c2",))]
    (c2,) = w.events[0].data.channels
    assert c2.observed == pytest.approx(3, abs=0.3)
    assert c2.expected == pytest.approx(0, abs=0.1)
    w.say("accept")
    assert w.engine.state.base_level[0].tolist() == pytest.approx([0, 0, 8], abs=0.5)
    w.feed(w.quiet(90, c2=8))
    assert len(w.events) == 2
    back = w.quiet(900, c2=8)
    back[:, 2] -= np.linspace(0, 8, 900)
    w.feed(back)
    assert [row[:2] for row in w.told()[2:]] == [(OPENED, DRIFT), (RESOLVED, DRIFT)], "it is another one now"


def test_a_fault_soon_after_a_shift_is_not_learned_sooner_than_any_other() -> None:
    w = shifted(flap_after=1000, trial_after=0.0)
    told = len(w.events)
    w.feed(w.quiet(LASTING // 2, c1=12, c2=9))
    w.feed(w.quiet(30, c1=12))
    assert [row[:3] for row in w.told()[told:]] == [(OPENED, ANOMALY, None), (RESOLVED, ANOMALY, Ended.QUIET)]
    assert w.engine.state.base_relief[0] == 1
    assert w.engine.state.base_level[0].tolist() == pytest.approx([0, 12, 0], abs=0.5)


# -- operators ---------------------------------------------------------------------------------------------------------


def test_what_an_operator_accepts_is_over_and_the_level() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    w.feed(w.quiet(20, c1=12))
    w.say("accept")
    assert w.told() == [(OPENED, ANOMALY, None, ("c1",)), (RESOLVED, ANOMALY, Ended.ACCEPTED, ("c1",))]
    assert (w.feed(w.quiet(30, c1=12)) < 1).all()
    assert not any(w.alert["a"][-30:])
    w.feed(w.quiet(5))
    assert w.told()[2:] == [(OPENED, ANOMALY, None, ("c1",))], "the level before is not"


def test_only_the_channels_that_are_meant_are_accepted() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    w.feed(w.quiet(20, c0=12, c1=12))
    w.say("accept", "a", "c0")
    w.feed(w.quiet(30, c0=12, c1=12))
    assert [row[0] for row in w.told()] == [OPENED, RESOLVED, OPENED]
    assert w.told()[-1][3] == ("c1",)


def test_a_stuck_channel_that_is_accepted_does_not_open_again_while_it_lasts() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(10))
    still = w.quiet(30)
    still[:, 0] = 0.01
    w.feed(still[:20])
    w.say("accept")
    w.feed(still[20:])
    assert w.told() == [(OPENED, Kind.STUCK, None, ("c0",)), (RESOLVED, Kind.STUCK, Ended.ACCEPTED, ("c0",))]
    w.feed(w.quiet(10))
    w.feed(still)
    assert w.told()[2:] == [(OPENED, Kind.STUCK, None, ("c0",))]


def test_what_an_operator_confirms_never_becomes_the_baseline() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    w.feed(w.quiet(20, c1=12))
    w.say("confirm")
    w.feed(w.quiet(4 * LASTING, c1=12))
    assert w.told() == [(OPENED, ANOMALY, None, ("c1",)), (UPDATED, ANOMALY, None, ("c1",))]
    assert w.open
    w.feed(w.quiet(10))
    assert w.told()[2:] == [(RESOLVED, ANOMALY, Ended.QUIET, ("c1",))]
    count = len(w.events)
    w.feed(w.quiet(20))
    w.feed(w.quiet(LASTING + 2 * TURN, c1=12))
    assert [row[1] for row in w.told()[count:]] == [ANOMALY, SHIFT, SHIFT], "the next one may again"


def test_what_is_confirmed_while_it_is_re_baselined_is_taken_back() -> None:
    w = Watch(MOVING, quiet=40)
    w.feed(w.quiet(30))
    while not any(e.data.kind is SHIFT for e in w.events):
        w.feed(w.quiet(1, c1=12))
    w.say("confirm")
    w.feed(w.quiet(4 * LASTING, c1=12))
    assert [row[:3] for row in w.told()] == [
        (OPENED, ANOMALY, None),
        (UPDATED, SHIFT, None),
        (UPDATED, ANOMALY, None),
    ]
    assert w.open


@pytest.mark.parametrize("settled", [False, True])
def test_what_is_confirmed_after_it_was_re_baselined_is_taken_back(settled: bool) -> None:
    w = shifted()
    w.feed(w.quiet(2 * TRIAL if settled else TURN, c1=12))
    w.say("confirm")
    assert len(w.told()) == 3, "nothing is open about which more could be said"
    score = w.feed(w.quiet(4 * LASTING, c1=12))
    assert w.told()[3:] == [(OPENED, ANOMALY, None, ("c1",))]
    assert (score > 1).all()
    w.feed(w.quiet(20))
    assert w.told()[4:] == [(RESOLVED, ANOMALY, Ended.QUIET, ("c1",))]


def test_what_is_confirmed_of_a_stream_that_is_well_holds_nothing_back_for_good() -> None:
    w = shifted()
    w.feed(w.quiet(30))
    w.say("confirm")
    w.feed(w.quiet(4 * TURN))
    assert w.engine.state.base_hold[0] == 0
    count = len(w.events)
    w.feed(w.quiet(LASTING + 2 * TURN, c1=12))
    assert [row[1] for row in w.told()[count:]] == [ANOMALY, SHIFT, SHIFT]


# -- sensors that break ------------------------------------------------------------------------------------------------

LIMITED = tiny_model(
    span=1,
    streams=("a", "b", "c"),
    known=(
        Channel(name="c0", unit="°C", stuck_after=5, missing_after=4, lowest=-2, highest=2),
        Channel(name="c1", stuck_after=5, missing_after=4),
        Channel(name="c2", stuck_after=0, missing_after=4),
    ),
)


def test_a_stuck_channel() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(10))
    still = w.quiet(20)
    still[:, 1:] = 0.01  # c2 may stay as it is
    w.feed(still)
    w.feed(w.quiet(10))
    assert w.told() == [(OPENED, Kind.STUCK, None, ("c1",)), (RESOLVED, Kind.STUCK, Ended.QUIET, ("c1",))]
    assert (seconds(w.events[0].data.began), seconds(w.events[0].data.opened)) == (1010, 1015)
    assert w.alert["a"] == [False] * 15 + [True] * 17 + [False] * 8


def test_a_missing_channel_is_back_with_its_first_value() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(10))
    gone = w.quiet(20)
    gone[:, 2] = np.nan
    w.feed(gone)
    w.feed(w.quiet(10))
    assert w.told() == [(OPENED, Kind.MISSING, None, ("c2",)), (RESOLVED, Kind.MISSING, Ended.QUIET, ("c2",))]
    assert w.events[0].data.channels[0].observed is None
    assert w.alert["a"] == [False] * 14 + [True] * 16 + [False] * 10


def test_a_second_channel_goes_missing() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(10))
    gone = w.quiet(30)
    gone[:, 2] = np.nan
    gone[15:, 0] = np.nan
    w.feed(gone)
    told = w.told()
    assert [row[:2] for row in told] == [(OPENED, Kind.MISSING), (UPDATED, Kind.MISSING)]
    assert set(told[1][3]) == {"c0", "c2"}


def test_a_channel_out_of_range() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(10))
    w.feed(w.quiet(1, c0=2.4))
    w.feed(w.quiet(5))
    assert w.told() == [], "one reading is an accident"
    w.feed(w.quiet(5, c0=2.4))
    w.feed(w.quiet(10))
    assert w.told() == [(OPENED, Kind.RANGE, None, ("c0",)), (RESOLVED, Kind.RANGE, Ended.QUIET, ("c0",))]
    opened = w.events[0].data
    assert opened.severity is Severity.MAJOR
    assert opened.channels[0].observed == pytest.approx(2.4, abs=0.2)
    assert "2" in opened.summary
    assert "°C" in opened.summary
    assert sum(w.alert["a"]) == 4 + 4


def test_a_clock_set_back() -> None:
    w = Watch(model=LIMITED)
    w.feed(w.quiet(30))
    now = w.now
    w.feed(w.quiet(10), times=range(now - 20, now - 10))
    assert w.told() == [(OPENED, Kind.CLOCK, None, ())]
    w.feed(w.quiet(5), times=range(now, now + 5))
    assert w.told() == [(OPENED, Kind.CLOCK, None, ()), (RESOLVED, Kind.CLOCK, Ended.QUIET, ())]
    assert w.alert["a"] == [False] * 34 + [True] * 6 + [False] * 5


def test_a_silent_stream() -> None:
    w = Watch(silent_after=15)
    steps = np.arange(1000, 1120)
    names = [name for step in steps for name in "abc" if name != "a" or not 1040 <= step < 1080]
    times = np.array([step for step in steps for name in "abc" if name != "a" or not 1040 <= step < 1080])
    w.take([Readings(0, names, times * SECOND_NS, w.quiet(len(names)))])
    assert w.told() == [(OPENED, Kind.SILENT, None, ()), (RESOLVED, Kind.SILENT, Ended.QUIET, ())]
    opened, back = w.events
    assert (opened.subject, seconds(opened.data.began)) == ("a", 1039)
    assert 15 <= seconds(opened.time) - 1039 <= 17
    assert 1079 <= seconds(back.time) <= 1081
    assert not any(w.alert["b"])


def test_several_kinds_are_open_at_one_stream_at_once() -> None:
    w = Watch(model=LIMITED, silent_after=0)
    w.feed(w.quiet(30))
    rows = w.quiet(20, c0=40)
    rows[:, 1], rows[:, 2] = 0.01, np.nan
    w.feed(rows)
    now = w.now
    w.feed(w.quiet(6), times=range(now - 20, now - 14))
    kinds = {e.data.kind for e in w.events}
    assert kinds == {ANOMALY, Kind.STUCK, Kind.MISSING, Kind.RANGE, Kind.CLOCK}
    assert len({e.data.incident for e in w.events}) == 5
    assert w.engine.open_incidents == 5
    w.feed(w.quiet(20), times=range(now, now + 20))
    assert {row[1] for row in w.told() if row[0] == RESOLVED} == kinds
    assert not w.open


# -- images ------------------------------------------------------------------------------------------------------------

FRAME = Frame(4, 5, 1)


def pictures(w: Watch, count: int, spot: float = 0) -> NDArray[np.float32]:
    """``[count, H · W]``, a spot in row 1, column 3."""
    images = w._rng.normal(0, 0.3, (count, 4, 5))
    images[:, 1, 3] += spot
    return images.reshape(count, 20).astype(np.float32)


def test_an_image_says_where() -> None:
    w = Watch(model=tiny_image_model(FRAME))
    w.feed(pictures(w, 20))
    w.feed(pictures(w, 4, 9))
    w.feed(pictures(w, 10))
    assert w.told() == [(OPENED, ANOMALY, None, ("grey",)), (RESOLVED, ANOMALY, Ended.QUIET, ("grey",))]
    image = w.events[0].data.image
    assert image is not None
    assert (image.x, image.y) == (3, 1)
    assert image.map
    assert sum(w.alert["a"]) == 5


def test_what_lasts_in_an_image_is_relieved() -> None:
    w = Watch(MOVING, tiny_image_model(FRAME))
    w.feed(pictures(w, 20))
    w.feed(pictures(w, LASTING + 2 * TURN, 9))
    assert [row[:3] for row in w.told()] == [
        (OPENED, ANOMALY, None),
        (UPDATED, SHIFT, None),
        (RESOLVED, SHIFT, Ended.REBASELINED),
    ]
    assert w.engine.state.base_relief[0] > 1
    w.feed(pictures(w, 2 * TRIAL, 9))
    assert len(w.events) == 3
    w.feed(pictures(w, 5, 60))
    assert [row[0] for row in w.told()[3:]] == [OPENED], "a spot much brighter than that is still told"


def test_a_level_is_accepted_with_its_first_readings() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    while not w.events:
        w.feed(w.quiet(1, c1=12))
    w.say("accept")
    w.feed(w.quiet(2 * LASTING, c1=12))
    assert [row[:3] for row in w.told()] == [(OPENED, ANOMALY, None), (RESOLVED, ANOMALY, Ended.ACCEPTED)]
    assert w.engine.state.base_level[0].tolist() == pytest.approx([0, 12, 0], abs=0.5)
    assert w.engine.state.base_relief[0] == 1


def test_noise_that_is_accepted_is_a_spread_and_no_level() -> None:
    w = Watch(MOVING, tiny_model(window=8, span=1, streams=("a",)))
    w.feed(w.quiet(30))
    w.feed(scattered(w, 20, 12))
    w.say("accept")
    told = len(w.events)
    w.feed(scattered(w, 2 * LASTING, 12))
    assert len(w.events) == told
    assert w.engine.state.base_level[0].tolist() == [0, 0, 0]
    assert w.engine.state.base_spread[0].tolist() == pytest.approx([1, 1, 12], rel=0.1)


def test_a_confirmed_fault_that_comes_back_at_once_is_not_learned() -> None:
    w = Watch(MOVING, flap_after=1000)
    w.feed(w.quiet(30))
    w.feed(w.quiet(10, c1=12))
    w.say("confirm")
    w.feed(w.quiet(7))
    assert not w.open
    w.feed(w.quiet(2 * LASTING, c1=12))
    assert not any(e.data.kind is SHIFT for e in w.events)
    assert w.engine.state.base_level[0].tolist() == pytest.approx([0, 0, 0], abs=0.1)


def test_a_wild_reading_among_those_accepted_is_no_spread() -> None:
    w = Watch(MOVING, tiny_model(window=8, span=1, streams=("a",)), trial_after=0.0)
    w.feed(w.quiet(30))
    w.feed(w.quiet(1, c1=-9999))
    w.feed(w.quiet(2, c0=9, c1=0))
    w.feed(w.quiet(6, c0=9))
    w.say("accept")
    assert w.engine.state.base_spread[0].tolist() == [1, 1, 1]
    assert w.engine.state.base_level[0].tolist() == pytest.approx([9, 0, 0], abs=0.2)
    told = len(w.events)
    w.feed(w.quiet(20, c0=9))
    assert len(w.events) == told
    w.feed(w.quiet(5, c0=9, c1=9))
    assert w.open


def test_a_stream_never_seen_does_not_drift_by_being_another() -> None:
    season = Season(period_s=30, bins=6, decay=0.5)
    w = Watch(MOVING, tiny_model(span=1, streams=("a",), season=season), drift_after=1e6, drift_limit=3.0)
    w.feed(w.quiet(120, c0=4), "never seen")
    assert not any(e.data.kind is DRIFT for e in w.events)


def test_an_image_that_is_accepted() -> None:
    w = Watch(MOVING, tiny_image_model(FRAME))
    w.feed(pictures(w, 20))
    w.feed(pictures(w, 10, 9))
    w.say("accept")
    w.feed(pictures(w, 30, 9))
    assert [row[:3] for row in w.told()] == [(OPENED, ANOMALY, None), (RESOLVED, ANOMALY, Ended.ACCEPTED)]


def test_a_wild_image_that_is_accepted_does_not_blind_its_stream() -> None:
    w = Watch(MOVING, tiny_image_model(FRAME))
    w.feed(pictures(w, 20))
    w.feed(pictures(w, 3, 1e30))
    w.say("accept")
    assert w.engine.state.base_relief[0] == MOST_RELIEF
    w.feed(pictures(w, 20))
    w.feed(pictures(w, 4, 1e5))
    assert [row[0] for row in w.told()] == [OPENED, RESOLVED, OPENED]


def test_a_wild_value_is_told_like_any_other() -> None:
    w = Watch()
    w.feed(w.quiet(20))
    w.feed(w.quiet(6, c1=1e25, c2=-1e25))
    w.feed(w.quiet(10))
    assert w.told()[0] == (OPENED, ANOMALY, None, ("c1", "c2"))
    assert w.told()[1][0] == RESOLVED, "there is nothing worse"
    assert [c.share for c in w.events[0].data.channels[:2]] == [0.5, 0.5]


def test_a_channel_that_shifts_the_same_way_twice_drifts() -> None:
    w = Watch(MOVING)
    w.feed(w.quiet(30))
    w.feed(w.quiet(LASTING + 2 * TURN, c1=12))
    w.feed(w.quiet(2 * TRIAL, c1=12))
    assert not any(e.data.kind is Kind.DRIFT for e in w.events)
    w.feed(w.quiet(LASTING + 2 * TURN, c1=24))
    drifts = [e for e in w.events if e.data.kind is Kind.DRIFT]
    assert [e.type for e in drifts] == [EventType.OPENED, EventType.RESOLVED]
    (c1,) = drifts[0].data.channels
    assert (c1.name, c1.observed, c1.expected) == ("c1", pytest.approx(24, abs=0.5), pytest.approx(0, abs=0.1))
    w.feed(w.quiet(2 * TRIAL, c1=24))
    w.feed(w.quiet(LASTING + 2 * TURN, c1=36))
    assert sum(e.data.kind is Kind.DRIFT for e in w.events) == 2, "told once"
