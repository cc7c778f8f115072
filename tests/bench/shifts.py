"""What becomes of streams that move: level shifts, wider noise, drifts, and a shift that goes back.

    python tests/bench/shifts.py [--sets generated,asd,smd] [--seeds 1] [--streams 24] [--model pca] [--data DIR]

Into normal readings that follow those which were learned from, one channel's move is planted, and later two faults, one
in another channel and one in the same. The same is watched by an engine whose baselines do not move.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from bench.proving import Event, Floats, Ground, Played, generated, play, real  # noqa: E402

from detector.engine.incidents import Policy  # noqa: E402
from schemas.alert import EventType, Kind  # noqa: E402

#: The engine with its baselines, and without.
POLICIES = {"moving": Policy(), "fixed": Policy(shift_after=0, drift_after=0)}

#: A fault: standard deviations, days.
FAULT, FAULT_DAYS = 6.0, 3 / 24

#: Days from a move: an incident that opens in the first is about it; those of the next three are false alarms.
ABOUT, CLEAN = 1.0, 4.0

#: Days of watching that are needed before the move and, in all, after it.
BEFORE, AFTER = 0.5, 5.2

#: Cases of a real series: its channels, evenly.
VARIANTS = 4

Plant = Callable[[Floats, float, float, int], None]
"""Into readings ``[n]`` of a channel from its move on: by ``sd``, up or down (1, -1), readings of a day."""


@dataclass(frozen=True)
class Scenario:
    """A move, and when two faults follow, days after it."""

    name: str
    plant: Plant
    faults: tuple[float, float] = (CLEAN, CLEAN + 0.8)
    about: float = ABOUT
    """Days in which what opens is about the move."""


def step(size: float, days: float | None = None) -> Plant:
    """A level shift, for some days or for good."""

    def plant(values: Floats, sd: float, sign: float, day: int) -> None:
        values[: None if days is None else round(days * day)] += sign * size * sd

    return plant


def wider(times: float) -> Plant:
    """Noise that many times as wide, about the channel's rhythm (the mean of its days at that time)."""

    def plant(values: Floats, sd: float, sign: float, day: int) -> None:
        usual = np.array([np.nanmean(values[at::day]) for at in range(day)])
        around = np.resize(
            np.convolve(np.concatenate([usual, usual, usual]), np.ones(13) / 13, "same")[day:-day], len(values)
        )
        values[:] = around + times * (values - around)

    return plant


def ramp(per_day: float, days: float) -> Plant:
    """A drift that then stays where it got."""

    def plant(values: Floats, sd: float, sign: float, day: int) -> None:
        values += sign * sd * per_day * np.minimum(np.arange(len(values)) / day, days).astype(np.float32)

    return plant


NOTHING = "nothing"
STEPS = (
    Scenario(NOTHING, step(0)),
    Scenario("shift 2 sd", step(2)),
    Scenario("shift 10 sd", step(10)),
    Scenario("shift 80 sd", step(80)),
    Scenario("noise x4", wider(4)),
    Scenario("10 sd for 12 h", step(10, 0.5)),
    Scenario("10 sd, faults soon", step(10), (0.75, 1.0), 0.75),
)


def drifts(days: float) -> tuple[Scenario, ...]:
    """Drifts, and faults after them."""
    faults = (days + 0.5, days + 1.0)
    return (
        Scenario(NOTHING, step(0), faults, days),
        Scenario("drift 0.5 sd/day", ramp(0.5, days), faults, days),
        Scenario("drift 2 sd/day", ramp(2, days), faults, days),
    )


@dataclass(frozen=True)
class Case:
    """One move of one channel of one stream."""

    at: int
    """Its first reading, from the start of watching."""
    stream: int
    channel: int
    other: int
    """Where the first fault is."""
    sign: float


@dataclass
class Seen:
    """What was seen of a scenario: a number a case."""

    about: list[int] = field(default_factory=list)
    shifts: list[bool] = field(default_factory=list)
    """Of those that were noticed: the last incident ended as a shift."""
    delay: list[float] = field(default_factory=list)
    """Minutes, of those noticed."""
    again: list[float] = field(default_factory=list)
    """Readings until the last incident about it is over, infinite where it is not, of those noticed."""
    alarmed: list[float] = field(default_factory=list)
    """Share of readings under alarm, of the time that is about it (a drift) or after it (else)."""
    false: list[int] = field(default_factory=list)
    other: list[bool] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    drift: list[int] = field(default_factory=list)
    """Drift events."""
    level: list[float] = field(default_factory=list)
    """Standard deviations that the channel's level has moved at the end, in the direction of the move."""
    others: list[float] = field(default_factory=list)
    """The same of the other channel that moved most."""


def cases(ground: Ground, normal: NDArray[np.bool_], after: float, variants: int) -> list[list[Case]]:
    """A case of each stream in each of some copies; at calm places: where ``normal`` ``[M, S]`` was under alarm least,
    of ten places evenly spread over those that leave ``after`` days.
    """
    day, M = ground.day, len(ground.watched)
    first, last = round(BEFORE * day), M - round(after * day)
    if last < first:
        raise ValueError(f"{ground.name}: too short: {M / day:.1f} days to watch, {BEFORE + after:g} needed")
    found = []
    for variant in range(variants):
        copy = []
        for s in range(len(ground.names)):
            number = variant + s
            places = np.linspace(first, last, 10).astype(int).tolist()
            places = places[number % 10 :] + places[: number % 10]
            at = min(places, key=lambda p: normal[p : p + round(after * day), s].mean())
            moving = ground.moving
            which = (number if variants == 1 else variant * len(moving) // variants + s) % len(moving)
            other = moving[(which + len(moving) // 2) % len(moving)]
            copy.append(
                Case(int(at), s, int(moving[which]), int(other), 1.0 if number // len(moving) % 2 == 0 else -1.0)
            )
        found.append(copy)
    if variants > 1:  # both directions of real channels
        found = [[Case(c.at, c.stream, c.channel, c.other, (-1.0) ** v) for c in copy] for v, copy in enumerate(found)]
    return found


def planted(ground: Ground, scenario: Scenario, copy: Sequence[Case]) -> Floats:
    """What is watched, with a move in each stream and the faults after it."""
    values = ground.watched.copy()
    day = ground.day
    for case in copy:
        sd = float(ground.sd[case.stream, case.channel])
        scenario.plant(values[case.at :, case.stream, case.channel], sd, case.sign, day)
        for after, channel in zip(scenario.faults, (case.other, case.channel), strict=True):
            begin = case.at + round(after * day)
            rows = slice(begin, begin + round(FAULT_DAYS * day))
            values[rows, case.stream, channel] += FAULT * ground.sd[case.stream, channel] * case.sign
    return values


def judge(ground: Ground, scenario: Scenario, played: Played, k: int, copy: Sequence[Case], seen: Seen) -> None:
    """What the copy ``k`` says of a scenario."""
    day = ground.day
    levels = played.level(k, ground.names) / np.where(ground.sd > 0, ground.sd, np.inf)
    for case in copy:
        events = played.events[k, case.stream]
        alert = played.alert[k, :, case.stream]
        opened = [e for e in events if e.type is EventType.OPENED and e.row >= case.at]
        edge = case.at + round(scenario.about * day)
        about = [e for e in opened if e.row < edge and e.kind is Kind.ANOMALY]
        clean = case.at + round(scenario.faults[0] * day)
        seen.about.append(len(about))
        seen.drift.append(sum(e.kind is Kind.DRIFT and e.row < clean for e in opened))
        if about:
            ends = [_end(events, e.incident) for e in about]
            shift = [e for e in events if e.incident == about[-1].incident and e.kind is Kind.SHIFT]
            seen.shifts.append(bool(shift))
            seen.delay.append((about[0].row - case.at) * 1440 / day)
            seen.again.append(max(ends) - case.at)
        drifting = scenario.about > ABOUT
        rows = slice(case.at, edge) if drifting else slice(edge, clean)
        seen.alarmed.append(float(alert[rows].mean()) if clean > edge else np.nan)
        seen.false.append(sum(edge <= e.row < clean for e in opened))
        for after, caught in zip(scenario.faults, (seen.other, seen.same), strict=True):
            begin = case.at + round(after * day)
            caught.append(any(begin <= e.row < begin + round(FAULT_DAYS * day) for e in opened))
        level = case.sign * levels[case.stream]
        seen.level.append(float(level[case.channel]))
        seen.others.append(float(np.abs(np.delete(level, case.channel)).max()))


def _end(events: Sequence[Event], incident: str) -> float:
    over = [e.row for e in events if e.incident == incident and e.type is EventType.RESOLVED]
    return over[0] if over else np.inf


def measured(
    grounds: Sequence[Ground], scenarios: Sequence[Scenario], policy: Policy, variants: int, after: float
) -> dict[str, Seen]:
    """Watch each ground once with all scenarios."""
    seen = {scenario.name: Seen() for scenario in scenarios}
    for ground in grounds:
        normal = play(ground, [ground.watched]).alert[0]
        chosen = cases(ground, normal, after, variants)
        work = [(scenario, copy) for scenario in scenarios for copy in chosen]
        played = play(ground, [planted(ground, scenario, copy) for scenario, copy in work], policy)
        for k, (scenario, copy) in enumerate(work):
            judge(ground, scenario, played, k, copy, seen[scenario.name])
    return seen


# The tables

HEADER = (
    f"{'set':9} {'baselines':9} {'planted':18} {'cases':>5} {'noticed':>7} {'one':>5} {'shift':>5} {'delay':>6} "
    f"{'again':>6} {'90 %':>6} {'never':>5} {'alarmed':>7} {'false':>5} {'other':>6} {'same':>6} {'level':>6} "
    f"{'rest':>5}"
)
DRIFTS = (
    f"{'set':9} {'baselines':9} {'planted':18} {'cases':>5} {'drift':>6} {'events':>6} {'anomalies':>9} "
    f"{'alarmed':>7} {'other':>6} {'same':>6} {'level':>6} {'rest':>5}"
)
EXPLAINED = f"""
Of moves that were noticed (an incident opened within a day): one: by a single incident; shift: the last one became a
shift; delay: minutes until it opened, median; again: readings until the last was over and the stream watched again,
median and 90 % point; never: not by the end. Of all: alarmed: readings under alarm in the three days after that day;
false: incidents that opened in them, per week; other, same: planted faults ({FAULT:g} sd, 3 h) after them, in another
and in the same channel, in which an incident opened; level: standard deviations that the baseline has moved at
the end, mean; rest: the most that another channel's has, mean. Of drifts: share of cases with a drift event, events and
anomalies per case, readings under alarm while it lasts. sd: of generated data that of the noise, of real data that of
the channel in what was learned from. "{NOTHING}": the same without a move."""


def line(label: str, policy: str, name: str, seen: Seen, clean_days: float) -> str:
    """A row about a shift."""
    about = np.array(seen.about)
    noticed = about > 0
    again = np.array(seen.again)
    some = len(again) > 0
    false = np.mean(seen.false) * 7 / clean_days if clean_days > 0 else np.nan
    return (
        f"{label:9} {policy:9} {name:18} {len(about):5} {noticed.mean():7.0%} "
        f"{_share(about[noticed] == 1):>5} {_share(seen.shifts):>5} {np.median(seen.delay) if some else np.nan:6.0f} "
        f"{np.median(again) if some else np.nan:6.0f} "
        f"{np.quantile(again, 0.9, method='higher') if some else np.nan:6.0f} {int(np.isinf(again).sum()):5} "
        f"{np.mean(seen.alarmed):7.1%} {false:5.2f} "
        f"{_share(seen.other):>6} {_share(seen.same):>6} {np.mean(seen.level):6.1f} {np.mean(seen.others):5.1f}"
    )


def drift_line(label: str, policy: str, name: str, seen: Seen) -> str:
    """A row about a drift."""
    drift = np.array(seen.drift)
    return (
        f"{label:9} {policy:9} {name:18} {len(drift):5} {_share(drift > 0):>6} {drift.mean():6.2f} "
        f"{np.mean(seen.about):9.2f} {np.mean(seen.alarmed):7.1%} {_share(seen.other):>6} {_share(seen.same):>6} "
        f"{np.mean(seen.level):6.1f} {np.mean(seen.others):5.1f}"
    )


def _share(of: Sequence[bool] | NDArray[np.bool_]) -> str:
    return f"{np.mean(of):.0%}" if len(of) else "-"


def grounds_of(given: argparse.Namespace) -> Iterator[tuple[str, list[Ground], int, float]]:
    """Each set: its name, its grounds, copies of each scenario, days of drift."""
    for name in given.sets:
        if name == "generated":
            yield name, [generated(given.streams, seed=seed, model=given.model) for seed in range(given.seeds)], 1, 10.0
        elif not given.data.is_dir():
            print(f"{name}: no data at {given.data}: name its folder with --data", file=sys.stderr)
        else:
            folders = sorted(path for path in (given.data / name).iterdir() if path.is_dir())
            yield name, [real(folder, model=given.model) for folder in folders], VARIANTS, 8.0 if name == "asd" else 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["generated", "asd", "smd"], metavar="A,B")
    parser.add_argument("--policies", type=lambda text: text.split(","), default=list(POLICIES), metavar="A,B")
    parser.add_argument("--seeds", type=int, default=1, help="of generated data")
    parser.add_argument("--streams", type=int, default=24, help="of generated data")
    parser.add_argument("--model", default="pca")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR")
    given = parser.parse_args(arguments)
    drifting = []
    print(HEADER, flush=True)
    for label, grounds, variants, days in grounds_of(given):
        for policy in given.policies:
            for name, seen in measured(grounds, STEPS, POLICIES[policy], variants, AFTER).items():
                clean = next(s.faults[0] - s.about for s in STEPS if s.name == name)
                print(line(label, policy, name, seen, clean), flush=True)
            found = measured(grounds, drifts(days), POLICIES[policy], variants, days + 1.5)
            drifting += [drift_line(label, policy, f"{name}", seen) for name, seen in found.items()]
    print("\n" + DRIFTS)
    print(*drifting, EXPLAINED, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
