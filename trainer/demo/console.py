"""What the terminal shows: a bar per stretch, or a plain line every few seconds where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime

from tqdm import tqdm

from schemas.alert import ChannelShare
from schemas.manifest import Channel
from schemas.moment import SECOND_NS
from trainer.demo.sensors import amount, expected

#: Seconds between lines of progress in a log.
LINE_S = 10.0


class Console:
    """Lines, and a bar below them while a stretch lasts."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._title, self._whole, self._began, self._said = "", 0.0, 0.0, 0.0

    def say(self, line: str = "") -> None:
        """One line, above the bar."""
        line += "\n"  # in one piece: ctrl-C between a text and its end would leave the next line in the middle of this
        if self._bar is not None:
            tqdm.write(line, end="")
        else:
            print(line, end="", flush=True)

    def begin(self, title: str, seconds: float) -> None:
        """A stretch of so many seconds begins."""
        self.end()
        self._title, self._whole, self._began = title, seconds, time.monotonic()
        self._said = self._began
        if sys.stderr.isatty():
            form = "{desc} {bar} {elapsed} of " + f"{seconds:.0f} s"
            self._bar = tqdm(total=seconds, desc=title, bar_format=form, leave=False)
        else:
            self.say(f"… {title}, {seconds:.0f} s")

    def tick(self) -> None:
        """Time has passed."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.n = min(now - self._began, self._whole)
            self._bar.refresh()
        elif now - self._said >= LINE_S:
            self._said = now
            self.say(f"  {title_of(self._title)}: {now - self._began:.0f} of {self._whole:.0f} s")

    def end(self) -> None:
        """The stretch is over."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def title_of(title: str) -> str:
    """The first words of a stretch's title."""
    return title.partition(":")[0]


def clock(ns: int) -> str:
    """Local time of day."""
    return datetime.fromtimestamp(ns / SECOND_NS).astimezone().strftime("%H:%M:%S")


def sensor_lines(shares: Sequence[ChannelShare], channels: Sequence[Channel]) -> list[str]:
    """A line for each sensor that gave an incident away."""
    known = {channel.name: channel for channel in channels}
    width = max((len(share.name) for share in shares), default=0)
    lines = []
    for share in shares:
        channel = known.get(share.name)
        unit = channel.unit if channel else None
        seen, due = amount(share.observed, unit), amount(expected(share.expected, channel), unit)
        lines.append(f"{share.name:<{width}}  {seen:>12}  expected {due:<12}  {share.share:.0%} of the error")
    return lines
