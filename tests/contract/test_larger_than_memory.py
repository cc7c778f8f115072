"""A Parquet file that does not fit into memory is read, made into rows and learned from.

The system itself sets the bound, what the values alone would take: more memory of its own the process is refused
(RLIMIT_DATA). What is mapped from files does not count, since the system can take it back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from thorough import thorough

from schemas.moment import SECOND_NS, format_time

ROWS, CHANNELS, STREAMS, GROUP = 360_000, 100, 3, 12_000
VALUES = 4 * ROWS * CHANNELS
"""Bytes, 144 MB. What is learned from takes 2¼ times as much: values, scaled values, and which of them are there."""

WITHIN = """
import resource, sys
import numpy as np, pyarrow.parquet, torch, torch._inductor.config  # what is loaded later would count
from detector.adapters import overflow
from trainer.data import load, prepare
from trainer.fit import fit
from trainer.settings import FitSettings

overflow.LIMIT, overflow.CHUNK_CELLS, path, bound = int(sys.argv[2]), 1 << 18, sys.argv[1], int(sys.argv[3])
torch.randn(64, 64).mm(torch.randn(64, 64))  # what only the first call takes
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held + bound, held + bound))
settings = FitSettings(model="linear", context="none")  # all windows are gone through
table = load([path], settings, None)
data = prepare(table, 2, settings)
network, curve = fit(data, settings)
print(len(table), len(set(table.streams)), table.timestamps[-1], data.scaled.nbytes, curve.fit[0] < 2)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written a group of rows at a time, never in memory as a whole."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path_factory.mktemp("large") / "a.parquet"
    names = pa.array([f"s{row % STREAMS}" for row in range(GROUP)]).dictionary_encode()
    writer = None
    for first in range(0, ROWS, GROUP):
        second = np.arange(first, first + GROUP) // STREAMS
        wave = np.sin(2 * np.pi * second / 60).round(2).astype(np.float32)
        columns = {f"c{c}": wave + np.float32(c) for c in range(CHANNELS)}
        part = pa.table({"timestamp": pa.array(second * 1000, pa.timestamp("ms")), "stream": names, **columns})
        writer = writer or pq.ParquetWriter(file, part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()
    return file


def within(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Learn from the file within as much memory as its values take; ``limit``: bytes from which arrays go to disk."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # others take room ahead
    command = [sys.executable, "-c", WITHIN, str(path), str(limit), str(VALUES)]
    return subprocess.run(command, capture_output=True, text=True, env=given, cwd=Path(__file__).resolve().parents[2])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process's own")
def test_data_larger_than_memory_are_learned_from(path: Path) -> None:
    done = within(path, 1 << 22)
    assert done.returncode == 0, done.stderr
    last = format_time((ROWS // STREAMS - 1) * SECOND_NS)
    rows, streams, stamp, size, fits = done.stdout.split()
    assert (int(rows), int(streams), stamp, int(size), fits) == (ROWS, STREAMS, last, VALUES, "True")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process's own")
@thorough
def test_the_bound_is_one_that_the_data_do_not_fit(path: Path) -> None:
    done = within(path, 1 << 40)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr or "allocate" in done.stderr
