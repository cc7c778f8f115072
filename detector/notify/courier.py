"""Takes parcels to one place: not too many a minute, again after a while where it is not now, aside where never."""

from __future__ import annotations

import logging
from collections.abc import Callable

from detector.adapters.http_post import NotNowError, RefusedError
from detector.notify.desk import Desk
from detector.notify.ledger import Parcel
from detector.notify.sinks import Sink

log = logging.getLogger(__name__)

#: Seconds before it is tried again, at first and at most; twice as long each time.
FIRST_S, LONGEST_S = 1.0, 60.0

#: Requests of one round: what came of them is then committed.
ROUND = 20


class Courier:
    """Of one place. ``rate``: requests a minute; ``give_up_s``: what is older is set aside.

    ``aside``: called with (parcel, reason, why) of what will never be taken.
    """

    def __init__(self, sink: Sink, rate: int, give_up_s: float, aside: Callable[[Parcel, str, str], None]) -> None:
        self.sink, self._rate, self._give_up_s, self._aside = sink, rate, give_up_s, aside
        self._tokens, self._filled = float(rate), 0.0
        self._pause_s, self._not_before = 0.0, 0.0
        self.delivered = self.failed = 0

    def carry(self, desk: Desk, now: float) -> bool:
        """What is due; True where it brought something, or set it aside."""
        moved = False
        for _ in range(ROUND):
            numbers = desk.pending(self.sink.name)
            if not numbers or now < self._not_before or not self._may(now):
                break
            moved |= self._bring(desk, numbers[: self.sink.batch], now)
        return moved

    def _may(self, now: float) -> bool:
        """Whether a request may be made; takes a token (token bucket, filled over a minute)."""
        if self._filled:
            self._tokens = min(self._tokens + max(now - self._filled, 0.0) * self._rate / 60, float(self._rate))
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _bring(self, desk: Desk, numbers: list[int], now: float) -> bool:
        parcels = [desk.parcels[number] for number in numbers]
        try:
            self.sink.deliver([parcel.notice for parcel in parcels])
        except RefusedError as error:
            if len(numbers) > 1:  # one of them is to blame
                self._tokens += 1
                brought = [self._bring(desk, [number], now) for number in numbers]
                return any(brought)
            self._give_away(desk, numbers[0], "refused", str(error))
            return True
        except NotNowError as error:
            self._wait(error, now)
            old = [number for number, one in zip(numbers, parcels, strict=True) if now - one.since > self._give_up_s]
            for number in old:
                self._give_away(desk, number, "given up", str(error))
            return bool(old)
        self._pause_s = 0.0
        self.delivered += len(numbers)
        for number in numbers:
            desk.delivered(number, self.sink.name)
        return True

    def _wait(self, error: NotNowError, now: float) -> None:
        self.failed += 1
        self._pause_s = min(max(2 * self._pause_s, FIRST_S), LONGEST_S)
        self._not_before = now + max(self._pause_s, min(error.after_s, 10 * LONGEST_S))
        log.warning("%s: %s; again in %.0f s", self.sink.name, error, self._not_before - now)

    def _give_away(self, desk: Desk, number: int, reason: str, why: str) -> None:
        parcel = desk.parcels[number]
        log.error("%s: %s (%s): %s", self.sink.name, reason, why, parcel.notice.summary)
        self._aside(parcel, reason, why)
        desk.delivered(number, self.sink.name)
