"""Scores as the records of their topic; see ``schemas.score``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from detector.adapters.port import ScoreRecord
from detector.adapters.scores import top_shares
from detector.engine.engine import Scored
from detector.engine.streams import Streams
from schemas.moment import format_time

#: A share that is less is no news.
LEAST_SHARE = 0.0005


def score_records(scored: Scored, streams: Streams, channels: Sequence[str]) -> list[ScoreRecord]:
    """Of each reading that has a score, in their order."""
    rows = np.flatnonzero(~np.isnan(scored.score))
    top, shares = top_shares(scored.error[rows], np.zeros(len(rows), bool))
    columns = (scored.slot, scored.time, scored.score, scored.p_value, scored.alert)
    found = []
    for slot, moment, score, rarity, alert, places, parts in zip(
        *(column[rows].tolist() for column in columns), top.tolist(), shares.round(4).tolist(), strict=True
    ):
        named = [
            {"name": channels[c], "share": share}
            for c, share in zip(places, parts, strict=True) if share >= LEAST_SHARE
        ]  # fmt: skip
        value = {
            "stream": streams.names[slot], "timestamp": format_time(moment), "score": score, "p_value": rarity,
            "alert": alert, "channels": named,
        }  # fmt: skip
        key = streams.names[slot].encode()
        found.append(ScoreRecord(streams.partitions[slot], key, orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))
    return found
