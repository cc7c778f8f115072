"""What a check has found, and how it is shown."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Of a finding."""

    WELL = "ok"
    NOTE = "note"
    FIX = "FIX"


@dataclass(frozen=True)
class Finding:
    """One line of the screen; ``advice``: what to do about it."""

    what: str
    state: State
    said: str
    advice: str = ""


def shown(finding: Finding) -> str:
    """As lines of at most 100 characters; names in them may come from records, so nothing unprintable is left."""
    text = finding.said + (f": {finding.advice}" if finding.advice else "")
    head = f"{finding.state.value:4}  {finding.what:9} "
    printed = "".join(c if c.isprintable() else "?" for c in text)
    return "\n".join(
        textwrap.wrap(printed, 100, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
    )
