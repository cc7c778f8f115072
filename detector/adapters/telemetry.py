"""This host's telemetry as readings, by psutil: one channel per thing that the host itself counts.

Counters (bytes, operations, switches …) become rates per second since the previous reading. A counter that went back
(it wrapped, or its device was replaced) or whose device vanished makes its channel missing for one reading, instead of
a number that nobody moved. A device that is new counts from the next reading on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from schemas.errors import SettingsError
from schemas.manifest import Channel
from schemas.moment import format_time
from schemas.reading import Reading

#: Value by field, of each device.
Counters = Mapping[str, Mapping[str, float]]
Values = dict[str, float | None]

#: psutil's field → channel; a field that a platform does not have is left out there.
_DISK = {
    "read_bytes": "disk.read", "write_bytes": "disk.write", "read_count": "disk.reads", "write_count": "disk.writes",
    "busy_time": "disk.busy",
}  # fmt: skip
_NETWORK = {
    "bytes_recv": "net.received", "bytes_sent": "net.sent", "packets_recv": "net.packets_in",
    "packets_sent": "net.packets_out",
}  # fmt: skip
_STATS = {"ctx_switches": "cpu.switches", "interrupts": "cpu.interrupts", "soft_interrupts": "cpu.soft_interrupts"}
_SWAP = {"sin": "swap.in", "sout": "swap.out"}
#: Linux: the time during which some task waited for what (kernel documentation, "Pressure Stall Information").
_PRESSURE = {"cpu": "pressure.cpu", "memory": "pressure.memory", "io": "pressure.io"}
_PER_SECOND_UNIT = {
    "disk.read": "B/s", "disk.write": "B/s", "net.received": "B/s", "net.sent": "B/s", "swap.in": "B/s",
    "swap.out": "B/s", "disk.busy": "ms/s",
}  # fmt: skip
_CPU = {"user": "cpu.user", "nice": "cpu.nice", "system": "cpu.system", "iowait": "cpu.iowait", "steal": "cpu.steal"}


class Rates:
    """Rates per second of counters that several devices have, summed over the devices."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        self._before: dict[str, dict[str, float]] = {}
        self._at: float | None = None

    def update(self, now: float, counters: Counters) -> Values:
        """The rate of each field since the last call; None where it cannot be told. ``now``: seconds, any zero."""
        elapsed = 0.0 if self._at is None else now - self._at
        before, self._before, self._at = self._before, {d: dict(fields) for d, fields in counters.items()}, now
        return {field: self._rate(field, before, elapsed) for field in self._fields}

    def _rate(self, field: str, before: Counters, elapsed: float) -> float | None:
        if elapsed <= 0 or not before:
            return None
        total = 0.0
        for device, counted in before.items():
            if field not in counted:
                continue
            now = self._before.get(device, {}).get(field)
            if now is None or now < counted[field]:
                return None
            total += now - counted[field]
        return total / elapsed


class Telemetry:
    """Reads the host it runs on. Not for several threads at once.

    ``stream``: the stream's name, by default the host's; ``cores``: channels of single cores, at most. ``channels``:
    what this host offers, with units; fixed when this is made. Raises SettingsError where psutil is not installed.
    """

    def __init__(self, stream: str | None = None, cores: int = 64) -> None:
        try:
            import psutil  # here: the detector does without it
        except ImportError as error:
            raise SettingsError("reading this host's telemetry needs psutil: pip install psutil") from error
        self._psutil = psutil
        self.stream = stream or socket.gethostname() or "localhost"
        self._cores = min(len(psutil.cpu_times(percpu=True)), cores)
        self._cpu_before: list[dict[str, float]] = []
        self._rates: list[tuple[Rates, dict[str, str], Callable[[], Counters]]] = []
        for names, read in (
            (_DISK, self._disks), (_NETWORK, self._networks), (_STATS, self._stats), (_SWAP, self._swaps),
            (_PRESSURE, _pressures),
        ):  # fmt: skip
            offered = {field for counted in read().values() for field in counted}
            names = {field: name for field, name in names.items() if field in offered}
            self._rates.append((Rates(tuple(names)), names, read))
        first = self._read_all()
        self.channels = tuple(Channel(name=name, unit=_unit(name)) for name in first)
        self.values()  # rates have something to compare with from the first reading on

    def read(self) -> Reading:
        """The values of this moment."""
        return Reading(stream=self.stream, timestamp=format_time(time.time_ns()), values=self.values())

    def values(self) -> Values:
        """Value of each channel, in the order of ``channels``; rates are since the last call."""
        found = self._read_all()
        return {channel.name: found.get(channel.name) for channel in self.channels}

    def _read_all(self) -> Values:
        values = self._cpu()
        values.update(self._load())
        memory = self._psutil.virtual_memory()
        values["memory.used"] = 100.0 * (memory.total - memory.available) / memory.total  # without what caches hold
        values["swap.used"] = float(self._psutil.swap_memory().percent)
        now = time.monotonic()
        for rates, names, read in self._rates:
            values.update((names[field], rate) for field, rate in rates.update(now, read()).items())
        values["process.count"] = float(len(self._psutil.pids()))
        return values

    def _cpu(self) -> Values:
        """Per cent of the time since the last call: each core's busy share, and all cores' time by what it was for."""
        now = [time._asdict() for time in self._psutil.cpu_times(percpu=True)]
        before, self._cpu_before = self._cpu_before, now
        same = len(before) == len(now)
        spent = [_spent(b, n) for b, n in zip(before, now, strict=True)] if same else [{} for _ in now]
        values: Values = {}
        for core in range(self._cores):
            values[f"cpu.core{core}"] = _busy(spent[core]) if core < len(spent) else None
        total = sum(sum(core.values()) for core in spent)
        for field, name in _CPU.items():
            if field in now[0]:
                share = sum(core.get(field, 0.0) for core in spent)
                values[name] = 100.0 * share / total if total > 0 else None
        return values

    @staticmethod
    def _load() -> Values:
        values: Values = {}
        if hasattr(os, "getloadavg"):
            values["load.1min"] = os.getloadavg()[0]
        kernel = Path("/proc/loadavg")
        if kernel.exists():  # Linux: "0.20 0.18 0.12 1/80 11206", the fourth being runnable / existing
            running, _, existing = kernel.read_text().split()[3].partition("/")
            values["load.running"], values["load.threads"] = float(running), float(existing)
        return values

    def _disks(self) -> Counters:
        return _by_device(self._psutil.disk_io_counters(perdisk=True, nowrap=False), _DISK)

    def _networks(self) -> Counters:
        found = self._psutil.net_io_counters(pernic=True, nowrap=False) or {}
        # what a host says to itself is no network
        return _by_device({name: nic for name, nic in found.items() if name not in ("lo", "lo0")}, _NETWORK)

    def _stats(self) -> Counters:
        return _by_device({"": self._psutil.cpu_stats()}, _STATS)

    def _swaps(self) -> Counters:
        return _by_device({"": self._psutil.swap_memory()}, _SWAP)


def _pressures() -> Counters:
    """Hundredths of a second waited, so that their rate is per cent; without fields where the kernel does not tell."""
    waited: dict[str, float] = {}
    for what in _PRESSURE:
        with suppress(OSError, ValueError, IndexError):  # an old kernel has none, some others refuse to read
            some = Path("/proc/pressure", what).read_text().splitlines()[0]  # "some avg10=… avg60=… total=<µs>"
            waited[what] = int(some.rpartition("total=")[2]) / 1e4
    return {"": waited}


def _by_device(found: Mapping[str, Any] | None, fields: Mapping[str, str]) -> Counters:
    return {
        device: {field: float(getattr(counted, field)) for field in fields if hasattr(counted, field)}
        for device, counted in (found or {}).items()
    }


def _spent(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    """Seconds by what a core did; guests' time is in their hosts' already, and iowait is known to fall at times."""
    return {field: max(now[field] - before[field], 0.0) for field in now if not field.startswith("guest")}


def _busy(spent: dict[str, float]) -> float | None:
    total = sum(spent.values())
    return 100.0 * (1 - (spent["idle"] + spent.get("iowait", 0.0)) / total) if total > 0 else None


def _unit(name: str) -> str | None:
    if name in _PER_SECOND_UNIT:
        return _PER_SECOND_UNIT[name]
    if name in {*_DISK.values(), *_NETWORK.values(), *_STATS.values()}:
        return "1/s"
    return None if name.startswith(("load.", "process.")) else "%"
