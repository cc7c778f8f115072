"""Which of the host's channels the demo watches, and what range such a sensor has.

The ranges are orders of magnitude of what a machine can do. They matter by their hundredths: see ``scale_floor``.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.manifest import Channel

#: Cores with a channel of their own: on a large machine single cores are mostly noise.
CORES = 16

_MEGABYTE = 1e6

#: Upper end of each channel's range, of a machine with one core where ``_PER_CORE`` has it too.
_RANGE = {
    "cpu.user": 100, "cpu.system": 100, "cpu.iowait": 100,
    "pressure.cpu": 100, "pressure.memory": 100, "pressure.io": 100,
    "load.running": 8,
    "memory.used": 100,
    "swap.in": 100 * _MEGABYTE, "swap.out": 100 * _MEGABYTE,
    "disk.read": 500 * _MEGABYTE, "disk.write": 500 * _MEGABYTE, "disk.reads": 5000, "disk.writes": 5000,
    "disk.busy": 1000,
    "net.received": 125 * _MEGABYTE, "net.sent": 125 * _MEGABYTE,  # 1 Gbit/s
    "cpu.switches": 50_000, "cpu.interrupts": 50_000,
    "process.count": 1000,
}  # fmt: skip
_PER_CORE = {"load.running", "cpu.switches", "cpu.interrupts"}

_LEFT_OUT = {
    "load.1min": "an average over minutes: it still carries the training, and the last fault",
    "load.threads": "the process count says it already",
    "net.packets_in": "net.received says it already",
    "net.packets_out": "net.sent says it already",
    "cpu.soft_interrupts": "cpu.interrupts says it already",
    "cpu.nice": "work that asked to be of no importance",
    "cpu.steal": "what other guests of the same host do",
    "swap.used": "never comes back after a fault on a machine that is short of memory",
}


def left_out(offered: Sequence[Channel], chosen: Sequence[Channel]) -> list[tuple[str, str]]:
    """(channel, why) of what a host offers and the demo does not watch."""
    names = {channel.name for channel in offered} - {channel.name for channel in chosen}
    return [(name, why) for name, why in _LEFT_OUT.items() if name in names]


def watched(offered: Sequence[Channel], cores: int) -> tuple[Channel, ...]:
    """The channels to watch, with ranges, out of those that a host with so many cores offers."""
    chosen = []
    for channel in offered:
        name = channel.name
        if name.startswith("cpu.core"):
            top = 100.0
        elif name not in _RANGE:
            continue
        else:
            top = float(_RANGE[name]) * (cores if name in _PER_CORE else 1)
        chosen.append(Channel(name=name, unit=channel.unit, min=0.0, max=top))
    return tuple(chosen)


def expected(value: float | None, channel: Channel | None) -> float | None:
    """An expected value as people should read it: within what the sensor can show.

    A model that has never seen a disk busy may expect -200 kB/s; that is its way to say none.
    """
    if value is None or channel is None or channel.min is None or channel.max is None:
        return value
    return min(max(value, channel.min), channel.max)


def amount(value: float | None, unit: str | None) -> str:
    """A value as people write it.

    >>> amount(212345678.0, "B/s"), amount(99.5, "%"), amount(12034.0, "1/s"), amount(None, "%")
    ('212 MB/s', '99.5 %', '12,034 /s', 'nothing')
    """
    if value is None:
        return "nothing"
    if unit == "B/s":
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= factor:
                return f"{_three(value / factor)} {prefix}B/s"
        return f"{_three(value)} B/s"
    shown = {"1/s": "/s", None: ""}.get(unit, unit)
    return f"{_three(value)} {shown}".rstrip()


def _three(value: float) -> str:
    """About three digits."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
