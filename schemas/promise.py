"""The promise to who is on call: how many false-alarm episodes a stream, or all of them together, may have per time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from schemas.moment import parse_duration

#: Seconds of a day: rates of episodes are per stream and day.
DAY_S = 86_400.0

DEFAULT = "1/7d"

_FLEET = "fleet:"
_WRITTEN = re.compile(r"([^/]*)/([^/]*)")
_HOW = "write N/DURATION such as 1/7d or 2/12h (for each stream) or fleet:5/1d (for all together)"

#: One episode in this many years at least, and one in this many seconds at most: what lies beyond is a slip.
_RAREST_S, _COMMONEST_S = 1000 * 365.25 * DAY_S, 1.0


@dataclass(frozen=True)
class Promise:
    """``count`` episodes in ``period_s`` seconds, of each stream or of the whole fleet."""

    count: float
    period_s: float
    fleet: bool = False

    @classmethod
    def parse(cls, text: str) -> Promise:
        """Raises ValueError where the text is no promise, or one that nobody can mean.

        >>> Promise.parse("1/7d"), Promise.parse("fleet:2.5/1d").fleet
        (Promise(count=1.0, period_s=604800.0, fleet=False), True)
        """
        found = _WRITTEN.fullmatch(text.strip().removeprefix(_FLEET))
        if found is None:
            raise ValueError(f"{_HOW}")
        try:
            count, period_s = float(found[1]), parse_duration(found[2])
        except ValueError:
            raise ValueError(f"{_HOW}") from None
        if not count > 0 or not period_s > 0:
            raise ValueError(f"more than none, in more than no time: {_HOW}")
        if not _COMMONEST_S <= period_s / count <= _RAREST_S:
            raise ValueError("between one in a second and one in a thousand years")
        return cls(count, period_s, text.strip().startswith(_FLEET))

    def per_day(self, streams: int) -> float:
        """Episodes per stream and day; a fleet's budget is divided among its ``streams``.

        >>> Promise.parse("fleet:5/1d").per_day(streams=10)
        0.5
        """
        return self.count * DAY_S / self.period_s / (max(streams, 1) if self.fleet else 1)


def _checked(text: str) -> str:
    Promise.parse(text)
    return text.strip()


#: A setting that holds a promise, as text.
PromiseText = Annotated[str, BeforeValidator(str), AfterValidator(_checked)]
