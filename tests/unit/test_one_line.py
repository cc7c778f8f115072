"""What senders name their streams can forge no line of a log and move no terminal's cursor."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import POLICY
from tiny_model import tiny_model

from detector.engine.engine import Engine
from detector.engine.readings import Readings
from detector.service import summary
from schemas.printable import printable

FORGED = "press\n2030-01-01 00:00:00 INFO detector: all is well\r\x1b[2K\x1b]0;title\x07\u202egnp.exe\u2028\x00"


@given(st.text())
def test_any_text_is_one_line_that_prints(text: str) -> None:
    found = printable(text)
    assert found.isprintable()
    assert len(found.splitlines()) <= 1
    found.encode()  # half of a pair of surrogates would not be UTF-8
    assert printable(found) == found


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_what_prints_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_the_line_of_an_incident() -> None:
    values = np.where(np.arange(60)[:, None] < 40, 0.1, 9.0).astype(np.float32).repeat(3, axis=1)
    readings = Readings(0, [FORGED] * 60, np.arange(60) * 10**9, values)
    published = Engine(tiny_model(threshold=1.0), POLICY).process([readings]).published
    assert published
    for event in published:
        assert event.stream == FORGED
        assert summary(event).isprintable()
        assert "press\\n2030" in summary(event)


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_a_message_of_any_library_is_one_line(level: int) -> None:
    code = (
        "import logging, sys; from detector.cli import _settings, _parser\n"
        "_settings(_parser().parse_args(['run']))\n"
        f"logging.getLogger('some.library').log({level}, 'stream %s', {FORGED!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (line,) = done.stderr.decode().split("\n")[:-1]
    assert line.isprintable()
    assert "press\\n2030-01-01" in line


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    from detector.cli import main

    assert main(["score", "--model", f"{tmp_path}/a\nb\x1b[31m", "data", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
