"""This host's telemetry: rates of counters, and what the host really says."""

from __future__ import annotations

import builtins
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.adapters.telemetry import Rates, Telemetry
from schemas.errors import SettingsError
from schemas.moment import parse_time

_COUNT = st.integers(0, 2**53)


def test_a_rate_is_per_second_and_summed_over_devices() -> None:
    rates = Rates(("bytes",))
    assert rates.update(10.0, {"a": {"bytes": 100}, "b": {"bytes": 7}}) == {"bytes": None}
    assert rates.update(12.0, {"a": {"bytes": 300}, "b": {"bytes": 7}}) == {"bytes": 100.0}


@pytest.mark.parametrize(
    ("after", "why"),
    [({"a": {"bytes": 50}, "b": {"bytes": 900}}, "wrapped"), ({"b": {"bytes": 900}}, "vanished"), ({}, "all vanished")],
)
def test_a_counter_that_went_back_or_away_is_missing_once(after: dict[str, dict[str, float]], why: str) -> None:
    rates = Rates(("bytes",))
    rates.update(0.0, {"a": {"bytes": 100}, "b": {"bytes": 800}})
    assert rates.update(1.0, after) == {"bytes": None}, why
    again = {device: {"bytes": value["bytes"] + 5} for device, value in after.items()}
    assert rates.update(2.0, again) == {"bytes": 5.0 * len(after) if after else None}


def test_a_new_device_counts_from_the_next_reading_on() -> None:
    rates = Rates(("bytes",))
    rates.update(0.0, {"a": {"bytes": 0}})
    assert rates.update(1.0, {"a": {"bytes": 3}, "usb": {"bytes": 10**12}}) == {"bytes": 3.0}
    assert rates.update(2.0, {"a": {"bytes": 3}, "usb": {"bytes": 10**12 + 4}}) == {"bytes": 4.0}


def test_two_readings_at_one_moment_have_no_rate() -> None:
    rates = Rates(("bytes",))
    rates.update(5.0, {"a": {"bytes": 0}})
    assert rates.update(5.0, {"a": {"bytes": 9}}) == {"bytes": None}


@given(st.lists(st.tuples(st.sampled_from("abc"), _COUNT), max_size=30))
def test_a_rate_is_never_negative_and_never_infinite(events: list[tuple[str, int]]) -> None:
    rates, devices = Rates(("n",)), {}
    for second, (device, count) in enumerate(events):
        devices = {**devices, device: {"n": float(count)}}
        rate = rates.update(float(second), devices)["n"]
        assert rate is None or (rate >= 0 and math.isfinite(rate))


def test_this_host_is_read() -> None:
    telemetry = Telemetry("here")
    time.sleep(0.3)
    reading = telemetry.read()
    names = [channel.name for channel in telemetry.channels]
    assert reading.stream == "here"
    assert list(reading.values) == names
    assert len(set(names)) == len(names)
    assert {"cpu.core0", "cpu.user", "cpu.system", "memory.used", "swap.used", "cpu.switches"} <= set(names)
    assert all(value is None or (math.isfinite(value) and value >= 0) for value in reading.values.values())
    for name in ("cpu.core0", "cpu.user", "memory.used"):
        value = reading.values[name]
        assert value is not None
        assert 0 <= value <= 100
    assert isinstance(reading.timestamp, str)
    assert abs(parse_time(reading.timestamp) - time.time_ns()) < 5e9


def test_work_on_a_core_shows() -> None:
    telemetry = Telemetry()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    user = telemetry.values()["cpu.user"]
    assert user is not None
    assert user > 100 / max(len([c for c in telemetry.channels if c.name.startswith("cpu.core")]), 1) * 0.4


def test_fewer_cores_when_asked() -> None:
    assert [c.name for c in Telemetry(cores=1).channels if c.name.startswith("cpu.core")] == ["cpu.core0"]


def test_without_psutil_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "psutil":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match="pip install psutil"):
        Telemetry()
