"""A replica as ``detector run`` makes it, that notes its restores and commits in a file, line by line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import detector.run
from detector.adapters.port import Transaction
from detector.cli import main
from detector.monitor import Monitor

NOTES = Path(sys.argv[1])


class Noting(Monitor):
    """``restore SECONDS`` and ``commit WHEN SECONDS BYTES``."""

    _began = 0.0

    def ready(self, ready: bool, why: str) -> None:
        """See ``Observer``."""
        super().ready(ready, why)
        if why == "restoring":
            self._began = time.monotonic()
        elif ready:
            self._note(f"restore {time.monotonic() - self._began:.3f}")

    def committed(self, transaction: Transaction, types: list[str], seconds: float) -> None:
        """See ``Observer``."""
        super().committed(transaction, types, seconds)
        size = sum(len(record.key) + len(record.value or b"") for record in transaction.state)
        self._note(f"commit {time.time():.3f} {seconds:.6f} {size}")

    def _note(self, line: str) -> None:
        with NOTES.open("a") as notes:
            notes.write(line + "\n")


if __name__ == "__main__":
    detector.run.Monitor = Noting  # type: ignore[misc]
    sys.exit(main(["run", *sys.argv[2:]]))
