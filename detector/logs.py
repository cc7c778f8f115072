"""The log on standard error: plain lines, or a JSON object each for those who collect them."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from schemas.printable import printable


def start_log(level: str, form: str) -> None:
    """From now on; ``form``: plain or json."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_Json() if form == "json" else _OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[to_stderr])
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it retries is no news; what it raises we say ourselves


class _OneLine(logging.Formatter):
    """A message is one line, whatever names of streams are in it; what Python itself adds of an error may be more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — the name is logging's
        return printable(super().formatMessage(record))


class _Json(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message`` and, of an error that was caught, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return orjson.dumps(said, default=str).decode()
