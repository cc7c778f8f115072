"""Variables of the environment that begin with RESIDUAL_: one that nobody reads is a slip, and is refused.

A slip in the name of a secret would otherwise mean that there is none, without a word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

START = "RESIDUAL_"

#: Beginnings of the variables of programs with settings of their own, which tell their own slips.
PROGRAMS = ("RESIDUAL_TRAINER_", "RESIDUAL_RETRAIN_", "RESIDUAL_SYNTH_", "RESIDUAL_NOTIFY_", "RESIDUAL_PAGE_")

#: Read by no program of Residual: where its tests find the measuring data.
OTHERS = ("RESIDUAL_DATA",)

# What Kubernetes sets in every container for each service of its namespace, and `docker --link` likewise: a service
# that is called residual-… must not keep the detector from starting.
_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")


def unknown(environment: Mapping[str, str], own: Iterable[str], elsewhere: Iterable[str] = ()) -> str | None:
    """One line about a variable that nobody reads, or None. ``own``, ``elsewhere``: names of those that are read.

    >>> unknown({"RESIDUAL_SASL_PASWORD": "…"}, ["RESIDUAL_SASL_PASSWORD"])
    'unknown variable RESIDUAL_SASL_PASWORD: did you mean RESIDUAL_SASL_PASSWORD? correct it, or remove it'
    """
    own = list(own)
    known = {*own, *elsewhere, *OTHERS}
    others = tuple(program for program in PROGRAMS if not any(name.startswith(program) for name in own))
    for name in sorted(name.upper() for name in environment):
        if not name.startswith(START) or name in known or name.startswith(others) or _SERVICE.search(name):
            continue
        nearest = difflib.get_close_matches(name, own, 1)
        guess = f"did you mean {nearest[0]}? " if nearest else ""
        return f"unknown variable {name}: {guess}correct it, or remove it"
    return None
