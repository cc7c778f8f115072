"""The demo's faults: real, bounded, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from schemas.errors import SettingsError
from trainer.demo import faults as module
from trainer.demo.faults import MEGABYTE, SCRIPT, Fault, failed, faults, provoked


def ended(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_every_core_gets_a_process_that_computes() -> None:
    cpu, _ = faults(Path.cwd())
    assert len(cpu.commands) == module.burners(module.usable_cores()) >= module.usable_cores()
    with provoked(Fault("one", "", cpu.commands[:1]), 30) as (process,):
        time.sleep(0.8)
        spent = psutil.Process(process.pid).cpu_times()
        assert spent.user + spent.system > 0.1
    assert process.poll() is not None


def test_memory_is_held_up_to_its_size_and_given_back() -> None:
    with provoked(Fault("memory", "", (("memory", str(96 * MEGABYTE)),)), 30) as (process,):
        deadline = time.monotonic() + 10
        while psutil.Process(process.pid).memory_info().rss < 96 * MEGABYTE and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert 96 * MEGABYTE <= psutil.Process(process.pid).memory_info().rss < 180 * MEGABYTE
    assert not psutil.pid_exists(process.pid)


def test_the_file_has_no_name_and_keeps_to_its_size_and_rate(tmp_path: Path) -> None:
    size, rate = 96 * MEGABYTE, 64 * MEGABYTE
    with provoked(Fault("disk", "", (("disk", str(size), str(rate), str(tmp_path)),)), 30) as (process,):
        time.sleep(2.5)
        assert list(tmp_path.iterdir()) == []
        written = psutil.Process(process.pid).io_counters().write_chars
        sizes = [os.stat(f"/proc/{process.pid}/fd/{fd}").st_size for fd in os.listdir(f"/proc/{process.pid}/fd")]
    assert 32 * MEGABYTE <= written <= rate * 4
    assert max(sizes) <= size
    assert list(tmp_path.iterdir()) == []


def test_a_fault_ends_by_itself() -> None:
    began = time.monotonic()
    with provoked(Fault("short", "", (("cpu",),)), 0.3) as (process,):
        assert process.wait(10) == 0
        assert not failed([process])
    assert time.monotonic() - began < 30


def test_an_error_inside_ends_the_processes() -> None:
    with pytest.raises(RuntimeError), provoked(Fault("two", "", (("cpu",), ("cpu",))), 30) as processes:  # noqa: PT012
        pids = [process.pid for process in processes]
        raise RuntimeError("something else broke")
    assert ended(pids, 1)


def test_a_process_that_fails_is_noticed(tmp_path: Path) -> None:
    gone = str(tmp_path / "nowhere")
    with provoked(Fault("bad", "", (("disk", "1", "1", gone),)), 30) as (process,):
        process.wait(10)
        assert failed([process])


def test_faults_end_when_the_demo_is_killed() -> None:
    """Killed without a chance to clean up: the processes see that their parent is gone."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import time
                from trainer.demo.faults import Fault, provoked
                with provoked(Fault("two", "", (("cpu",), ("memory", "1"))), 60) as processes:
                    print(*[p.pid for p in processes], flush=True)
                    time.sleep(60)
            """),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    assert ended(pids, 5)


def test_too_little_memory_or_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_LEAST", 2**62)
    with pytest.raises(SettingsError, match=r"MB of memory are free.*close something"):
        faults(tmp_path)
    monkeypatch.setattr(module, "MEMORY_LEAST", 1)
    monkeypatch.setattr(module, "DISK_LEAST", 2**62)
    with pytest.raises(SettingsError, match=r"are free on the disk of .*--out"):
        faults(tmp_path)
