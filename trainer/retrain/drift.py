"""Drift: whether the newest day of each stream is still distributed as the days before it.

Each channel, and the champion's scores, by the two-sample test of Kolmogorov and Smirnov (``scipy.stats.ks_2samp``). It
takes readings for independent, and neighbours are alike: so it is given the medians of hours. A small change is found
in much data, and matters to nobody: a distance of ``LEAST`` is asked for, too. What was an incident, silenced or
planned does not count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from detector.adapters.files import Table
from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_events import publish_events
from detector.adapters.kafka_security import client_settings
from detector.engine.engine import Engine
from detector.engine.model import Model
from schemas.drift import Drift
from schemas.moment import SECOND_NS, format_time
from schemas.promise import DAY_S
from trainer.data import rows_by_stream
from trainer.retrain.settings import RetrainSettings
from trainer.retrain.trim import STILL, scores_of

DAY_NS, HOUR_NS = round(DAY_S * SECOND_NS), 3600 * SECOND_NS

#: Least distance of the distributions, and by chance of all tests together.
LEAST, CHANCE = 0.6, 0.001

#: Hours on either side below which nothing is said.
HOURS = 12

Doubles = NDArray[np.float64]


def drifts(table: Table, champion: Model, group: str) -> list[Drift]:
    """What of normal readings has drifted, in the newest day of the table."""
    end = int(table.times.max())
    start = end - DAY_NS
    engine = Engine(champion, STILL)
    found: list[Drift] = []
    tests = len(rows_by_stream(table)) * (len(table.channels) + 1)
    for stream, rows in rows_by_stream(table).items():
        ordered = rows[np.argsort(table.times[rows], kind="stable")]
        times, score = table.times[ordered], scores_of(engine, stream, table, ordered)
        columns = [*zip(table.channels, table.values[ordered].T, strict=True), (None, score)]
        for channel, values in columns:
            then, now = _hours(times, values, times <= start), _hours(times, values, times > start)
            if min(len(then), len(now)) < HOURS:
                continue
            test = ks_2samp(then, now)
            if test.statistic >= LEAST and test.pvalue * tests < CHANCE and _matters(channel, then, now):
                found.append(Drift(
                    group=group, stream=stream, channel=channel, start=format_time(start), end=format_time(end),
                    statistic=float(test.statistic), p_value=float(test.pvalue),
                    was=float(np.median(then)), now=float(np.median(now)),
                ))  # fmt: skip
    return found


def _matters(channel: str | None, then: Doubles, now: Doubles) -> bool:
    """Scores that became smaller are no reason to learn anew."""
    return channel is not None or float(np.median(now)) > float(np.median(then))


def _hours(times: NDArray[np.int64], values: NDArray[np.floating], which: NDArray[np.bool_]) -> Doubles:
    """Medians of the hours of these readings; hours without a value are left out."""
    hours, chosen = times[which] // HOUR_NS, values[which].astype(np.float64)
    if not len(chosen):
        return np.empty(0)
    starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # hours without a value
        medians = np.array([np.nanmedian(part) for part in np.split(chosen, starts[1:])])
    known: Doubles = medians[~np.isnan(medians)]
    return known


def tell(found: list[Drift], settings: RetrainSettings, say: Callable[[str], None]) -> None:
    """Publish and say what has drifted. Raises the errors of ``publish_events``."""
    for line in in_words(found):
        say(line)
    clients = Clients(settings.bootstrap_servers, "residual-drift", client_settings(settings))
    events = [(one.stream.encode(), one.to_bytes()) for one in found]
    publish_events(clients, settings.drift_topic, events, settings.startup_timeout)


def in_words(found: list[Drift]) -> Iterator[str]:
    """One line each."""
    for one in found:
        what = f"channel {one.channel} of {one.stream}" if one.channel is not None else f"the scores of {one.stream}"
        yield f"drift: {what} went from {one.was:.4g} to {one.now:.4g} in the newest day (distance {one.statistic:.2f})"
