"""How much is tried: ``make test`` takes minutes, ``make prove`` what it takes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")

THOROUGH = os.environ.get("RESIDUAL_THOROUGH", "") not in ("", "0")


def examples(count: int) -> int:
    """Examples of a property that is dear to try: so many, a sixth of them in ``make test``."""
    return count if THOROUGH else max(count // 6, 4)


#: Left to ``make prove``: what is dear, and of which ``make test`` tries a like.
thorough = pytest.mark.thorough


def few(chosen: Collection[T], values: Iterable[T]) -> list[ParameterSet]:
    """Parameters, of which ``make test`` tries those that are ``chosen``."""
    return [pytest.param(value, marks=() if value in chosen else thorough) for value in values]
