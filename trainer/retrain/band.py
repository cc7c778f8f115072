"""The band: how many incidents a version may open, once it serves, before it is taken back.

What a promise lets expect is known, so what is far beyond it is no chance. It is counted in event time, from where the
version's own contest ended: all that came later came to a model that had not seen it. Incidents that an operator
confirmed are no false alarms. Decided by the nightly run, which has everything in view, never by a replica.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import poisson

from detector.engine.model import Model
from schemas.alert import EventType
from schemas.contest import Contest
from schemas.feedback import Verdict
from schemas.moment import SECOND_NS, parse_time
from schemas.promise import DAY_S
from trainer.retrain.past import Past
from trainer.retrain.promised import promised_rate

#: So many incidents, or more, come by chance less often than this.
CHANCE = 0.001


@dataclass(frozen=True)
class Band:
    """What a version has done since it serves."""

    episodes: int
    """Incidents that it opened, without those that were confirmed."""
    stream_days: float
    days: float
    """Of event time, of the stream that was watched longest."""
    promised: float
    """Episodes that its promise lets expect in that time."""

    @property
    def left(self) -> bool:
        """So many are no chance."""
        return bool(self.episodes > 0 and poisson.sf(self.episodes - 1, max(self.promised, 1e-9)) < CHANCE)

    def __str__(self) -> str:
        return (
            f"{self.episodes} incidents in {self.stream_days:.1f} stream-days since it serves, {self.promised:.1f} are "
            "promised"
        )


def band_of(model: Model, contest: Contest, past: Past) -> Band:
    """What a version, promoted after this contest, has done since."""
    since = parse_time(contest.end)
    confirmed = {one.incident for one in past.incidents if one.verdict is Verdict.CONFIRMED}
    episodes = sum(
        alert.type is EventType.OPENED
        and alert.data.model == model.manifest.graph_sha256
        and parse_time(alert.time) > since
        and alert.data.incident not in confirmed
        for alert in past.alerts
    )
    times = past.readings.times
    later = int((times > since).sum())
    stream_days = later * model.manifest.interval_s / DAY_S
    rate = promised_rate(model)
    days = max(int(times.max()) - since, 0) / SECOND_NS / DAY_S
    return Band(episodes, stream_days, days, rate * stream_days)
