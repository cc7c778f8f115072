"""The demo stopped, and started wrongly: nothing is left behind, and one line says why."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from demo_process import burning, run, started
from thorough import thorough


def test_ctrl_c_in_a_fault_leaves_nothing_running(tmp_path: Path) -> None:
    process = started("--out", str(tmp_path), "--seconds", "12")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "FAULT" in line:
            time.sleep(1)
            assert burning(process.pid)
            process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(30) == 130, "".join(lines)
    assert lines[-1].startswith("stopped"), "".join(lines)
    assert not burning(process.pid)
    assert "It was stopped" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_wrong_flag_is_one_line(tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path), "--seconds", "1")
    assert (code, said.count("\n")) == (2, 1), said
    assert "--seconds 1" in said


@thorough
def test_a_broker_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path), "--bootstrap-servers", "127.0.0.1:1")
    assert (code, said.splitlines()[-1].startswith("demo: no Kafka broker answered")) == (75, True), said
